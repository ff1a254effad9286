"""Stand-ins for ingest's surroundings: a sink in memory, an outlet that only notes, a clock that jumps."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from chandlery.core.clocks import Stamps, unpack_stamps, wall_offset_ns
from chandlery.core.errors import UnavailableError
from chandlery.core.settings import IngestSettings, KafkaSettings
from chandlery.core.wire import BackfillRecord, InputRecord, Opening, TradesRecord, decode_input
from chandlery.stream.ingest.app import Ingest
from chandlery.stream.ingest.sink import Batch
from chandlery.stream.ingest.source import Trades

SHARED_DATA = Path(__file__).parents[2].parent / "shared" / "data"
BTC_CAPTURE = SHARED_DATA / "binance-spot-btcusdt-20240808.frames.gz"
ETH_CAPTURE = SHARED_DATA / "binance-spot-ethusdt-20240808.frames.gz"


class MemorySink:
    """Keeps what is sent, decoded. ``gate`` closed: nothing is acknowledged, as when the broker is away."""

    problem: UnavailableError | None = None
    reconnects = 0

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.batches: list[Batch] = []
        self.records: list[InputRecord] = []
        self.stamps: list[Stamps] = []
        self.sends = 0
        self.closed = False

    async def start(self) -> None:
        await self.gate.wait()

    async def watch(self) -> None:
        await asyncio.Event().wait()

    def channel(self, partition: int) -> int:
        return 0

    async def send(self, batches: Sequence[Batch]) -> None:
        self.sends += 1
        await self.gate.wait()
        await asyncio.sleep(0)
        for batch in batches:
            self.batches.append(batch)
            for record in batch.records:
                decoded = decode_input(record.value)
                assert record.key == decoded.symbol.encode()
                self.records.append(decoded)
                self.stamps.append(unpack_stamps(record.stamps, wall_offset_ns()))

    async def close(self) -> None:
        self.closed = True

    def trades(self, symbol: str) -> list[TradesRecord]:
        """Trades records of a symbol in order, heartbeats included."""
        return [one for one in self.records if isinstance(one, TradesRecord) and one.symbol == symbol]

    def ids(self, symbol: str) -> list[int]:
        """Trade ids of a symbol in order."""
        return [trade_id for record in self.trades(symbol) for trade_id in record.id]

    def watermarks(self, symbol: str) -> list[int]:
        """Watermarks of a symbol in order."""
        return [record.watermark_ms for record in self.trades(symbol)]

    def backfills(self, symbol: str) -> list[BackfillRecord]:
        """History of a symbol in order."""
        return [one for one in self.records if isinstance(one, BackfillRecord) and one.symbol == symbol]

    def openings(self) -> list[str]:
        """Symbols opened, in order."""
        return [one.symbol for one in self.records if isinstance(one, Opening)]


class VirtualClock:
    """Time that passes only when somebody sleeps: ``sleep`` moves it on at once and lets others run."""

    def __init__(self, wall_ns: int = 1_700_000_000_000_000_000) -> None:
        self._wall_offset_ns = wall_ns
        self.now_ns = 1_000_000_000
        self.sleeps: list[float] = []
        self.on_sleep: Callable[[], None] = lambda: None

    def monotonic_ns(self) -> int:
        return self.now_ns

    def wall_ns(self) -> int:
        return self._wall_offset_ns + self.now_ns

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now_ns += round(seconds * 1e9)
        self.on_sleep()
        await asyncio.sleep(0)


@dataclass
class NotedOutlet:
    """An outlet that notes what a source pushes, with the clock's time of it."""

    clock: VirtualClock
    batches: list[Trades] = field(default_factory=list)
    pushed_ns: list[int] = field(default_factory=list)
    heartbeats: list[tuple[str, int, bool]] = field(default_factory=list)
    last_ns: dict[str, int] = field(default_factory=dict)
    rooms: int = 0

    def trades(self, batch: Trades) -> None:
        self.batches.append(batch)
        self.pushed_ns.append(self.clock.now_ns)
        self.last_ns[batch.symbol] = self.clock.now_ns

    def heartbeat(self, symbol: str, exchange_ms: int, *, last: bool = False) -> None:
        self.heartbeats.append((symbol, exchange_ms, last))
        self.last_ns[symbol] = self.clock.now_ns

    def silent_ns(self, symbol: str) -> int:
        return self.clock.now_ns - self.last_ns.get(symbol, 0)

    async def room(self) -> None:
        self.rooms += 1

    def ids(self, symbol: str) -> list[int]:
        return [trade_id for batch in self.batches if batch.symbol == symbol for trade_id in batch.id]


_numbers = itertools.count(1)


def ingest_settings(tmp_path: Path, **changes: Any) -> IngestSettings:
    """Settings for a run of its own under ``tmp_path``; ``changes`` override fields."""
    # Socket addresses have 108 bytes at most, and test folders have long names: a free port is simpler.
    values: dict[str, Any] = {
        "kafka": KafkaSettings("127.0.0.1:1", f"feed{next(_numbers)}"),
        "source": "synthetic",
        "symbols": ["BTC/USDT", "ETH/USDT"],
        "intervals": ["1s", "1m"],
        "status_listen": "127.0.0.1:0",
        "session": 7,
    }
    return IngestSettings(**(values | changes))


async def until(
    what: str, condition: Callable[[], object], detail: Callable[[], object], timeout_s: float = 20.0
) -> None:
    """Wait until a condition holds; fails with what was waited for and the state then."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}; now {detail()}"
        await asyncio.sleep(0.005)


class Running:
    """An ingest run in the background, stopped at the end of the block."""

    def __init__(self, settings: IngestSettings, sink: MemorySink | None = None) -> None:
        self.sink = sink or MemorySink()
        self.ingest = Ingest(settings, self.sink)
        self._settings = settings
        self._stop = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Running:
        self.task = asyncio.create_task(self.ingest.run(self._stop))
        return self

    async def until(self, what: str, condition: Callable[[], object], timeout_s: float = 20.0) -> None:
        """Wait until a condition holds, or the run fails."""
        assert self.task is not None
        task = self.task
        await until(what, lambda: condition() or (task.done() and task.result()), self.ingest.status, timeout_s)

    async def adopt(self, symbols: list[str], **changes: Any) -> bool:
        """Tell the run of other settings while it goes on; whether it has taken them in."""
        async with asyncio.timeout(20):
            return await self.ingest.adopt(msgspec.structs.replace(self._settings, symbols=symbols, **changes))

    async def finished(self) -> None:
        """Wait for the end of the market."""
        await self.until("the market ends", lambda: self.ingest.counts.finished)

    async def stop(self) -> None:
        """Stop in order and wait."""
        assert self.task is not None
        self._stop.set()
        await self.task

    async def __aexit__(self, *failure: object) -> None:
        assert self.task is not None
        if failure[0] is None:
            await self.stop()
        else:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
