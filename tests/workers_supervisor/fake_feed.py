"""A feed's side for the supervisor's tests: control socket, segment, rings; and the supervisor as a process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from chandlery.core.assignment import Assignment, TraderAssignment, TraderStatus, content_hash
from chandlery.core.processes import PARENT_VARIABLE
from chandlery.core.settings import SupervisorSettings
from chandlery.core.signals import Signal, decode_ring
from chandlery.workers.control_messages import (
    MAX_LINE_BYTES,
    AssignmentMessage,
    ReplaceRing,
    StatusMessage,
    decode_status,
    line_of,
)
from chandlery.workers.ring_names import ring_file_name
from chandlery.workers.segment import RingItem, SegmentWriter, SignalRing

BTC = "BTC/USDT"
STEP_MS = 1_000


def ring_name(trader: str, incarnation: int = 1) -> str:
    """File name of an incarnation's ring."""
    return ring_file_name(f"{trader}@{incarnation}")


STAMPS = (5, 10, 15, 20, 25, 30, 35, 0)
#: Longest wait for anything: several processes start on a busy machine with two cores.
PATIENCE_S = 60.0

#: One strategy a kind of misbehaviour; each misbehaves on the candle whose close is ``at``, and buys on every other.
STRATEGIES = '''
"""Strategies that misbehave at the candle of one price."""
import os
import signal
import time

from chandlery.workers.strategy import Strategy, parameter


class Buys(Strategy):
    """Buys on every candle."""
    size: int = parameter(1, ge=1, le=9)
    at: float = parameter(13.0, ge=1.0)

    def misbehave(self): pass

    def on_candle(self, ctx, candles):
        if candles.last.close == self.at:
            self.misbehave()
        ctx.buy(f"size {self.size}", rule="always")


class Raises(Buys):
    def misbehave(self): raise ValueError("thirteen on purpose")


class Exits(Buys):
    def misbehave(self): os._exit(7)


class Leaves(Buys):
    def misbehave(self): raise SystemExit(3)


class Hangs(Buys):
    def misbehave(self):
        while True: time.sleep(0.01)


class Stops(Buys):
    """Stops its own process: no call that hangs, only a heart that doesn't beat."""
    def on_candle(self, ctx, candles):
        super().on_candle(ctx, candles)

    def misbehave(self): os.kill(os.getpid(), signal.SIGSTOP)


class Allocates(Buys):
    def misbehave(self):
        hoard = []
        while True:
            hoard.append(bytearray(b"x" * 2_000_000))
            time.sleep(0.005)


class Hoards(Buys):
    def misbehave(self): self.hoard = b"x" * 64_000_000


class Dies(Buys):
    def misbehave(self): os.kill(os.getpid(), signal.SIGSEGV)


class Babbles(Buys):
    """Writes rubbish to every descriptor it can find."""
    def misbehave(self):
        for fd in range(3, 64):
            try: os.write(fd, b"\\xff{not json}\\n" * 4)
            except OSError: pass
'''


#: The supervisor as the first process of a container that may have as much as a file says, and has what its processes have.
_IN_A_CONTAINER = """
import runpy, sys
from pathlib import Path
import psutil
from chandlery.workers.supervisor import ceiling

file = Path(sys.argv.pop(1))

class Container(ceiling.Ceiling):
    def left_bytes(self):
        used = 0
        for each in psutil.Process().children(recursive=True):
            try:
                used += each.memory_info().rss
            except psutil.NoSuchProcess:
                pass
        return int(file.read_text()) - used

def own_ceiling():
    return None if file.read_text() == "max" else Container(1 << 30, file, file, ())

ceiling.own_ceiling = own_ceiling
runpy.run_module("chandlery.workers.supervisor", run_name="__main__", alter_sys=True)
"""


class Worker:
    """Folders, segment and control socket of one worker, and its supervisor."""

    def __init__(self, *, allowed: Path | None = None, **settings: Any) -> None:
        self._allowed = allowed
        # Not pytest's tmp_path: a Unix socket's path may have 107 bytes only.
        self.folder = Path(tempfile.mkdtemp(prefix="chandlery-"))
        self.rings = self.folder / "rings"
        self.rings.mkdir()
        self.strategies = self.folder / "strategies"
        self.strategies.mkdir()
        (self.strategies / "kinds.py").write_text(STRATEGIES)
        self.segment = str(self.folder / "segment")
        self.writer = SegmentWriter.create(self.segment, rows=256, series=8)
        self.index = self.writer.add_series(BTC, "1s")
        self.writer.reset(self.index, 1)
        self.statuses: list[StatusMessage] = []
        self.sequence = 0
        self.process: asyncio.subprocess.Process | None = None
        self._message: AssignmentMessage | None = None
        self._news = asyncio.Condition()
        self._connection: asyncio.StreamWriter | None = None
        self._server: asyncio.Server | None = None
        self._closed_at = 0
        self._settings = {
            "worker": "worker-0",
            "shm_dir": str(self.folder),
            "rings_dir": str(self.rings),
            "strategies_dir": str(self.strategies),
            **settings,
        }

    # -- the control socket

    async def serve(self) -> None:
        path = self.rings / "control.sock"
        path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._accept, str(path), limit=MAX_LINE_BYTES)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connection = writer
        self._send(self._message)
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                async with self._news:
                    self.statuses.append(decode_status(line))
                    self._news.notify_all()
        writer.close()

    def _send(self, message: AssignmentMessage | ReplaceRing | None) -> None:
        if self._connection is not None and message is not None:
            self._connection.write(line_of(message))

    def assign(self, *traders: TraderAssignment, sequence: int | None = None, digest: str | None = None) -> int:
        """Send an assignment with the next sequence; returns the sequence."""
        self.sequence = self.sequence + 1 if sequence is None else sequence
        specs = list(traders)
        assignment = Assignment("worker-0", self.sequence, digest or content_hash(specs), specs)
        bells = {spec.key: at for at, spec in enumerate(specs)}
        self._message = AssignmentMessage(assignment, bells, self.segment)
        self._send(self._message)
        return self.sequence

    def replace_ring(self, trader: str, incarnation: int = 1) -> None:
        self._send(ReplaceRing(f"{trader}@{incarnation}"))

    def hang_up(self) -> None:
        """Close the connection; the supervisor shall come back by itself."""
        assert self._connection is not None
        self._connection.close()
        self._connection = None

    async def until(self, holds: Callable[[StatusMessage], bool]) -> StatusMessage:
        """The first status (from the newest on) for which something holds."""
        seen = max(0, len(self.statuses) - 1)

        async def look() -> StatusMessage:
            nonlocal seen
            async with self._news:
                while True:
                    for status in self.statuses[seen:]:
                        if holds(status):
                            return status
                    seen = len(self.statuses)
                    await self._news.wait()

        try:
            return await asyncio.wait_for(look(), PATIENCE_S)
        except TimeoutError:
            last = self.statuses[-1] if self.statuses else None
            raise AssertionError(f"didn't come within {PATIENCE_S:g} s; last status: {last}") from None

    async def applied(self, sequence: int) -> dict[str, TraderStatus]:
        """Wait until an assignment is acknowledged."""
        return (await self.until(lambda status: status.sequence == sequence)).traders

    async def states(self, **wanted: str) -> dict[str, TraderStatus]:
        """Wait until the named traders (of namespace ``desk``) are in the given states."""
        found = await self.until(
            lambda status: all(
                f"desk/{name}" in status.traders and status.traders[f"desk/{name}"].state == state
                for name, state in wanted.items()
            )
        )
        return found.traders

    # -- the market

    @property
    def next_open_ms(self) -> int:
        """Open time of the candle that closes next."""
        return self._closed_at * STEP_MS

    def close(self, *prices: float) -> None:
        """Append one closed candle a price, and ring everyone."""
        for price in prices:
            open_time_ms = self._closed_at * STEP_MS
            self.writer.append(self.index, open_time_ms, price, price, price, price, 1.0, 1, STAMPS)
            self._closed_at += 1
        for bell in range(24):
            self.writer.ring(bell)

    def revise(self, price: float) -> None:
        """Revise the candle closed last to another price: whatever broke a strategy in it is no longer there."""
        assert self.writer.revise(self.index, (self._closed_at - 1) * STEP_MS, price, price, price, price, 1.0, 1)

    def take(self, trader: str, incarnation: int = 1) -> list[Signal]:
        """Take and acknowledge what is in an incarnation's ring."""
        with SignalRing.attach(str(self.rings / ring_name(trader, incarnation))) as ring:
            items = ring.pending(limit=10_000)
            if items:
                ring.acknowledge(items[-1].position + 1)
            return _signals(items)

    async def signals(self, trader: str, count: int, incarnation: int = 1) -> list[Signal]:
        """Take at least ``count`` signals from a ring."""
        taken: list[Signal] = []

        async def collect() -> None:
            while len(taken) < count:
                taken.extend(self.take(trader, incarnation))
                await asyncio.sleep(0.01)

        try:
            await asyncio.wait_for(collect(), PATIENCE_S)
        except TimeoutError:
            last = self.statuses[-1].traders.get(trader) if self.statuses else None
            raise AssertionError(f"{len(taken)} of {count} signals of {trader}; status: {last}") from None
        return taken

    async def signals_until(self, trader: str, price: str, incarnation: int = 1, *, keep: bool = False) -> list[Signal]:
        """Take signals until the one on a candle of that price is there; ``keep``: only look, and leave them."""
        taken: list[Signal] = []

        async def collect() -> None:
            while price not in [each.price for each in taken]:
                taken.extend(self.look(trader, incarnation) if keep else self.take(trader, incarnation))
                await asyncio.sleep(0.01)

        await asyncio.wait_for(collect(), PATIENCE_S)
        return taken

    @contextlib.asynccontextmanager
    async def taking(self, trader: str, incarnation: int = 1) -> AsyncIterator[list[Signal]]:
        """Take whatever comes into a ring, as a feed does, until the block is left; yields what has been taken."""
        taken: list[Signal] = []

        async def collect() -> None:
            while True:
                taken.extend(self.take(trader, incarnation))
                await asyncio.sleep(0.01)

        collecting = asyncio.create_task(collect())
        try:
            yield taken
        finally:
            collecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await collecting

    def look(self, trader: str, incarnation: int = 1) -> list[Signal]:
        """What is in an incarnation's ring."""
        path = self.rings / ring_name(trader, incarnation)
        with SignalRing.attach(str(path)) as ring:
            return _signals(ring.pending(limit=10_000))

    # -- the supervisor

    async def start(self) -> None:
        """Start the supervisor as a process that ends with this one."""
        config = self.folder / "supervisor.json"
        config.write_bytes(msgspec.json.encode(msgspec.convert(self._settings, SupervisorSettings)))
        arguments = ["-m", "chandlery.workers.supervisor", "--config", str(config)]
        if self._allowed is not None:
            arguments[:2] = ["-c", _IN_A_CONTAINER, str(self._allowed)]
        environment = {**os.environ, PARENT_VARIABLE: str(os.getpid())}
        log = (self.folder / "log").open("ab")
        self.process = await asyncio.create_subprocess_exec(sys.executable, *arguments, env=environment, stderr=log)
        log.close()

    async def stop(self) -> int:
        """SIGTERM the supervisor; returns its exit code."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), PATIENCE_S)

    def log(self) -> str:
        return (self.folder / "log").read_text()

    async def clean(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        if self._server is not None:
            self._server.close()
        if self._connection is not None:
            self._connection.close()
        self.writer.close()
        shutil.rmtree(self.folder)


def trader(name: str, strategy: str = "buys", **changes: Any) -> TraderAssignment:
    """A Trader of namespace ``desk`` on BTC/USDT 1s."""
    fields: dict[str, Any] = {
        "trader": f"desk/{name}",
        "uid": f"uid-{name}",
        "strategy": strategy,
        "symbols": [BTC],
        "interval": "1s",
    }
    return TraderAssignment(**{**fields, **changes})


@contextlib.asynccontextmanager
async def worker(**settings: Any) -> AsyncIterator[Worker]:
    """A worker whose supervisor runs; on failure its log is printed. ``allowed``: file with the bytes that its container
    may have.
    """
    made = Worker(**settings)
    try:
        await made.serve()
        await made.start()
        yield made
    except BaseException:
        print(made.log())
        raise
    finally:
        await made.clean()


def processes_of(ancestor: int) -> set[int]:
    """Pids of all living descendants of a process."""
    children: dict[int, set[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                stat = Path(entry.path, "stat").read_text()
                state, parent = stat.rpartition(")")[2].split()[:2]
                if state != "Z":
                    children.setdefault(int(parent), set()).add(int(entry.name))
    found: set[int] = set()
    waiting = [ancestor]
    while waiting:
        for child in children.get(waiting.pop(), set()) - found:
            found.add(child)
            waiting.append(child)
    return found


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def gone(pids: set[int]) -> None:
    """Wait until none of the processes lives."""

    def living() -> set[int]:
        alive = set()
        for pid in pids:
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                    alive.add(pid)
        return alive

    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while living():
        assert asyncio.get_running_loop().time() < deadline, f"still alive: {living()}"
        await asyncio.sleep(0.02)


def _signals(items: Iterable[RingItem]) -> list[Signal]:
    """Signals among the slots of a ring; what is told of closes isn't one."""
    records = [decode_ring(item.payload) for item in items if item.payload is not None]
    return [record for record in records if isinstance(record, Signal)]
