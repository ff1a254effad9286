"""The feed's part of the worker's status; docs/status.md says what each field means."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from chandlery.core.latency import account
from chandlery.core.signals import completed
from chandlery.workers.feed.newest_signals import Acknowledged

#: Counters of updates and records that were left out, by reason. Everything else counts what was done.
DROP_REASONS: Final = (
    "session",
    "stale_forming",
    "held_dropped",
    "revision_too_old",
    "series_refused",
    "completion_lost",
    "dead_letter_lost",
)
_CANDLES: Final = ("closed", "revised", "filled", "final", "forming", "duplicate", "repetition", "conflated")
#: Of these one comes each half second while Kafka is away, which is told otherwise.
_RETRIES: Final = frozenset({"consumer_restarts", "catchup_retries", "recall_retries"})
_MOVING: Final = frozenset({"records", "records_per_s", "lag", "behind_ms", "latency"})
_ELSEWHERE: Final = (*DROP_REASONS, *_CANDLES, "gaps", "held")


def signal_report(newest: Sequence[Acknowledged]) -> list[dict[str, Any]]:
    """Acknowledged signals, each with its completion, its account, and what the close of its candle said (or null)."""
    return [
        {
            "signal": one.signal,
            "completion": one.completion,
            "account": account(completed(one.signal.stamps, one.completion))._asdict(),
            "word": one.word,
        }
        for one in newest
    ]


def candle_report(counts: Counter[str]) -> dict[str, int]:
    """Candle updates taken in, and repetitions recognised."""
    return {name: counts[name] for name in _CANDLES}


def drop_report(counts: Counter[str], dead_letters: int, signals: Counter[str]) -> dict[str, int]:
    """Everything that was left out, by reason; reasons with nothing are left out themselves."""
    drops = {name: counts[name] for name in DROP_REASONS if counts[name]}
    if dead_letters:
        drops["undecodable"] = dead_letters
    for reason, number in signals.items():
        drops[reason] = drops.get(reason, 0) + number
    return drops


def event_report(counts: Counter[str]) -> dict[str, int]:
    """Counters of what happened beside candles and drops: restarts, resends, corrupt rings."""
    return {name: number for name, number in sorted(counts.items()) if name not in _ELSEWHERE}


class Rate:
    """Records a second over the last whole second."""

    def __init__(self) -> None:
        self._before = 0
        self._at_s = 0.0
        self.per_s = 0.0

    def measure(self, total: int, now_s: float) -> None:
        """Note the total of now; called about once a second."""
        if self._at_s and now_s > self._at_s:
            self.per_s = (total - self._before) / (now_s - self._at_s)
        self._before, self._at_s = total, now_s


def summary(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that mean a change when they differ: all but rates and ages, which move without one, retries, and
    ``records``, which candles tell of."""
    events = {name: number for name, number in fields["events"].items() if name not in _RETRIES}
    return {name: value for name, value in fields.items() if name not in _MOVING} | {"events": events}
