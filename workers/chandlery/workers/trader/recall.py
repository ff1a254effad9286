"""Which candles are due to a Trader whose pod has taken its positions with it: by the wall clock alone. Pure."""

from __future__ import annotations

from chandlery.core.assignment import TraderAssignment
from chandlery.core.intervals import Interval
from chandlery.workers.trader.market import SeriesView


def recall_from_ms(spec: TraderAssignment, interval: Interval, newest_open_ms: int, wall_ms: int) -> int:
    """From which candle on candles are due where no position is stored.

    Those that have closed since ``since_ms``, and are no older than the ttl beside the newest that can have closed by
    now: a feed that reads its way up shows nothing of what comes. In a replay of another year all are older.

    Args:
        newest_open_ms: open time of the series' newest closed candle. wall_ms: now.

    Returns:
        Open time, ms; -1: none are, but those that come. So it is without ``since_ms``, or a ttl to bound it, and where
        the series' times run ahead of the clock: then they aren't the clock's.
    """
    if not spec.since_ms or not spec.signal_ttl_ms or newest_open_ms > wall_ms:
        return -1
    newest_possible_ms = interval.floor_ms(interval.floor_ms(wall_ms) - 1)
    return max(0, interval.floor_ms(spec.since_ms), newest_possible_ms - spec.signal_ttl_ms)


def signalled_from_ms(
    spec: TraderAssignment, interval: Interval, view: SeriesView, *, after_ms: int, recalled: bool
) -> int:
    """Decisions on candles that opened before this (ms) were no signals of this Trader, so they cool nothing down.

    Args:
        after_ms: open time of the newest candle that is dealt with. recalled: whether it begins with what is due by
            :func:`recall_from_ms`, and hasn't a position of its own.
    """
    if spec.from_ms:
        return view.traded_from_ms  # what the incarnation before decided elsewhere cools as it did there
    if not spec.since_ms:
        return view.live_from_ms
    since_ms = max(interval.floor_ms(spec.since_ms), view.traded_from_ms)
    if recalled or after_ms >= since_ms:
        return since_ms  # the series may have been live for others long before
    # It was suspended and resumed with a position of before: since when that one signalled isn't known any more.
    return min(view.live_from_ms, since_ms) if view.live_from_ms >= 0 else view.live_from_ms
