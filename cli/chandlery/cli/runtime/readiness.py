"""Which traders are, and which ever became, Ready."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from chandlery.core.assignment import READY_STATES, TraderStatus, WorkerStatus
from chandlery.operator.planner import Verdict


def is_ready(verdict: Verdict, status: TraderStatus | None) -> bool:
    """Whether the trader's own process has said READY for what is assigned now."""
    return (
        status is not None
        and status.state in READY_STATES
        and (status.generation, status.incarnation) == (verdict.generation, verdict.incarnation)
    )


class Readiness:
    """Remembers which Traders have been Ready in the version that is wanted now."""

    def __init__(self) -> None:
        self._ready: dict[str, tuple[int, int]] = {}
        self._wanted: dict[str, tuple[int, int]] = {}

    def note(self, verdicts: Mapping[str, Verdict], statuses: Iterable[WorkerStatus | None]) -> None:
        """Take in the newest plan and statuses."""
        self._wanted = {name: (verdict.generation, verdict.incarnation) for name, verdict in verdicts.items()}
        for status in statuses:
            for name, trader in status.traders.items() if status is not None else ():
                verdict = verdicts.get(name)
                if verdict is not None and is_ready(verdict, trader):
                    self._ready[name] = self._wanted[name]

    def was_ready(self, trader: str) -> bool:
        """Whether it has been Ready as it is wanted now."""
        return trader in self._ready and self._ready[trader] == self._wanted.get(trader)
