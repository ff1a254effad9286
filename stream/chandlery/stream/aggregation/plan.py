"""Which intervals are built from trades, and which are rolled up from a shorter one."""

from __future__ import annotations

from dataclasses import dataclass

from chandlery.core.errors import InputError
from chandlery.core.intervals import Interval, parse_interval

_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Step:
    """How one interval is built.

    Attributes:
        interval: the interval.
        parent: index of the step it is rolled up from, always a lower one; -1: sliced from the trades.
    """

    interval: Interval
    parent: int


class AggregationPlan:
    """What to build, and within which bounds.

    Attributes:
        steps: one a distinct interval, shortest first; the first is always built from trades, and the counts
            are kept at it.
        bases: those of them built from trades.
        lateness_ms: how long after its end (by the watermark) a closed candle still takes trades.
        max_fill_candles: most candles without trades in a row that are made up.
    """

    __slots__ = ("bases", "lateness_ms", "max_fill_candles", "steps")

    def __init__(self, intervals: list[str], *, lateness_ms: int = 5_000, max_fill_candles: int = 5_000) -> None:
        """Plan the intervals.

        Args:
            intervals: interval texts in any order; repetitions are dropped.

        Raises:
            InputError: none given, one is no interval, or a bound is negative.
        """
        if not intervals:
            raise InputError("intervals: name at least one, such as 1m")
        if lateness_ms < 0 or max_fill_candles < 0:
            raise InputError("allowed_lateness_ms and max_fill_candles must be 0 or more")
        parsed = sorted({parse_interval(text) for text in intervals}, key=lambda each: (each.length_ms, each.text))
        steps: list[Step] = []
        for index, interval in enumerate(parsed):
            parents = [at for at in range(index) if divides(parsed[at], interval)]
            steps.append(Step(interval, parents[-1] if parents else -1))
        self.steps = tuple(steps)
        self.bases = tuple(step for step in steps if step.parent < 0)
        self.lateness_ms = lateness_ms
        self.max_fill_candles = max_fill_candles


def divides(short: Interval, long: Interval) -> bool:
    """Whether every boundary of ``long`` is a boundary of ``short``, so that one can be rolled up into the other."""
    if short.text.endswith("M"):
        return long.text.endswith("M") and int(long.text[:-1]) % int(short.text[:-1]) == 0
    if long.text.endswith("M"):
        # Months begin on any weekday, but always at midnight.
        return not short.text.endswith("w") and _DAY_MS % short.length_ms == 0
    if long.length_ms % short.length_ms:
        return False
    # Weeks are shifted against the epoch; a boundary of the long one tells whether the grids meet.
    return short.floor_ms(long.floor_ms(0)) == long.floor_ms(0)
