"""What a person should know of a Trader's change of version or worker, as events. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from chandlery.core.assignment import TraderAssignment
from chandlery.core.resources import MEANWHILE_NOTHING
from chandlery.core.resources.status import MAX_MESSAGE_CHARS
from chandlery.operator.planner import Verdict
from chandlery.operator.planner_rollout import candle_text

News = tuple[Literal["Normal", "Warning"], str, str]


def changes_to_tell(
    before: Mapping[str, Any], verdict: Verdict | None, runs: TraderAssignment | None
) -> Iterator[News]:
    """Level, reason and note of each thing to tell.

    Args:
        before: the Trader's status as it was. runs: the assignment of the incarnation that decides now.
    """
    if verdict is None or runs is None:
        return
    rollout = verdict.rollout
    if rollout is not None and rollout.incarnation and not rollout.is_move:
        yield (
            "Normal",
            "RolloutStarted",
            f"generation {rollout.generation} starts as incarnation {rollout.incarnation}, beside generation "
            f"{runs.generation}, which decides until it takes over",
        )
    if verdict.failed is not None and not stands(before, verdict.reason, verdict.message):
        yield "Warning", "RolloutFailed", f"{verdict.message}"
    last_incarnation, last_generation = before.get("incarnation") or 0, before.get("runningGeneration") or 0
    if not last_incarnation or last_incarnation >= runs.incarnation:
        return
    took_over = f"; it decides from the candle of {candle_text(runs.from_ms)} on" if runs.from_ms else ""
    if last_generation and last_generation != runs.generation:
        note = (
            f"generation {runs.generation} (incarnation {runs.incarnation}) took over from generation {last_generation}"
        )
        yield "Normal", "RolloutFinished", note + took_over
    last_worker = before.get("worker")
    if last_worker and last_worker != verdict.worker:
        note = f"from worker {last_worker} to {verdict.worker}, as incarnation {runs.incarnation}"
        yield "Normal", "Moved", note + took_over


def stands(status: Mapping[str, Any], reason: str, message: str, generation: int | None = None) -> bool:
    """Whether a status says this of Ready already, apart from what its pool does meanwhile.

    Args:
        generation: of which it is to be said; None: any, the message names it.
    """
    for one in status.get("conditions") or ():
        if one.get("type") == "Ready":
            is_of_it = generation is None or one.get("observedGeneration") == generation
            said = (one.get("reason"), _lasting(one.get("message", "")))
            return is_of_it and said == (reason, _lasting(message))
    return False


def _lasting(message: str) -> str:
    """As much of a message as a condition holds, without what its pool does meanwhile."""
    return message[:MAX_MESSAGE_CHARS].partition(MEANWHILE_NOTHING)[0]
