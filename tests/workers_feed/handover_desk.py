"""Whole workers for the handover's tests: each a feed process and a supervisor process, on one real broker."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from tests.workers_feed.feed_setup import (
    MINUTE,
    CandleWriter,
    api,
    assignment,
    candle,
    feed_settings,
    get,
    published,
    put,
    until,
)

from chandlery.core.assignment import TraderAssignment, TraderStatus, WorkerStatus
from chandlery.core.processes import PARENT_VARIABLE
from chandlery.core.settings import KafkaSettings, SupervisorSettings
from chandlery.core.signals import Signal

BTC, ETH = "BTC/USDT", "ETH/USDT"
TRADER = "desk/a"
_STRATEGY = '''
"""Signals on every candle."""
from chandlery.workers.strategy import Strategy, parameter


class Tells(Strategy):
    """Buys on every candle, and tells its size."""
    size: int = parameter(1, ge=1, le=9)

    def on_candle(self, ctx, candles):
        ctx.buy(f"size {self.size}", rule="forming" if ctx.is_forming else "closed")
'''


def spec(incarnation: int, **changes: Any) -> TraderAssignment:
    """An incarnation of ``desk/a``: its size is its number."""
    base = TraderAssignment(
        trader=TRADER,
        uid="uid-a",
        strategy="tells",
        symbols=[BTC],
        interval="1m",
        incarnation=incarnation,
        generation=incarnation,
        parameters={"size": incarnation},
    )
    return msgspec.structs.replace(base, **changes)


class House:
    """One worker."""

    def __init__(self, name: str, kafka: KafkaSettings, **changes: Any) -> None:
        # Not pytest's tmp_path: a Unix socket's path may have 107 bytes only.
        self.folder = Path(tempfile.mkdtemp(prefix="chandlery-"))
        self.name = name
        self.settings = feed_settings(self.folder, kafka, worker=name, **changes)
        strategies = self.folder / "strategies"
        strategies.mkdir()
        (strategies / "tells.py").write_text(_STRATEGY)
        supervisor = SupervisorSettings(
            worker=name,
            shm_dir=self.settings.shm_dir,
            rings_dir=self.settings.rings_dir,
            strategies_dir=str(strategies),
            transport=self.settings.transport,
            transport_for_all=self.settings.transport_for_all,
        )
        (self.folder / "feed.json").write_bytes(msgspec.json.encode(self.settings))
        (self.folder / "supervisor.json").write_bytes(msgspec.json.encode(supervisor))
        self.processes: dict[str, asyncio.subprocess.Process] = {}
        self.sequence = 0

    async def start(self, part: str) -> None:
        """Start ``feed`` or ``supervisor``; the feed answers when this returns."""
        log = (self.folder / "log").open("ab")
        arguments = ["-m", f"chandlery.workers.{part}", "--config", str(self.folder / f"{part}.json")]
        environment = {**os.environ, PARENT_VARIABLE: str(os.getpid())}
        self.processes[part] = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, env=environment, stderr=log
        )
        log.close()
        if part == "feed":
            await until("the API", self._answers)

    async def kill(self, part: str) -> None:
        """kill -9."""
        process = self.processes[part]
        process.kill()
        await process.wait()
        if part == "feed":
            os.unlink(self.settings.listen.removeprefix("unix:"))

    async def _answers(self) -> bool:
        async with api(self.settings) as client:
            try:
                return bool(await get(client, "/healthz"))
            except aiohttp.ClientConnectionError:
                return False

    async def assign(self, *traders: TraderAssignment) -> int:
        """Push the next assignment; returns its sequence."""
        self.sequence += 1
        async with api(self.settings) as client:
            code, answer = await put(client, assignment(self.sequence, *traders, worker=self.name))
        assert code == 200, answer
        return self.sequence

    async def status(self) -> WorkerStatus:
        async with api(self.settings) as client:
            return msgspec.convert(await get(client, "/v1/status"), WorkerStatus)

    async def applied(self, *traders: TraderAssignment) -> WorkerStatus:
        """Push an assignment and wait until it is acknowledged."""
        sequence = await self.assign(*traders)

        async def acknowledged() -> WorkerStatus | None:
            status = await self.status()
            return status if status.sequence == sequence else None

        found = await until(f"assignment {sequence} acknowledged", acknowledged)
        assert isinstance(found, WorkerStatus)
        return found

    async def incarnation(self, number: int) -> TraderStatus | None:
        """The status of an incarnation, where there is one."""
        status = await self.status()
        for found in (status.traders.get(TRADER), status.successors.get(TRADER)):
            if found is not None and found.incarnation == number:
                return found
        return None

    async def reaches(self, number: int, state: str) -> TraderStatus:
        """Wait until an incarnation is in a state."""

        async def there() -> TraderStatus | None:
            found = await self.incarnation(number)
            return found if found is not None and found.state == state else None

        found = await until(f"incarnation {number} {state}", there)
        assert isinstance(found, TraderStatus)
        return found

    async def clean(self) -> None:
        for part in ("supervisor", "feed"):
            process = self.processes.get(part)
            if process is not None and process.returncode is None:
                process.kill()
                await process.wait()
        shutil.rmtree(self.folder)


@contextlib.asynccontextmanager
async def house(name: str, kafka: KafkaSettings, **changes: Any) -> AsyncIterator[House]:
    """A worker whose processes run; on failure its log is printed."""
    made = House(name, kafka, **changes)
    try:
        await made.start("feed")
        await made.start("supervisor")
        yield made
    except BaseException:
        print((made.folder / "log").read_text())
        raise
    finally:
        await made.clean()


class LiveMarket:
    """Closes a minute every now and then, of one symbol after the other, and shows each forming before."""

    def __init__(self, writer: CandleWriter, first: int, symbols: tuple[str, ...] = (BTC,)) -> None:
        self._writer = writer
        self._symbols = symbols
        self.next = first

    @property
    def next_open_ms(self) -> int:
        """Open time of the minute that closes next."""
        return self.next * MINUTE

    async def show(self, symbol: str = BTC) -> None:
        """Show the minute that closes next, still forming."""
        forming = candle(self.next * MINUTE, "forming", close=str(self.next))
        await self._writer.write(self._writer.topics.candles_live, symbol, forming)

    async def close(self, count: int = 1) -> None:
        """Close minutes by hand."""
        for _ in range(count):
            for symbol in self._symbols:
                await self.show(symbol)
                await self._writer.closed(symbol, self.next, 1)
            self.next += 1

    async def _run(self, every_s: float, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self.close()
            await asyncio.sleep(every_s)

    @contextlib.asynccontextmanager
    async def going(self, every_s: float = 0.03) -> AsyncIterator[None]:
        """Minutes close by themselves meanwhile."""
        stop = asyncio.Event()
        task = asyncio.create_task(self._run(every_s, stop))
        try:
            yield
        finally:
            stop.set()
            await task


async def decisions(kafka: KafkaSettings, symbol: str = BTC) -> dict[int, list[int]]:
    """Who decided each closed candle of a symbol: incarnations by minute, each signal once."""
    out, _ = await published(kafka)
    unique: dict[str, Signal] = {signal.id: signal for signal in out}
    by_minute: dict[int, list[int]] = {}
    for signal in unique.values():
        if signal.symbol == symbol and not signal.forming:
            by_minute.setdefault(signal.open_time_ms // MINUTE, []).append(signal.incarnation)
    return by_minute


async def all_decided(kafka: KafkaSettings, first: int, last: int, symbol: str = BTC) -> dict[int, list[int]]:
    """Wait until minutes ``first`` … ``last`` are all decided; returns all decisions."""

    async def there() -> dict[int, list[int]] | None:
        found = await decisions(kafka, symbol)
        return found if set(range(first, last + 1)) <= found.keys() else None

    try:
        found = await until(f"minutes {first} … {last} decided", there)
    except AssertionError:
        found = await decisions(kafka, symbol)
        missing = sorted(set(range(first, last + 1)) - found.keys())
        raise AssertionError(f"minutes without a decision: {missing}; decided: {found}") from None
    assert isinstance(found, dict)
    return found
