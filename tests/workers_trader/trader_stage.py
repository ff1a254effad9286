"""A trader's surroundings without processes: a real segment and ring, a virtual clock, strategies that tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from chandlery.core.assignment import SeriesRef, TraderAssignment, TraderState
from chandlery.core.signals import Decided, Signal, decode_ring
from chandlery.workers.candles import Candles
from chandlery.workers.segment import SegmentWriter, SignalRing
from chandlery.workers.strategy import Context, Strategy, parameter
from chandlery.workers.trader.loop import TraderLoop
from chandlery.workers.trader.market import MarketView, SegmentMarket
from chandlery.workers.trader.messages import Live, StateReport
from chandlery.workers.trader.signal_writer import SignalWriter

BTC = "BTC/USDT"
ETH = "ETH/USDT"
STEP_MS = 1_000
TRADER = "desk/alpha"
STAMPS = (5, 10, 15, 20, 25, 30, 35, 0)


class VirtualClock:
    """Monotonic nanoseconds that move by a µs a look, and by hand."""

    def __init__(self) -> None:
        self.time_ns = 1_000_000_000

    def now_ns(self) -> int:
        self.time_ns += 1_000
        return self.time_ns

    def wall_offset_ns(self) -> int:
        return 7

    def advance(self, seconds: float) -> None:
        self.time_ns += int(seconds * 1e9)


class Tell(Strategy):
    """Signals on every candle, and keeps a running sum of closes as state."""

    rows: int = parameter(1, ge=1, le=5_000)
    #: Called within each call, by test: stands for what happens meanwhile elsewhere.
    meanwhile: ClassVar[Callable[[Context, Candles], None] | None] = None

    def start(self) -> None:
        self.total = 0.0

    @property
    def warmup(self) -> int:
        return self.rows

    def on_candle(self, ctx: Context, candles: Candles) -> None:
        self.total += candles.last.close
        meanwhile = type(self).meanwhile
        if meanwhile is not None:
            meanwhile(ctx, candles)
        ctx.buy(f"total {self.total:g}", rule="tell")


class Stage:
    """One worker's folders, its feed's side (writer), and traders on demand."""

    def __init__(self, folder: Path, *, rows: int = 256, slots: int = 256) -> None:
        self.folder = folder
        self.path = str(folder / "segment")
        self.ring_path = str(folder / "desk__alpha.ring")
        self.rows = rows
        self.writer = SegmentWriter.create(self.path, rows=rows, series=8)
        self.clock = VirtualClock()
        self.slots = slots
        self.reports: list[StateReport] = []
        self.drained = 0
        #: Closes that traders told of, in the order of the ring.
        self.decided: list[Decided] = []

    # the feed's side

    def series(self, symbol: str = BTC, interval: str = "1s", *, session: int = 1) -> int:
        index = self.writer.add_series(symbol, interval)
        self.writer.reset(index, session)
        return index

    def close(
        self, index: int, *ordinals: int, step_ms: int = STEP_MS, backfill: bool = False, live: bool = True
    ) -> None:
        """Append closed candles whose every price is their ordinal (+ 1). ``live``: not read in catch-up."""
        for at in ordinals:
            price = float(at + 1)
            self.writer.append(index, at * step_ms, price, price, price, price, 1.0, 1, STAMPS, backfill, live)

    def revise(self, index: int, at: int, price: float, step_ms: int = STEP_MS) -> None:
        assert self.writer.revise(index, at * step_ms, price, price, price, price, 1.0, 1)

    def form(self, index: int, at: int, price: float, step_ms: int = STEP_MS) -> None:
        self.writer.set_forming(index, at * step_ms, price, price, price, price, 1.0, 1, STAMPS)

    def signals(self) -> list[Signal]:
        """Everything in the ring that has not been taken yet; taken and acknowledged."""
        with SignalRing.attach(self.ring_path) as ring:
            items = ring.pending(limit=10_000)
            assert not [item.error for item in items if item.payload is None]
            if items:
                ring.acknowledge(items[-1].position + 1)
            records = [decode_ring(item.payload) for item in items if item.payload is not None]
        self.decided += [record for record in records if isinstance(record, Decided)]
        return [record for record in records if isinstance(record, Signal)]

    # the trader's side

    def spec(self, **changes: Any) -> TraderAssignment:
        fields: dict[str, Any] = {
            "trader": TRADER,
            "uid": "u-1",
            "strategy": "tell",
            "symbols": [BTC],
            "interval": "1s",
        }
        return TraderAssignment(**{**fields, **changes})

    def trader(
        self,
        spec: TraderAssignment | None = None,
        make: Callable[[], Strategy] = Tell,
        market: MarketView | None = None,
    ) -> Player:
        ring = SignalRing.create(self.ring_path, trader=TRADER, slots=self.slots)
        return Player(self, spec or self.spec(), make, market or SegmentMarket(self.path, 0), ring)


class Player:
    """A trader's loop with its ring, turned by hand."""

    def __init__(
        self, stage: Stage, spec: TraderAssignment, make: Callable[[], Strategy], market: MarketView, ring: SignalRing
    ) -> None:
        self.stage = stage
        self.ring = ring
        self.market = market
        self.reports: list[StateReport] = []
        writer = SignalWriter(ring, str(stage.folder / "bell.sock"), stage.clock)
        self.loop = TraderLoop(spec, make, "c0de", market, ring, writer, stage.clock, self._take)

    def _take(self, report: StateReport) -> bool:
        self.reports.append(report)
        return True

    def turn(self, times: int = 1) -> float:
        """Turn the loop; returns the wait it asks for after the last turn."""
        wait = 0.0
        for _ in range(times):
            wait = self.loop.turn(self.stage.clock.now_ns())
        return wait

    def settle(self, most: int = 200) -> float:
        """Turn until the loop asks to wait for half a second: nothing is due any more."""
        for _ in range(most):
            wait = self.turn()
            if wait >= 0.5:
                return wait
        raise AssertionError(f"still busy after {most} turns; state {self.state()}, counters {self.counters()}")

    def state(self) -> TraderState:
        return self.reports[-1].state

    def counters(self) -> Mapping[str, int]:
        return self.ring.info()["counters"]


def opens(signals: list[Signal]) -> list[int]:
    """Ordinals of the candles that signals were made on."""
    return [signal.open_time_ms // STEP_MS for signal in signals]


def informative(symbol: str, interval: str) -> list[SeriesRef]:
    return [SeriesRef(symbol, interval)]


def told(stage: Stage, **changes: Any) -> Live:
    """Orders as the supervisor gives them."""
    return Live(1, changes.pop("mode", "active"), stage.path, 0, **changes)


def retired(player: Player) -> bool:
    player.turn()
    return player.state() == "Retired"
