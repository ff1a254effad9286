"""A small world that moves: two feeds, twenty Traders, signals whose stages come a moment later, growing memory.

What happens follows from a seed and from the steps made, times from the wall clock.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from dataclasses import dataclass, field
from typing import Any, Final

from tests.console_api.doubles import InMemoryBackend, InMemoryMarket, InMemorySignals, quantiles

from chandlery.console.api.models import (
    Candle,
    Feed,
    Latency,
    Memory,
    Pool,
    ProcessMemory,
    Quantiles,
    SegmentUse,
    Signal,
    SignalDetail,
    StageQuantiles,
    StageTime,
    Trader,
    TransportLatency,
)
from chandlery.console.backend import TraderManifest
from chandlery.core.intervals import parse_interval
from chandlery.core.latency import clock_host, clock_name
from chandlery.core.signal_life import State

STEP_S: Final = 0.1
BINANCE, REPLAY = "default/binance", "research/replay"
PRICES: Final = {"BTC/USDT": 61_250.0, "ETH/USDT": 2_640.0, "SOL/USDT": 152.0}
INTERVALS: Final = ("1s", "1m", "5m")
#: How long its signals are ones to act on.
TTL_MS: Final = 600_000
HISTORY: Final = 600
STRATEGIES: Final = ("sma-cross", "rsi-reversion", "bollinger-breakout", "donchian-breakout", "macd")
#: Stage, usual µs, what happened.
STAGES: Final = (
    ("appended", 820.0, "ingest packed and sent the trades, the broker appended them"),
    ("aggregated", 640.0, "the aggregator read them and computed the candle"),
    ("emitted", 95.0, "the candle was handed to the producer"),
    ("fed", 1_150.0, "the broker took the candle, the feed read it"),
    ("published", 32.0, "the feed wrote it into shared memory"),
    ("woken", 48.0, "the trader's doorbell rang, it woke"),
    ("decided", 210.0, "the strategy decided"),
    ("signalled", 14.0, "the signal was put into its ring"),
    ("acknowledged", 930.0, "the feed published it, the broker acknowledged"),
)


@dataclass
class World:
    """All of it. :meth:`step` moves it on by a tenth of a second."""

    backend: InMemoryBackend = field(default_factory=InMemoryBackend)
    signals: InMemorySignals = field(default_factory=InMemorySignals)
    market: InMemoryMarket = field(default_factory=InMemoryMarket)
    seed: int = 7

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.steps = 0
        self.prices = dict(PRICES)
        self.started_ms = _now_ms()
        self._waiting: list[tuple[int, Signal, SignalDetail]] = []
        self._emitted: list[tuple[int, str, float, dict[str, float]]] = []
        self._history: list[tuple[int, int]] = []
        self.backend.started_ms = self.started_ms
        self._make_traders()
        self._make_history()
        for _ in range(60):
            self._signal()
        for _, signal, detail in self._waiting:
            self.signals.tell(signal, detail)
        self._waiting.clear()
        self._look()

    async def run(self) -> None:
        """Move on for ever."""
        while True:
            self.step()
            await asyncio.sleep(STEP_S)

    def step(self) -> None:
        """A tenth of a second: prices move; three signals a second; stages of those that came before."""
        self.steps += 1
        now_ms = _now_ms()
        for symbol in self.prices:
            self.prices[symbol] *= 1 + self.random.gauss(0, 0.0001)
            for feed in (BINANCE, REPLAY):
                if feed == REPLAY and symbol == "SOL/USDT":
                    continue
                for interval in INTERVALS:
                    self._trade(feed, symbol, interval, now_ms)
        self.market.newest = {BINANCE: now_ms, REPLAY: now_ms}
        if self.random.random() < 3 * STEP_S:
            self._signal()
        due = [item for item in self._waiting if item[0] <= self.steps]
        self._waiting = [item for item in self._waiting if item[0] > self.steps]
        for _, signal, detail in due:
            self.signals.tell(signal, detail)
        if self.steps % 5 == 0:
            self._look()

    def _make_traders(self) -> None:
        for number in range(20):
            strategy = STRATEGIES[number % len(STRATEGIES)]
            symbols = [list(PRICES)[number % 3]] if number % 7 else ["BTC/USDT", "ETH/USDT"]
            namespace = "research" if number >= 16 else "default"
            pool = "research/pipes" if number >= 16 else "default/standard"
            symbols = [one for one in symbols if namespace == "default" or one != "SOL/USDT"] or ["ETH/USDT"]
            short = symbols[0].partition("/")[0].lower()
            name = f"{namespace}/{short}-{strategy.partition('-')[0]}-{number:02}"
            self.backend.manifests[name] = TraderManifest(
                manifest=manifest_of(name, pool, strategy, symbols), resource_version=str(40 + number)
            )
            self.backend.traders[name] = Trader(
                trader=name,
                state="Active",
                ready=True,
                strategy=strategy,
                symbols=symbols,
                interval="1m",
                pool=pool,
                worker=f"{pool.partition('/')[2]}-{number % 2}",
                generation=1,
                warm_have=50,
                warm_need=50,
                calls=400 + number,
                rss_bytes=(9_400 + 130 * number) * 1024,
            )
        names = list(self.backend.traders)
        self._change(
            names[3],
            state="CrashLoop",
            ready=False,
            reason="CrashLoop",
            message="exited 4 times in 60 s; next start in 20 s",
            restarts=4,
            errors=4,
            last_error="ZeroDivisionError: float division by zero (rsi_reversion.py, line 41)",
        )
        self._change(names[8], state="Suspended", ready=False, suspended=True, reason="Suspended")
        self.backend.manifests[names[5]] = TraderManifest(
            manifest=self.backend.manifests[names[5]].manifest, kept_by="Flux: kustomization default/traders", resource_version="45"
        )  # fmt: skip

    def _change(self, name: str, **changes: Any) -> None:
        self.backend.traders[name] = self.backend.traders[name].model_copy(update=changes)

    def _make_history(self) -> None:
        now_ms = _now_ms()
        for feed in (BINANCE, REPLAY):
            for symbol, price in PRICES.items():
                if feed == REPLAY and symbol == "SOL/USDT":
                    continue
                for interval in INTERVALS:
                    self._series(feed, symbol, interval, price, now_ms)

    def _series(self, feed: str, symbol: str, interval: str, price: float, now_ms: int) -> None:
        step = parse_interval(interval)
        walk = random.Random(f"{self.seed}{feed}{symbol}{interval}")
        open_ms, candles = step.floor_ms(now_ms), []
        spread = 0.0002 * (step.length_ms / 1000) ** 0.5
        for _ in range(HISTORY):
            open_ms -= step.length_ms
            opened = price * (1 + walk.gauss(0, spread))
            high, low = max(opened, price) * (1 + spread / 2), min(opened, price) * (1 - spread / 2)
            candles.append(_candle(open_ms, opened, high, low, price, walk.uniform(1, 30), "closed"))
            price = opened
        self.market.series[feed, symbol, interval] = candles[::-1]

    def _trade(self, feed: str, symbol: str, interval: str, now_ms: int) -> None:
        price = self.prices[symbol]
        open_ms = parse_interval(interval).floor_ms(now_ms)
        have = self.market.series[feed, symbol, interval]
        last = have[-1]
        if last.open_time_ms < open_ms:
            if last.state == "forming":
                self.market.tell(feed, symbol, interval, last.model_copy(update={"state": "closed"}))
            opened = float(last.close)
            made = _candle(open_ms, opened, max(opened, price), min(opened, price), price, 0.1, "forming")
        else:
            made = _candle(
                open_ms,
                float(last.open),
                max(float(last.high), price),
                min(float(last.low), price),
                price,
                float(last.volume) + self.random.uniform(0, 0.3),
                "forming",
            ).model_copy(update={"trades": last.trades + 3})
        self.market.tell(feed, symbol, interval, made)
        if len(have) > 2 * HISTORY:
            del have[:HISTORY]

    def _signal(self) -> None:
        active = [one for one in self.backend.traders.values() if one.ready]
        if not active:
            return
        trader = self.random.choice(active)
        symbol = self.random.choice(trader.symbols)
        now_ms = _now_ms()
        number = len(self._emitted)
        identity = hashlib.blake2b(f"{self.seed}:{number}".encode(), digest_size=16).hexdigest()
        action = self.random.choice(("buy", "sell", "close", "buy", "sell"))
        forming, withdrawn = number % 3 == 0, number % 6 == 0
        slow = 4.0 if trader.pool == "research/pipes" else 1.0
        signal = Signal(
            id=identity,
            trader=trader.trader,
            strategy=trader.strategy,
            rule="cross" if action != "close" else "target",
            action=action,
            symbol=symbol,
            interval=trader.interval or "1m",
            open_time_ms=parse_interval("1m").floor_ms(now_ms) - 60_000,
            emitted_ms=now_ms,
            price=f"{self.prices[symbol]:.2f}",
            strength=round(self.random.uniform(0.2, 1.0), 2),
            reason=f"fast average {'above' if action == 'buy' else 'below'} slow by {self.random.uniform(0.1, 2):.2f}",
            forming=forming,
            state="detected" if forming else "active",
            expires_ms=now_ms + TTL_MS,
            feed=REPLAY if trader.trader.startswith("research/") else BINANCE,
        )
        detail = self._detail(signal, slow, "invalidated" if withdrawn else "active")
        known = signal.model_copy(
            update={
                "stages": detail.stages,
                "frame_to_signal_us": detail.frame_to_signal_us,
                "visible_to_decided_us": detail.visible_to_decided_us,
                "state": detail.state,
                "expires_ms": detail.expires_ms,
            }
        )
        self._emitted.append((now_ms, trader.trader, slow, dict(detail.stages)))
        self.signals.tell(signal)
        self._waiting.append((self.steps + 2, known, detail))
        self._change(trader.trader, signals=trader.signals + 1)

    def _detail(self, signal: Signal, slow: float, state: State) -> SignalDetail:
        durations = [
            (name, round(usual * self.random.lognormvariate(0, 0.3) * (slow if name == "woken" else 1.0), 1), meaning)
            for name, usual, meaning in STAGES
        ]
        whole = sum(duration for _, duration, _ in durations)
        waterfall, at = [], 0.0
        for name, duration, meaning in durations:
            wall = name in ("appended", "aggregated")
            waterfall.append(
                StageTime(
                    name=name,
                    start_us=round(at, 1),
                    duration_us=duration,
                    share=duration / whole,
                    uncertainty_us=420.0 if wall else 0.0,
                    clock="wall" if wall else "monotonic",
                    host=(host := clock_host(name, "")),
                    clock_name=clock_name(host, "wall" if wall else "monotonic"),
                    meaning=meaning,
                )
            )
            at += duration
        stages = {name: duration for name, duration, _ in durations}
        return SignalDetail.model_validate(
            {
                **signal.model_dump(),
                "stages": list(stages.items()),
                "frame_to_signal_us": round(whole, 1),
                "visible_to_decided_us": round(stages["woken"] + stages["decided"], 1),
                "code": hashlib.sha256(signal.strategy.encode()).hexdigest()[:16],
                "incarnation": 1,
                "session": 0,
                "strategy_us": round(stages["decided"] * 0.8, 1),
                "whole_us": round(whole, 1),
                "waterfall": waterfall,
                "skew_us": 41_200.0,
                "transit_us": 310.0,
                "transit_uncertainty_us": 150.0,
                "state": state,
                "expires_ms": None if state == "invalidated" else signal.emitted_ms + TTL_MS,
                "lifecycle": _life(signal, state),
                "trace_id": signal.id,
            }
        )

    def _look(self) -> None:
        """Figures as a backend finds them twice a second."""
        now_ms = _now_ms()
        recent = [one for one in self._emitted if one[0] > now_ms - 300_000]
        self.signals.rate = float(sum(one[0] > now_ms - 60_000 for one in recent))
        self.signals.summary = _latency(recent)
        for name, trader in self.backend.traders.items():
            counts = [0] * 30
            for at_ms, who, _, _ in recent:
                if who == name:
                    counts[29 - min(29, (now_ms - at_ms) // 10_000)] += 1
            self.signals.counts[name] = counts
            if trader.ready:
                grown = 2_048 if name.endswith("-06") else self.random.randrange(-512, 512) * 8
                self._change(
                    name,
                    calls=trader.calls + 1,
                    rss_bytes=max(8_000_000, trader.rss_bytes + grown),
                    latency=_quantiles([sum(one[3].values()) for one in recent if one[1] == name]),
                    age_ms=self.random.randrange(50, 900),
                    last_open_time_ms=parse_interval("1m").floor_ms(now_ms) - 60_000,
                )
        self._pools_and_feeds()
        self._memory(now_ms)

    def _pools_and_feeds(self) -> None:
        used = {pool: sum(one.pool == pool for one in self.backend.traders.values()) for pool in ("default/standard", "research/pipes")}  # fmt: skip
        self.backend.pools = [
            Pool(pool="default/standard", feed=BINANCE, workers=2, ready_workers=2, capacity=20, used=used["default/standard"], transport="SharedMemory"),
            Pool(pool="research/pipes", feed=REPLAY, workers=1, ready_workers=1, capacity=8, used=used["research/pipes"], transport="Pipe"),
        ]  # fmt: skip
        trades = 12_000 + 70 * self.steps
        self.backend.feeds = [
            Feed(feed=BINANCE, alive=True, connected=True, source="binance", symbols=list(PRICES), intervals=list(INTERVALS), frames=trades, trades=trades, trades_per_s=690.0 + self.random.randrange(20), candles_closed=900 + self.steps // 10, lag=self.random.randrange(3), late=2, duplicate=1, missing_ids=14, reconnects=1),
            Feed(feed=REPLAY, alive=True, connected=True, source="replay", symbols=list(PRICES)[:2], intervals=list(INTERVALS), frames=trades // 2, trades=trades // 2, trades_per_s=310.0 + self.random.randrange(20), candles_closed=400 + self.steps // 10),
        ]  # fmt: skip

    def _memory(self, now_ms: int) -> None:
        wave = self.random.randrange(-2, 3) * 500_000
        processes = [
            _process("kafka", "kafka", 412_000_000 + 10 * wave, 0.0),
            _process("ingest binance", "ingest", 68_000_000 + wave, 1.0e5),
            _process("aggregator binance", "aggregator", 91_000_000 + wave),
            _process("feed standard-0", "feed", 74_000_000 + wave),
            _process("supervisor standard-0", "supervisor", 52_000_000),
        ]
        for name, trader in self.backend.traders.items():
            if trader.ready:
                growth = 1.5e7 if name.endswith("-06") else 2.0e4
                processes.append(_process(name, "trader", trader.rss_bytes, growth))
        total = sum(one.pss_bytes or 0 for one in processes)
        self._history = [*self._history, (now_ms, total)][-600:]
        segments = [
            SegmentUse(worker="standard-0", size_bytes=67_108_864, series_used=9, series_capacity=512, rings=8, ring_depth=self.random.randrange(3)),
            SegmentUse(worker="standard-1", size_bytes=67_108_864, series_used=9, series_capacity=512, rings=8),
        ]  # fmt: skip
        self.backend.memory = Memory(processes=processes, segments=segments, total_bytes=total, measure="PSS", total_rss_bytes=sum(one.rss_bytes for one in processes), history=self._history)  # fmt: skip


def _process(name: str, kind: str, rss_bytes: int, growth: float | None = None) -> ProcessMemory:
    """A process that has a third of its memory alone."""
    return ProcessMemory(name=name, kind=kind, rss_bytes=rss_bytes, pss_bytes=rss_bytes // 3, growth_bytes_per_h=growth)


def manifest_of(name: str, pool: str, strategy: str, symbols: list[str]) -> dict[str, Any]:
    """A Trader as a person writes it."""
    namespace, _, bare = name.partition("/")
    return {
        "apiVersion": "chandlery.dev/v1alpha1",
        "kind": "Trader",
        "metadata": {"name": bare, "namespace": namespace},
        "spec": {
            "pool": {"name": pool.partition("/")[2], "namespace": pool.partition("/")[0]},
            "strategy": {"name": strategy, "parameters": {}},
            "market": {"symbols": symbols, "interval": "1m"},
        },
    }


def _life(signal: Signal, state: State) -> list[tuple[str, int]]:
    detected = ("detected", signal.emitted_ms)
    if not signal.forming:
        return [detected, ("active", signal.emitted_ms)]
    close_ms = signal.emitted_ms + 2
    return [detected, *((each, close_ms) for each in (["confirmed", "active"] if state == "active" else [state]))]


def _latency(recent: list[tuple[int, str, float, dict[str, float]]]) -> Latency:
    whole = [sum(stages.values()) for _, _, _, stages in recent]
    decided = [stages["woken"] + stages["decided"] for _, _, _, stages in recent]
    by_transport = [
        TransportLatency(
            transport=transport,
            visible_to_decided=_quantiles(
                [s["woken"] + s["decided"] for _, _, slow, s in recent if (slow > 1) == pipe]
            ),
            frame_to_signal=_quantiles([sum(s.values()) for _, _, slow, s in recent if (slow > 1) == pipe]),
        )
        for transport, pipe in (("SharedMemory", False), ("Pipe", True))
    ]
    return Latency(
        window_s=60,
        frame_to_signal=_quantiles(whole),
        visible_to_decided=_quantiles(decided),
        stages=[
            StageQuantiles(name=name, meaning=meaning, **_quantiles([s[name] for _, _, _, s in recent]).model_dump())
            for name, _, meaning in STAGES
        ],
        transports=by_transport,
    )


def _quantiles(values: list[float]) -> Quantiles:
    if not values:
        return Quantiles()
    ordered = sorted(values)
    return quantiles(round(ordered[len(ordered) // 2], 1), round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))], 1), len(ordered))  # fmt: skip


def _candle(open_ms: int, opened: float, high: float, low: float, close: float, volume: float, state: str) -> Candle:
    return Candle(
        open_time_ms=open_ms,
        open=f"{opened:.2f}",
        high=f"{high:.2f}",
        low=f"{low:.2f}",
        close=f"{close:.2f}",
        volume=f"{volume:.4f}",
        trades=1,
        state=state,
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
