"""A real Apache Kafka (KRaft, one node) as a child process: its data outlives restart and kill -9.

In the data folder::

    broker.json         the port that clients know
    broker.lock         held by the broker's own process as long as it lives; names it
    broker.log(.1)      what Kafka says, bounded
    server.properties   written anew at each start
    kafka/              Kafka's data
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import IO, Final, TypeVar

import msgspec

from chandlery.core.errors import InvariantError, MachineError, UnavailableError
from chandlery.core.processes import child_environment
from chandlery.stream.broker_config import LOG_FLAGS, cluster_id_of, format_storage, server_properties
from chandlery.stream.broker_jars import install_jars, kafka_cache
from chandlery.stream.broker_java import ClassArchive, class_path, find_java, java_flags
from chandlery.stream.broker_ports import (
    PortClaim,
    claim_port,
    ephemeral_port,
    holder_of,
    next_free_port,
    port_is_free,
    remember_port,
    remembered_port,
)
from chandlery.stream.broker_ready import is_ready

Progress = Callable[[str, float | None], None]

# Plain start on 2 cores: 5.3 s; after SIGKILL + 3 s until the old registration expires; recovery of the
# logs that were open: seconds. Ten times that for a busy machine.
_START_TIMEOUT_S: Final = 90.0
_POLL_S: Final = 0.05
# A broker whose parent died has had SIGTERM and ends by itself: 0.3 s when idle, 10 s is what stop() grants.
_PREDECESSOR_TIMEOUT_S: Final = 15.0
_BIND_ATTEMPTS: Final = 5
_LOG_BYTES: Final = 4 << 20
_HOUSEKEEPING_S: Final = 5.0
# The first clients' consumer groups and producers load classes too: they shall be in the archive.
_ARCHIVE_DELAY_S: Final = 4.0


# The line of a Java stack trace that says what happened.
_THROWN: Final = re.compile(r"(Caused by: )?[\w.$]+(Exception|Error): ")

RecordT = TypeVar("RecordT", bound=msgspec.Struct)


class _Holder(msgspec.Struct):
    """Content of ``broker.lock``."""

    pid: int
    owner: int
    owner_started: str


class EmbeddedBroker:
    """One Kafka node, owned by the process that started it (and ending with it).

    ``start()`` must be called from a thread that lives as long as the broker shall: the kernel ends it with
    the thread that forked it. After ``kill()`` or a crash, ``start()`` brings it back on the same port.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        cache_dir: Path | None = None,
        heap_mb: int = 256,
        listeners: Mapping[str, int] = MappingProxyType({}),
        settings: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Describe a broker; nothing is touched before :meth:`start`.

        Args:
            data_dir: where everything of this broker lives; made when absent.
            port: on 127.0.0.1; None: the one it had last time, else the next free one from 19092 on.
            cache_dir: Chandlery's cache (jars, class archive); the user's by default.
            heap_mb: most memory of the JVM's heap, MB.
            listeners, settings: further ones, see :func:`server_properties`.
        """
        self._data_dir = data_dir.absolute()
        self._wanted_port = port
        self._cache = kafka_cache(cache_dir)
        self._heap_mb = heap_mb
        self._listeners = listeners
        self._settings = settings
        self._port: int | None = None
        self._claim: PortClaim | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._archive: ClassArchive | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def bootstrap(self) -> str:
        """``127.0.0.1:PORT``, for clients."""
        if self._port is None:
            raise InvariantError("the broker has no address before it was started")
        return f"127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """Process id of the broker's JVM."""
        if self._process is None:
            raise InvariantError("the broker has no process before it was started")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the broker's process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def log_file(self) -> Path:
        """What Kafka says."""
        return self._data_dir / "broker.log"

    async def start(self, progress: Progress | None = None) -> None:
        """Start the broker and wait until it serves its topics; downloads Kafka at the first time.

        Args:
            progress: called in this event loop with a line for a person and the fraction done (None: unknown).

        Raises:
            MachineError: port taken, folder in use or not writable, no Java, or Kafka ended at its start.
            UnavailableError: Kafka can't be downloaded, or isn't ready in time.
        """
        if self.running:
            raise InvariantError("the broker is running already")
        await self._end_tasks()
        if self._archive is not None:
            self._archive.clean()
        say = progress or (lambda line, fraction: None)
        jars = await self._install(say)
        say("finding Java", None)
        java = await asyncio.to_thread(find_java)
        self._archive = ClassArchive(self._cache / "archive", java, jars, self._heap_mb)
        archive_flags = await asyncio.to_thread(self._archive.flags)
        words = [str(java.command), *java_flags(java, self._heap_mb), *LOG_FLAGS]
        tail = ["-cp", class_path(jars), "kafka.Kafka", str(self._data_dir / "server.properties")]
        try:
            await self._start_somewhere(words, archive_flags, tail, say)
        except BaseException:
            self.kill()
            self._release_port()
            self._archive.clean()
            raise
        self._tasks = [asyncio.create_task(self._keep_house())]
        say(f"Kafka is ready at {self.bootstrap}", 1.0)

    async def stop(self, timeout_s: float = 10.0) -> None:
        """End the broker in order (SIGTERM), or with SIGKILL after ``timeout_s``; nothing happens when it has ended."""
        await self._end_tasks()
        if self._process is None:
            return
        try:
            await self._end(timeout_s)
        finally:
            self._release_port()
        if self._archive is not None:
            self._archive.clean()

    async def _end(self, timeout_s: float) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.terminate()
            try:
                async with asyncio.timeout(timeout_s):
                    await self.wait()
            except TimeoutError:
                self._process.kill()
                await self.wait()

    async def wait(self) -> int:
        """Wait for the broker's end, however it comes; its exit code (negative: the signal's number)."""
        if self._process is None:
            raise InvariantError("the broker was never started")
        while (code := self._process.poll()) is None:
            await _process_ended(self._process.pid)
        return code

    def kill(self) -> None:
        """SIGKILL, as a power cut would be to Kafka; the data stay."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()

    async def _install(self, say: Progress) -> list[Path]:
        loop = asyncio.get_running_loop()
        cancelled = threading.Event()

        def from_thread(line: str, fraction: float | None) -> None:
            loop.call_soon_threadsafe(say, line, fraction)

        try:
            return await asyncio.to_thread(install_jars, self._cache, progress=from_thread, cancelled=cancelled)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def _start_somewhere(
        self, words: list[str], archive_flags: list[str], tail: list[str], say: Progress
    ) -> None:
        """Launch until Kafka is ready: again on another port when it lost its own, once more without an archive."""
        deadline = time.monotonic() + _START_TIMEOUT_S
        refused: set[int] = set()
        for _ in range(_BIND_ATTEMPTS):
            await self._launch([*words, *archive_flags, *tail], refused, say)
            if await self._became_ready(deadline):
                return  # and keeps its claim: whoever it is that clients know must find its port again after a crash
            if self._bind_failed():
                refused.add(self._port or 0)
            elif archive_flags and self._archive is not None:
                self._archive.discard()
                archive_flags = []
            else:
                break
        raise MachineError(self._obituary())

    async def _launch(self, words: list[str], refused: set[int], say: Progress) -> None:
        """Start the JVM on a free port; the folder's lock goes over to it."""
        try:
            self._data_dir.mkdir(parents=True, exist_ok=True)
            with (self._data_dir / "broker.lock").open("a+b") as lock:
                await self._take_lock(lock, say)
                self._port = self._choose_port(refused)
                format_storage(self._data_dir / "kafka")
                properties = server_properties(
                    self._data_dir / "kafka",
                    self._port,
                    ephemeral_port(),
                    listeners=self._listeners,
                    settings=self._settings,
                )
                (self._data_dir / "server.properties").write_text(properties, encoding="utf-8")
                remember_port(self._data_dir, self._port)
                self._rotate_log()
                say(f"starting Kafka at {self.bootstrap}", None)
                self._process = self._spawn(words, lock)
                lock.truncate(0)
                lock.write(msgspec.json.encode(_Holder(self._process.pid, os.getpid(), _started(os.getpid()))))
        except OSError as error:
            raise MachineError(f"{self._data_dir}: can't prepare the broker's folder: {error}") from error

    def _spawn(self, words: list[str], lock: IO[bytes]) -> subprocess.Popen[bytes]:
        with self.log_file.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "chandlery.core.processes", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._data_dir,
                env=child_environment(),
                # The lock lives as long as any process has this descriptor: the JVM keeps it until its end.
                pass_fds=(lock.fileno(),),
                # Ctrl-C in the terminal is the parent's to handle: Kafka must outlive those who write to it.
                start_new_session=True,
            )

    async def _take_lock(self, lock: IO[bytes], say: Progress) -> None:
        deadline = time.monotonic() + _PREDECESSOR_TIMEOUT_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = _read(self._data_dir / "broker.lock", _Holder)
                owned = holder is not None and _started(holder.owner) == holder.owner_started != ""
                if owned or time.monotonic() > deadline:
                    raise MachineError(self._in_use(holder, owned=owned)) from None
                say("waiting for the previous broker's end", None)
                await asyncio.sleep(_POLL_S)
            else:
                return

    def _in_use(self, holder: _Holder | None, *, owned: bool) -> str:
        if holder is None:
            return f"{self._data_dir} is in use by another broker; use another state folder"
        who = f"pid {holder.owner}" if owned else f"its broker, pid {holder.pid}, which doesn't end"
        kill = holder.owner if owned else holder.pid
        return f"{self._data_dir} is in use by {who}: end it (kill {kill}) or use another state folder"

    def _choose_port(self, refused: set[int]) -> int:
        """The port to listen on, claimed until :meth:`stop`."""
        last = self._wanted_port or self._port or remembered_port(self._data_dir)
        is_worth_it = last is not None and (last == self._wanted_port or last not in refused)
        if (
            last is not None
            and is_worth_it
            and self._claim is not None
            and self._claim.port == last
            and port_is_free(last)
        ):
            return last
        self._release_port()
        if self._wanted_port is not None:
            # Lost once, it may be free again: whoever had it then is told of where it isn't.
            self._claim = claim_port(self._wanted_port)
            if self._claim is None:
                raise MachineError(self._why_not(self._wanted_port))
            return self._wanted_port
        claim = claim_port(last) if last and last not in refused else None
        claim = claim or next_free_port(but=frozenset(refused))
        if claim is None:
            raise MachineError("no port is free for Kafka; name one")
        self._claim = claim
        return claim.port

    def _why_not(self, port: int) -> str:
        """Why Kafka can't have the port that was asked for."""
        if port_is_free(port):
            return (
                f"port {port} is claimed by another Kafka that is just starting, or starting again: "
                "choose another port for this one, or end that instance"
            )
        return f"port {port} is held by {holder_of(port)}: end that process, or choose another port for Kafka"

    def _release_port(self) -> None:
        if self._claim is not None:
            self._claim.release()
            self._claim = None

    async def _became_ready(self, deadline: float) -> bool:
        """Wait until the broker serves; False when its process ended.

        Raises:
            UnavailableError: neither happened in time; the process is ended then.
        """
        cluster = cluster_id_of(self._data_dir / "kafka")
        while time.monotonic() < deadline:
            if not self.running:
                return False
            if await is_ready(self.bootstrap, cluster):
                return True
            await asyncio.sleep(_POLL_S)
        raise UnavailableError(
            f"Kafka wasn't ready within {_START_TIMEOUT_S:.0f} s; its last words in {self.log_file}: {self._last_words()}"
        )

    def _bind_failed(self) -> bool:
        return "Address already in use" in self._log_tail() or "BindException" in self._log_tail()

    def _obituary(self) -> str:
        code = self._process.poll() if self._process else None
        return f"Kafka ended at its start (exit code {code}); its last words in {self.log_file}: {self._last_words()}"

    def _log_tail(self) -> str:
        try:
            with self.log_file.open("rb") as log:
                log.seek(max(0, self.log_file.stat().st_size - 32_768))
                return log.read().decode(errors="replace")
        except OSError:
            return ""

    def _last_words(self) -> str:
        lines = [line.strip() for line in self._log_tail().splitlines() if line.strip()]
        thrown = [line for line in lines if _THROWN.match(line)]
        errors = [line for line in lines if " ERROR " in line or line.startswith("Error")]
        telling = thrown[:1] or errors[:1] or lines[-1:] or ["(nothing)"]
        return telling[0][:400]

    def _rotate_log(self) -> None:
        if self.log_file.exists() and self.log_file.stat().st_size:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))

    async def _keep_house(self) -> None:
        """Make the class archive once, and keep the log within bounds, as long as the broker runs."""
        archive = asyncio.create_task(self._make_archive())
        try:
            while self.running:
                await asyncio.sleep(_HOUSEKEEPING_S)
                with suppress(OSError):
                    if self.log_file.stat().st_size > _LOG_BYTES:
                        # The JVM appends to this very file: copy and cut, it can't be moved away.
                        shutil.copyfile(self.log_file, self.log_file.with_suffix(".log.1"))
                        os.truncate(self.log_file, 0)
        finally:
            archive.cancel()
            await asyncio.gather(archive, return_exceptions=True)

    async def _make_archive(self) -> None:
        if self._archive is None or self._archive.file.exists():
            return
        await asyncio.sleep(_ARCHIVE_DELAY_S)
        await self._archive.make()

    async def _end_tasks(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _read(file: Path, kind: type[RecordT]) -> RecordT | None:
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError):
        return None


def _started(pid: int) -> str:
    """When a process started, in clock ticks since boot: with the pid, its identity. Empty: no such process."""
    try:
        stat = Path("/proc", str(pid), "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    # The command's name stands in parentheses and may hold anything; field 22 is the 20th after it.
    return stat.rpartition(")")[2].split()[19]


async def _process_ended(pid: int) -> None:
    """Sleep until the child ``pid`` has ended; returns at once when it has."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
