"""A backend, signals and a market in memory, with the manners of the real ones; tests turn their knobs."""

from __future__ import annotations

import asyncio
import copy
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from chandlery.console.api.models import (
    Candle,
    Candles,
    Feed,
    Latency,
    Memory,
    Pool,
    Quantiles,
    Signal,
    SignalDetail,
    Trader,
)
from chandlery.console.backend import (
    ConflictError,
    FeedKafka,
    NotFoundError,
    Snapshot,
    TraderManifest,
)
from chandlery.console.market import CandleEvent, SignalEvent, SignalQuery
from chandlery.core.errors import InputError


@dataclass
class InMemoryBackend:
    """Traders, pools and feeds as lists. ``failing``: raised by everything that asks; ``away``: as the snapshot says."""

    mode: Literal["local", "cluster"] = "local"
    writable: bool = True
    traders: dict[str, Trader] = field(default_factory=dict)
    pools: list[Pool] = field(default_factory=list)
    feeds: list[Feed] = field(default_factory=list)
    memory: Memory = field(default_factory=lambda: Memory(processes=[]))
    manifests: dict[str, TraderManifest] = field(default_factory=dict)
    away: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    started_ms: int = 0
    failing: Exception | None = None
    #: Raised by ``snapshot`` too, which a real backend never does.
    broken: Exception | None = None
    version: int = 100
    #: False: its figures know nothing yet of what was written a moment ago, as a real one's.
    figures_follow: bool = True
    #: What reached it: (what, namespace/name).
    asked: list[tuple[str, str]] = field(default_factory=list)

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def snapshot(self) -> Snapshot:
        if self.broken is not None:
            raise self.broken
        return Snapshot(
            traders=list(self.traders.values()),
            pools=list(self.pools),
            feeds=list(self.feeds),
            memory=self.memory,
            away=list(self.away),
            notices=list(self.notices),
            started_ms=self.started_ms,
        )

    def kafkas(self) -> Sequence[FeedKafka]:
        return ()

    async def manifest(self, namespace: str, name: str) -> TraderManifest:
        return self._known("manifest", f"{namespace}/{name}")

    async def create(self, manifest: dict[str, Any]) -> TraderManifest:
        name = _name_of(manifest)
        self._ask("create", name)
        if name in self.manifests:
            raise ConflictError(f"there is a Trader {name} already; change it, or take another name")
        return self.keep(name, manifest)

    async def replace(self, manifest: dict[str, Any], resource_version: str) -> TraderManifest:
        name = _name_of(manifest)
        before = self._known("replace", name)
        if resource_version and resource_version != before.resource_version:
            raise ConflictError(f"Trader {name} was changed meanwhile: look at it again, then edit that")
        return self.keep(name, manifest)

    async def suspend(self, namespace: str, name: str, *, suspend: bool) -> TraderManifest:
        before = self._known("suspend", f"{namespace}/{name}")
        manifest = copy.deepcopy(before.manifest)
        manifest["spec"]["suspend"] = suspend
        return self.keep(f"{namespace}/{name}", manifest)

    async def delete(self, namespace: str, name: str) -> None:
        self._known("delete", f"{namespace}/{name}")
        del self.manifests[f"{namespace}/{name}"]
        self.traders.pop(f"{namespace}/{name}", None)

    def keep(self, name: str, manifest: dict[str, Any]) -> TraderManifest:
        self.version += 1
        made = TraderManifest(manifest=manifest, resource_version=str(self.version))
        self.manifests[name] = made
        if not self.figures_follow:
            return made
        spec = manifest["spec"]
        suspended = spec.get("suspend") is True
        known = self.traders.get(name)
        self.traders[name] = Trader(
            trader=name,
            state="Suspended" if suspended else "Pending" if known is None or known.suspended else known.state,
            ready=known is not None and known.ready and not suspended,
            suspended=suspended,
            strategy=spec["strategy"]["name"],
            symbols=list(spec["market"]["symbols"]),
            interval=spec["market"]["interval"],
            pool=f"{spec['pool'].get('namespace') or name.partition('/')[0]}/{spec['pool']['name']}",
            generation=(known.generation if known else 0) + 1,
        )
        return made

    def _known(self, what: str, name: str) -> TraderManifest:
        self._ask(what, name)
        if name not in self.manifests:
            raise NotFoundError(f"there is no Trader {name}")
        return self.manifests[name]

    def _ask(self, what: str, name: str) -> None:
        self.asked.append((what, name))
        if self.failing is not None:
            raise self.failing


def _name_of(manifest: dict[str, Any]) -> str:
    metadata = manifest["metadata"]
    return f"{metadata['namespace']}/{metadata['name']}"


class InMemorySignals:
    """Signals with positions ``memory:N``. The newest ``kept`` events can be followed again; older ones are lost."""

    def __init__(self, kept: int = 5_000) -> None:
        self.events: deque[tuple[int, Signal]] = deque(maxlen=kept)
        self.details: dict[str, SignalDetail] = {}
        self.told = 0
        self.summary = Latency(window_s=60)
        self.counts: dict[str, list[int]] = {}
        self.rate = 0.0
        self.failing: Exception | None = None
        self._came = asyncio.Event()
        self.following = 0

    def tell(self, signal: Signal, detail: SignalDetail | None = None) -> str:
        """A signal came, or is known better; returns its position."""
        self.told += 1
        self.events.append((self.told, signal))
        self.details[signal.id] = detail or SignalDetail.model_validate(signal.model_dump())
        while len(self.details) > (self.events.maxlen or 0):
            del self.details[next(iter(self.details))]
        self._came.set()
        self._came = asyncio.Event()
        return f"memory:{self.told}"

    def page(self, query: SignalQuery) -> tuple[Sequence[Signal], str]:
        if self.failing is not None:
            raise self.failing
        before = _number(query.before) if query.before else self.told + 1
        newest: dict[str, tuple[int, Signal]] = {}
        for position, signal in self.events:
            newest[signal.id] = (newest.get(signal.id, (position,))[0], signal)
        found = [(at, one) for at, one in newest.values() if at < before and _chosen(one, query)]
        found.sort(key=lambda item: -item[0])
        page = found[: query.limit]
        return [one for _, one in page], f"memory:{page[-1][0]}" if len(found) > len(page) else ""

    def get(self, signal_id: str) -> SignalDetail | None:
        return self.details.get(signal_id)

    def position(self) -> str:
        return f"memory:{self.told}"

    async def follow(self, after: str, query: SignalQuery) -> AsyncIterator[SignalEvent]:
        at = _number(after) if after else self.told
        self.following += 1
        try:
            while True:
                came = self._came
                if self.failing is not None:
                    raise self.failing
                first = self.events[0][0] if self.events else self.told + 1
                lost = max(0, first - at - 1)
                for position, signal in [item for item in self.events if item[0] > at]:
                    at = position
                    if _chosen(signal, query):
                        yield SignalEvent(f"memory:{position}", signal, lost)
                        lost = 0
                if came is self._came:
                    await came.wait()
        finally:
            self.following -= 1

    def fail(self, error: Exception | None) -> None:
        """Everything fails from now on; None: no more."""
        self.failing = error
        self._came.set()
        self._came = asyncio.Event()

    def latency(self, window_s: int, trader: str = "") -> Latency:
        return self.summary.model_copy(update={"window_s": window_s, "trader": trader})

    def per_minute(self) -> float:
        return self.rate

    def recent_counts(self, trader: str, buckets: int, bucket_s: int) -> list[int]:
        counts = self.counts.get(trader, [])[-buckets:]
        return [0] * (buckets - len(counts)) + counts


def _number(position: str) -> int:
    kind, _, number = position.partition(":")
    if kind != "memory" or not number.isdigit():
        raise InputError(f"{position} is no position of these signals")
    return int(number)


def _chosen(signal: Signal, query: SignalQuery) -> bool:
    wanted = ((query.trader, signal.trader), (query.symbol, signal.symbol), (query.action, signal.action), (query.feed, signal.feed), (query.state, signal.state))  # fmt: skip
    if any(want and want != have for want, have in wanted):
        return False
    if query.since_ms is not None and signal.emitted_ms < query.since_ms:
        return False
    return query.until_ms is None or signal.emitted_ms <= query.until_ms


class InMemoryMarket:
    """Candles by (feed, symbol, interval), oldest first."""

    def __init__(self) -> None:
        self.series: dict[tuple[str, str, str], list[Candle]] = {}
        self.newest: dict[str, int] = {}
        self.failing: Exception | None = None
        self._followers: dict[tuple[str, str, str], set[asyncio.Queue[CandleEvent]]] = {}

    async def candles(self, feed: str, symbol: str, interval: str, limit: int, before_ms: int | None) -> Candles:
        if self.failing is not None:
            raise self.failing
        have = self.series.get((feed, symbol, interval), [])
        chosen = [one for one in have if before_ms is None or one.open_time_ms < before_ms]
        return Candles(feed=feed, symbol=symbol, interval=interval, candles=chosen[-limit:])

    async def follow(self, feed: str, symbol: str, interval: str) -> AsyncIterator[CandleEvent]:
        key = (feed, symbol, interval)
        came: asyncio.Queue[CandleEvent] = asyncio.Queue()
        self._followers.setdefault(key, set()).add(came)
        try:
            while True:
                if self.failing is not None:
                    raise self.failing
                yield await came.get()
        finally:
            self._followers[key].discard(came)

    @property
    def following(self) -> int:
        """Followers of all series."""
        return sum(map(len, self._followers.values()))

    def tell(self, feed: str, symbol: str, interval: str, candle: Candle, *, reset: bool = False) -> None:
        """A candle came, changed or closed."""
        key = (feed, symbol, interval)
        have = self.series.setdefault(key, [])
        if reset:
            have.clear()
        if have and have[-1].open_time_ms == candle.open_time_ms:
            have[-1] = candle
        else:
            have.append(candle)
        for follower in self._followers.get(key, ()):
            follower.put_nowait(CandleEvent(feed, symbol, interval, candle, reset))

    def newest_age_ms(self, feed: str) -> int | None:
        newest_ms = self.newest.get(feed)
        return None if newest_ms is None else max(0, time.time_ns() // 1_000_000 - newest_ms)


def quantiles(p50_us: float, p99_us: float, count: int) -> Quantiles:
    """Short for tests."""
    return Quantiles(p50_us=p50_us, p99_us=p99_us, count=count)
