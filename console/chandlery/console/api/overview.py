"""The first look, made of what is known: is the feed alive, are all Traders Ready, how many signals, how quick."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from chandlery.console.api.models import Feed, Latency, Overview, Pool, Quantiles, Trader
from chandlery.console.backend import Snapshot

#: Sentences of attention that are told; the rest are counted.
_MOST_TOLD: Final = 20
#: Growth that a person should see, bytes an hour: 50 MB fill a small node's memory in a day or two.
_GROWTH_BYTES_PER_H: Final = 50_000_000
#: A signal shall be acknowledged this soon after its frame, 99 in 100 of them, µs: the objective of the alert rules.
SIGNAL_US: Final = 65_536
#: Of fewer signals p99 is their slowest, which says nothing of the others; a desk that is followed has these in a minute.
ENOUGH_SIGNALS: Final = 20
#: What a feed lost is news for this long: a connection that comes back has always missed some, and nobody can fetch it again.
_LOSS_NEWS_MS: Final = 600_000
#: Reasons of a Ready Trader that is on its way to its newest version: nobody needs to do anything.
_ROLLING: Final = ("Waiting", "Warming", "HandingOver", "TakingOver")
#: Reasons of a Ready Trader whose newest version nothing keeps back; that its candles come late a notice tells once for all.
_NOT_HELD: Final = ("", "Lagging", *_ROLLING)


def overview_of(
    snapshot: Snapshot, *, mode: str, version: str, writable: bool, signals_per_min: float, latency: Latency
) -> Overview:
    """One look at everything. ``latency``: over the last minute."""
    traders = snapshot.traders
    suspended = [one for one in traders if one.suspended]
    return Overview.model_validate(
        {
            "mode": mode,
            "version": version,
            "at_ms": time.time_ns() // 1_000_000,
            "started_ms": snapshot.started_ms,
            "writable": writable,
            "feeds_alive": sum(feed.alive for feed in snapshot.feeds),
            "feeds": len(snapshot.feeds),
            "traders_ready": sum(one.ready and not one.suspended for one in traders),
            "traders": len(traders) - len(suspended),
            "traders_suspended": len(suspended),
            "signals_per_min": signals_per_min,
            "frame_to_signal": latency.frame_to_signal,
            "slow": is_slow(latency.frame_to_signal),
            "memory_bytes": snapshot.memory.total_bytes,
            "memory_measure": snapshot.memory.measure,
            "attention": _shortened([*attention(snapshot, latency.frame_to_signal)]),
            "away": list(snapshot.away),
        }
    )


def is_slow(frame_to_signal: Quantiles) -> bool:
    """Whether signals, where there are enough to say, miss their objective."""
    return frame_to_signal.count >= ENOUGH_SIGNALS and (frame_to_signal.p99_us or 0.0) > SIGNAL_US


def attention(snapshot: Snapshot, frame_to_signal: Quantiles) -> Iterator[str]:
    """What is not as it should be, the worst first: feeds, then Traders, pools, losses, slow signals, memory, notices."""
    yield from (_of_feed(feed) for feed in snapshot.feeds if not feed.alive)
    waiting = [one for one in snapshot.traders if not one.ready and not one.suspended]
    # Those with a reason to mend before those that are only on their way.
    yield from map(_of_trader, sorted(waiting, key=lambda one: (not one.reason, one.trader)))
    # Its version before goes on, and what was wanted since is refused, failed or waits for somebody.
    held = [one for one in snapshot.traders if one.ready and not one.suspended and one.reason not in _NOT_HELD]
    yield from map(_of_held, sorted(held, key=lambda one: one.trader))
    yield from (_of_pool(pool) for pool in snapshot.pools if pool.pending or pool.ready_workers < pool.workers)
    yield from filter(None, map(_of_losses, snapshot.feeds))
    if is_slow(frame_to_signal):
        # Without the figure, which is another each second: who reads by ear would hear it again and again.
        yield f"signals are slow: p99 from frame to signal is over {SIGNAL_US / 1e3:.0f} ms in the last minute"
    for process in snapshot.memory.processes:
        if not process.bounded and (process.growth_bytes_per_h or 0) > _GROWTH_BYTES_PER_H:
            yield f"memory of {process.name} grows by {(process.growth_bytes_per_h or 0) / 1e6:.0f} MB an hour"
    yield from snapshot.notices


def _of_feed(feed: Feed) -> str:
    state = "connected, but no candles come" if feed.connected else "not connected"
    return f"feed {feed.feed} is {state}" + (f": {feed.message}" if feed.message else "")


def _of_losses(feed: Feed) -> str:
    """What is news of them; empty: nothing."""
    # Without figures, as of slow signals; the feed's card has them.
    kinds = {
        "missing_ids": "trades are missing by their ids",
        "dropped": "frames or trades were dropped",
        "dead_letters": "records went to the dead letters",
    }
    news = {name for name, age_ms in feed.lost_ages_ms.items() if age_ms < _LOSS_NEWS_MS and getattr(feed, name)}
    what = ", ".join(words for name, words in kinds.items() if name in news)
    return f"feed {feed.feed} has lost some of its market: {what}" if what else ""


def _of_trader(trader: Trader) -> str:
    why = ": ".join(part for part in (trader.reason, trader.message or trader.last_error) if part)
    return f"Trader {trader.trader} is {trader.state}" + (f": {why}" if why else "")


def _of_held(trader: Trader) -> str:
    why = f"{trader.reason}: {trader.message}" if trader.message else trader.reason
    return f"Trader {trader.trader} goes on with its version before: {why}"


def _of_pool(pool: Pool) -> str:
    if pool.pending:
        what = f"{pool.pending} Traders wait for room" if pool.pending > 1 else "one Trader waits for room"
    else:
        what = f"{pool.ready_workers} of {pool.workers} workers are Ready"
    return f"pool {pool.pool}: {what}" + (f": {pool.message}" if pool.message else "")


def _shortened(sentences: list[str]) -> list[str]:
    if len(sentences) <= _MOST_TOLD:
        return sentences
    return [*sentences[:_MOST_TOLD], f"and {len(sentences) - _MOST_TOLD} more"]
