"""Children of a benchmark: a broker of its own, product processes, what they say and what CPU they take."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec

from benchmarks.harness import say
from chandlery.core.processes import child_environment
from chandlery.stream.broker import EmbeddedBroker

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
#: For what takes a second or two on an idle machine.
DEADLINE_S: Final = 120.0
_POLL_S: Final = 0.25
_CPUCLOCK_SCHED: Final = 2


def cpu_s(pid: int) -> float:
    """User and system time of a process so far, s, in steps of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def cpu_ns(pid: int) -> int:
    """CPU of all of a process's threads so far, ns, as exact as the kernel counts it: clock_getcpuclockid(3)."""
    return time.clock_gettime_ns(~pid << 3 | _CPUCLOCK_SCHED)


@asynccontextmanager
async def broker() -> AsyncIterator[EmbeddedBroker]:
    """A Kafka of this benchmark's own in a temporary folder, as ``chandlery up`` starts it."""
    with tempfile.TemporaryDirectory(prefix="chandlery-bench-") as folder:
        embedded = EmbeddedBroker(Path(folder) / "broker")
        say("starting a broker")
        # A new topic's leaders are announced before they serve: aiokafka tells each retry.
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
        try:
            await embedded.start()
            yield embedded
            await embedded.stop()
        finally:
            embedded.kill()


class Child:
    """A product process with its status.

    Attributes:
        pid: its process id.
    """

    def __init__(self, process: subprocess.Popen[bytes], socket: str, log: Path) -> None:
        self._process: Final = process
        self._socket: Final = socket
        self._log: Final = log
        self.pid: Final = process.pid

    def cpu_s(self) -> float:
        """User and system time so far, s."""
        return cpu_s(self.pid)

    async def status(self) -> dict[str, Any]:
        """``GET /v1/status``; empty while it doesn't answer."""
        try:
            async with (
                aiohttp.ClientSession(connector=aiohttp.UnixConnector(self._socket)) as client,
                client.get("http://localhost/v1/status") as answer,
            ):
                status: dict[str, Any] = await answer.json()
                return status
        except aiohttp.ClientError:
            return {}

    async def put(self, path: str, body: bytes) -> int:
        """``PUT`` to its API; the answer's HTTP status, 0 while it doesn't answer."""
        try:
            async with (
                aiohttp.ClientSession(connector=aiohttp.UnixConnector(self._socket)) as client,
                client.put(f"http://localhost{path}", data=body) as answer,
            ):
                return answer.status
        except aiohttp.ClientError:
            return 0

    async def until(
        self, holds: Callable[[dict[str, Any]], bool], what: str, poll_s: float = _POLL_S
    ) -> dict[str, Any]:
        """Poll the status until ``holds``.

        Raises:
            ChildProcessError: it ended. TimeoutError: not within DEADLINE_S.
        """
        deadline = time.monotonic() + DEADLINE_S
        while True:
            status = await self.status()
            if status and holds(status):
                return status
            if self._process.poll() is not None:
                raise ChildProcessError(f"it ended with {self._process.returncode}: {self._last_words()}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {DEADLINE_S:g} s: {what}; {self._last_words()}")
            await asyncio.sleep(poll_s)

    def _last_words(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")[-2_000:]


@contextmanager
def child(module: str, settings: msgspec.Struct, socket: str, folder: Path) -> Iterator[Child]:
    """Run ``python -m MODULE --config F`` until the end of the block, then SIGTERM."""
    config = folder / f"{module}.json"
    config.write_bytes(msgspec.json.encode(settings))
    log = folder / f"{module}.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", module, "--config", str(config)],
            stdout=stream,
            stderr=stream,
            env=child_environment(),
        )
    try:
        yield Child(process, socket, log)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
