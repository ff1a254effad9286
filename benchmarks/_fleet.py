"""Real traders without a feed: the benchmark writes the segment, the supervisor's fork server starts the processes."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from chandlery.core.assignment import TraderAssignment
from chandlery.core.clocks import now_ns
from chandlery.core.signals import Signal, decode_signal
from chandlery.workers.segment import SegmentWriter, SignalRing
from chandlery.workers.supervisor.nursery_client import NurseryClient, TraderProcess
from chandlery.workers.trader.messages import STATE_CODES, Launch, encode

#: The window that each call sees, candles.
WINDOW: Final = 500
#: A fork server loads numpy and TA-Lib in 0.5 s, twenty traders attach in another: a busy machine gets 60 times that.
READY_S: Final = 60.0
_STEP_MS: Final = 1_000
_EPOCH_MS: Final = 1_700_000_000_000
#: Stands for the feed at the announcements' socket: takes them off as they come.
_LISTENER: Final = """
import os, socket, sys
bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
bell.bind(sys.argv[1])
print("up", flush=True)
while True:
    bell.recv(64)
"""


def memory_folder() -> str:
    """Where segments belong: the memory file system where there is one."""
    shared = Path("/dev/shm")
    return str(shared) if shared.is_dir() else tempfile.gettempdir()


class Market:
    """The feed's side: series in a segment, candles appended by hand."""

    def __init__(self, folder: str, symbols: Sequence[str], *, rows: int = 1_000) -> None:
        self.path: Final = f"{folder}/segment"
        self.writer: Final = SegmentWriter.create(self.path, rows=rows, series=max(32, len(symbols)))
        self._index = {symbol: self.writer.add_series(symbol, "1s") for symbol in symbols}
        for index in self._index.values():
            self.writer.reset(index, 1)
        self._next = dict.fromkeys(symbols, 0)

    def fill(self, symbol: str, closes: Sequence[float]) -> None:
        """Append history: no trader is called for it."""
        for close in closes:
            self._append(symbol, close, 0, backfill=True)

    def publish(self, symbol: str, close: float, bells: Sequence[int]) -> tuple[int, int]:
        """Append one candle and ring, as the feed does.

        Returns:
            Its open time, ms, and when it became visible, monotonic ns.
        """
        visible_ns = now_ns()
        open_time_ms = self._append(symbol, close, visible_ns)
        self.writer.ring_many(bells)
        return open_time_ms, visible_ns

    def _append(self, symbol: str, close: float, visible_ns: int, backfill: bool = False) -> int:
        at = self._next[symbol]
        self._next[symbol] = at + 1
        open_time_ms = _EPOCH_MS + at * _STEP_MS
        stamps = (0, 0, 0, 0, 0, 0, visible_ns, 0)
        self.writer.append(
            self._index[symbol], open_time_ms, close, close, close, close, 1.0, 1, stamps, backfill=backfill
        )
        return open_time_ms


class Fleet:
    """Trader processes forked by the supervisor's fork server, each with its ring and doorbell.

    A context manager; ``rings`` and ``pids`` are in the order of ``traders``.
    """

    def __init__(self, folder: str, segment: str, traders: Sequence[TraderAssignment], *, slots: int = 1_024) -> None:
        self._folder: Final = folder
        self._segment: Final = segment
        self._traders: Final = list(traders)
        self._slots: Final = slots
        self._loop: Final = asyncio.new_event_loop()
        self._nursery: Final = NurseryClient()
        self._processes: list[TraderProcess] = []
        self._listener: subprocess.Popen[str] | None = None
        self.rings: list[SignalRing] = []

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes]

    def __enter__(self) -> Self:
        bell_socket = f"{self._folder}/bell.sock"
        self._listener = subprocess.Popen(
            [sys.executable, "-c", _LISTENER, bell_socket], stdout=subprocess.PIPE, text=True
        )
        assert self._listener.stdout is not None
        self._listener.stdout.readline()
        try:
            self._loop.run_until_complete(self._start(bell_socket))
            self._await_active()
        except BaseException:
            self.close()
            raise
        return self

    async def _start(self, bell_socket: str) -> None:
        for bell, spec in enumerate(self._traders):
            path = f"{self._folder}/{spec.trader.replace('/', '__')}.ring"
            self.rings.append(SignalRing.create(path, trader=spec.trader, slots=self._slots))
            process = await self._nursery.spawn()
            launch = Launch(spec, "SharedMemory", self._segment, bell, path, bell_socket, log_level="error")
            await self._loop.sock_sendall(process.line, encode(launch) + b"\n")
            self._processes.append(process)

    def _await_active(self) -> None:
        deadline = time.monotonic() + READY_S
        active = STATE_CODES["Active"]
        while not all(ring.get("state") == active for ring in self.rings):
            if time.monotonic() > deadline:
                states = sorted({ring.get("state") for ring in self.rings})
                raise TimeoutError(f"not all traders are Active after {READY_S:g} s: states {states}")
            self._loop.run_until_complete(asyncio.sleep(0.01))
            self._check()

    def _check(self) -> None:
        for spec, process in zip(self._traders, self._processes, strict=True):
            if process.ended.done():
                raise ChildProcessError(f"{spec.trader} ended with {process.ended.result()}: {_words(process.line)}")

    def counters(self, name: str) -> list[int]:
        """One counter of every trader."""
        return [ring.get(name) for ring in self.rings]

    def await_calls(self, calls: Sequence[int]) -> None:
        """Wait until every trader has been called so often."""
        deadline = time.monotonic() + READY_S
        while any(have < want for have, want in zip(self.counters("calls"), calls, strict=True)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"calls {self.counters('calls')} where {list(calls)} are due")
            time.sleep(0.01)

    def signals(self) -> list[list[Signal]]:
        """What each trader has signalled since the last look."""
        taken: list[list[Signal]] = []
        for ring in self.rings:
            items = ring.pending(limit=1 << 16)
            taken.append([decode_signal(item.payload) for item in items if item.payload is not None])
            if items:
                ring.acknowledge(items[-1].position + 1)
        return taken

    def close(self) -> None:
        """End the processes."""
        self._loop.run_until_complete(self._nursery.close())
        for process in self._processes:
            process.line.close()
        for ring in self.rings:
            ring.close()
        if self._listener is not None:
            self._listener.kill()
            self._listener.communicate()
        self._loop.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _words(line: socket.socket) -> str:
    try:
        return line.recv(65_536).decode(errors="replace").strip()
    except OSError:
        return ""


def crosser(name: str, symbol: str, **parameters: Any) -> TraderAssignment:
    """An ``sma-cross`` trader that sees a window of :data:`WINDOW` candles of ``symbol`` at 1s."""
    return TraderAssignment(
        trader=f"bench/{name}",
        uid=name,
        strategy="sma-cross",
        symbols=[symbol],
        interval="1s",
        parameters=parameters,
        warmup=WINDOW,
    )
