"""From the instance's view to what the API says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from chandlery.console.api.models import Feed, Pool, Quantiles, SegmentUse, Trader
from chandlery.console.backends.losses import FeedLosses
from chandlery.console.backends.memory_history import Measured
from chandlery.console.model import FeedRow, PoolRow, SegmentRow, TraderRow, View

# Ingest tells the market's time four times a second also where nothing is traded; its way here takes 2 s at most
# (status 0.5 s, view 1 s); an aggregator that begins again takes 5 s. Twice that: the feed stands still.
_STILL_MS: Final = 15_000
_KINDS: Final = ("ingest", "aggregator", "feed", "supervisor")


class MarketTime:
    """When each feed's market time was last seen to move on, by this process's monotonic clock."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, float]] = {}

    def note(self, feeds: Iterable[FeedRow], now_s: float) -> None:
        """Take in the newest rows; feeds not among them are forgotten."""
        seen: dict[str, tuple[int, float]] = {}
        for row in feeds:
            if row.watermark_ms:
                before = self._seen.get(row.feed)
                seen[row.feed] = before if before and before[0] == row.watermark_ms else (row.watermark_ms, now_s)
        self._seen = seen

    def age_ms(self, feed: str, now_s: float) -> int | None:
        """How long a feed's market time has stood still, ms; None: it never told one."""
        seen = self._seen.get(feed)
        return None if seen is None else max(0, int((now_s - seen[1]) * 1000))


def trader_of(row: TraderRow, now_ms: int, view_age_ms: int) -> Trader:
    """One Trader.

    Args:
        now_ms: wall clock. view_age_ms: how old the view is that the row is of.
    """
    age_ms = max(0, now_ms - row.told_ms) if row.told_ms else view_age_ms
    return Trader(
        trader=row.trader,
        state=row.state,
        reason=row.reason,
        message=row.message,
        # Of one that is suspended the worker says its process's state; it decides nothing, so it isn't ready.
        ready=row.ready and not row.suspended,
        suspended=row.suspended,
        strategy=row.strategy,
        symbols=row.symbols,
        interval=row.interval,
        pool=row.pool,
        worker=row.worker,
        generation=row.generation,
        warm_have=row.warm_have,
        warm_need=row.warm_need,
        calls=row.calls,
        signals=row.signals,
        restarts=row.restarts,
        errors=row.errors,
        rss_bytes=row.rss_bytes,
        last_open_time_ms=row.last_open_time_ms,
        last_error=row.last_error,
        latency=Quantiles(
            p50_us=row.frame_to_signal_p50_us, p99_us=row.frame_to_signal_p99_us, count=row.latency_count
        ),
        age_ms=age_ms,
    )


def pool_of(row: PoolRow) -> Pool:
    """One TraderPool."""
    return Pool(
        pool=row.pool,
        feed=row.feed,
        workers=row.workers,
        ready_workers=row.ready_workers,
        capacity=row.capacity,
        used=row.used,
        pending=row.pending,
        transport=row.transport,
        message=row.message,
    )


class Losses:
    """When each feed was last seen to lose something."""

    def __init__(self) -> None:
        self._feeds: dict[str, FeedLosses] = {}

    def note(self, feeds: Sequence[FeedRow], now_s: float) -> None:
        """Take in the newest rows; feeds not among them are forgotten."""
        self._feeds = {row.feed: self._feeds.get(row.feed, FeedLosses()) for row in feeds}
        for row in feeds:
            self._feeds[row.feed].note(now_s, ingest=(row.missing_ids, row.dropped), dead_letters=row.dead_letters)

    def ages_ms(self, feed: str, now_s: float) -> dict[str, int]:
        """How long ago the newest loss of a feed was seen, ms, by kind; those of which there was none aren't there."""
        seen = self._feeds.get(feed)
        return {} if seen is None else seen.ages_ms(now_s)


def feed_of(
    row: FeedRow, market_time: MarketTime, now_s: float, *, answers: bool, lost_ages_ms: dict[str, int] | None = None
) -> Feed:
    """One MarketFeed. answers: whether the instance does; one that is away has no feed that is known to be alive."""
    age_ms = market_time.age_ms(row.feed, now_s)
    moves = age_ms is not None and age_ms < _STILL_MS
    return Feed(
        feed=row.feed,
        alive=answers and (row.finished or (row.connected and moves)),
        connected=row.connected,
        finished=row.finished,
        source=row.source,
        symbols=row.symbols,
        intervals=row.intervals,
        frames=row.frames,
        trades=row.trades,
        trades_per_s=round(row.trades_per_s, 1),
        candles_closed=row.candles_closed,
        lag=row.aggregator_lag,
        behind_ms=row.behind_ms,
        late=row.late,
        duplicate=row.duplicate,
        missing_ids=row.missing_ids,
        dropped=row.dropped,
        dead_letters=row.dead_letters,
        reconnects=row.reconnects,
        lost_ages_ms=lost_ages_ms or {},
        watermark_age_ms=age_ms,
        message=row.message,
    )


def segment_of(row: SegmentRow) -> SegmentUse:
    """One worker's shared memory."""
    return SegmentUse(
        worker=row.worker,
        size_bytes=row.size_bytes,
        series_used=row.series,
        series_capacity=row.series_capacity,
        rings=row.rings,
        ring_depth=row.ring_depth,
        laps=row.laps,
    )


def processes_of(view: View, shares: Mapping[int, int]) -> list[Measured]:
    """Every process that runs, traders' own among them.

    Args:
        shares: proportional memory by pid, where it is known.
    """
    processes = [
        Measured(row.name, kind_of(row.name), row.pid, row.rss_bytes, shares.get(row.pid))
        for row in view.processes
        if row.rss_bytes
    ]
    return processes + [
        Measured(row.trader, "trader", row.pid, row.rss_bytes, shares.get(row.pid))
        for row in view.traders
        if row.pid and row.rss_bytes
    ]


def pids_of(view: View) -> list[int]:
    """The processes of an instance that take memory."""
    known = [(row.pid, row.rss_bytes) for row in view.processes] + [(row.pid, row.rss_bytes) for row in view.traders]
    return [pid for pid, rss_bytes in known if pid and rss_bytes]


def kind_of(process: str) -> str:
    """``ingest-market`` is an ``ingest``; ``kafka``, ``up`` and ``console`` are what they are called."""
    word = process.partition("-")[0]
    return word if word in _KINDS else process
