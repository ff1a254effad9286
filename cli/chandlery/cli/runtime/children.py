"""Child processes: started, watched, restarted with backoff, stopped within a bound."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from chandlery.core.errors import InputError, MachineError
from chandlery.core.processes import child_environment

log = logging.getLogger("chandlery.up")

ChildState = Literal["new", "running", "backoff", "stopping", "ended"]

#: First pause before a restart; doubles up to the last.
FIRST_BACKOFF_S: Final = 0.2
LAST_BACKOFF_S: Final = 10.0
#: A child that ran this long is well: its next restart is prompt again.
WELL_AFTER_S: Final = 30.0
#: Logs longer than this are set aside as NAME.log.1 when the process starts.
_LOG_BYTES: Final = 10 * 1024 * 1024
#: Ends by these codes don't get better by trying at once: wrong input, machine lacks something.
_PERMANENT: Final = frozenset({InputError.exit_code, MachineError.exit_code})


def backoff_s(attempt: int, chance: float) -> float:
    """Pause before restart number ``attempt`` (from 1), s: doubling, capped, with jitter of 50 to 100 %.

    Args:
        attempt: restarts since the child was last well, from 1.
        chance: a random number 0 … 1.
    """
    full: float = min(FIRST_BACKOFF_S * 2.0 ** min(attempt - 1, 10), LAST_BACKOFF_S)
    return full * (0.5 + chance / 2)


def why_ended(code: int) -> str:
    """What an exit code says; negative: a signal."""
    if code >= 0:
        return f"exit code {code}: its log says why"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    if -code == signal.SIGBUS:
        return f"{name}: a file that it had mapped was truncated by somebody; a feed makes its segment anew"
    return name


@dataclass
class Child:
    """One process that shall run until told to stop.

    Attributes:
        name: of the log and in ``chandlery get``. argv: the command.
        log_path: file that takes its output.
        variables: set in its environment beside ours.
        inherits: descriptors of ours that it gets, by the same numbers.
        on_change: called after each start and end.
        restarts: unexpected ends so far. last_exit: code of the last end (negative: a signal).
        started_s: when the newest process was started (monotonic).
    """

    name: str
    argv: list[str]
    log_path: Path
    variables: dict[str, str] = field(default_factory=dict)
    on_change: Callable[[Child], None] | None = None
    inherits: tuple[int, ...] = ()
    state: ChildState = "new"
    restarts: int = 0
    last_exit: int | None = None
    started_s: float = 0.0
    _process: asyncio.subprocess.Process | None = None
    _keeper: asyncio.Task[None] | None = None
    _stop_wanted: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def pid(self) -> int:
        """Pid of the running process, 0 when none runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else 0

    async def start(self) -> None:
        """Start the process, and keep it running from now on."""
        await self._spawn()
        self._keeper = asyncio.create_task(self._keep(), name=f"keep {self.name}")

    async def stop(self, timeout_s: float, *, number: signal.Signals = signal.SIGTERM) -> bool:
        """End it: a signal, and SIGKILL when it hasn't ended after ``timeout_s``.

        Returns:
            Whether it ended in order: exit code 0, and in time.
        """
        self._stop_wanted.set()
        if self.state in ("new", "ended"):
            self.state = "ended"
            return True
        self.state = "stopping"
        in_order = await self._end_process(timeout_s, number)
        if self._keeper is not None:
            await self._keeper
        self._set("ended")
        return in_order

    async def restart(self, timeout_s: float) -> None:
        """End it in order and start it again at once, uncounted (its settings changed)."""
        await self.stop(timeout_s)
        await self.resume()

    async def resume(self) -> None:
        """Start it again after a stop. One that can't be started now is tried again like one that ended by itself.

        Raises:
            MachineError: it can't be started now.
        """
        self._stop_wanted = asyncio.Event()
        self.last_exit = None
        try:
            await self.start()
        except MachineError:
            self._keeper = asyncio.create_task(self._keep(), name=f"keep {self.name}")
            raise

    def kill(self) -> None:
        """SIGKILL, and no restart."""
        self._stop_wanted.set()
        if self.pid:
            self._send(signal.SIGKILL)

    def is_silent(self, told_s: float, old_s: float, start_s: float) -> bool:
        """Whether the process that runs has answered, and no more for ``old_s``, or never yet, and was begun longer than
        ``start_s`` ago. told_s: when it, or one before it, last did (monotonic)."""
        if self.state != "running":
            return False
        now_s = time.monotonic()
        return now_s - told_s > old_s if told_s > self.started_s else now_s - self.started_s > start_s

    def last_lines(self, count: int = 5) -> list[str]:
        """The last lines of its log."""
        try:
            with self.log_path.open("rb") as file:
                file.seek(0, 2)
                file.seek(max(0, file.tell() - 8192))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:
            return []
        return [line for line in lines if line.strip()][-count:]

    async def _spawn(self) -> None:
        # An own session: Ctrl-C on the terminal goes to `chandlery up` alone, which ends the others in order.
        try:
            rotate(self.log_path)
            with self.log_path.open("ab") as output:
                self._process = await asyncio.create_subprocess_exec(
                    *self.argv,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=child_environment(**self.variables),
                    start_new_session=True,
                    pass_fds=self.inherits,
                )
        except OSError as error:  # of its log too: no room, no descriptors
            raise MachineError(
                f"{self.name}: can't start {error.filename or self.argv[0]}: {error.strerror}"
            ) from error
        self.started_s = time.monotonic()
        log.info("process started", extra={"child": self.name, "pid": self._process.pid})
        self._set("running")
        if self._stop_wanted.is_set():
            # Whoever asked meanwhile found nothing to end. It has just begun: there is nothing to save.
            self._send(signal.SIGKILL)

    async def _keep(self) -> None:
        attempt = 0
        while self._process is not None:
            started = time.monotonic()
            self.last_exit = await self._process.wait()
            if self._stop_wanted.is_set():
                return
            attempt = 1 if time.monotonic() - started > WELL_AFTER_S else attempt + 1
            self.restarts += 1
            pause = LAST_BACKOFF_S if self.last_exit in _PERMANENT else backoff_s(attempt, random.random())
            log.warning(
                "process ended unexpectedly",
                extra={
                    "child": self.name,
                    "exit": self.last_exit,
                    "reason": why_ended(self.last_exit),
                    "restart_in_s": round(pause, 2),
                },
            )
            self._set("backoff")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stop_wanted.wait()
                return
            try:
                await self._spawn()
            except MachineError as error:
                # No memory, no pids, no room for its log: the old process object ends the next wait at once.
                log.error("process can't be restarted", extra={"child": self.name, "problem": str(error)})

    async def _end_process(self, timeout_s: float, number: signal.Signals) -> bool:
        process = self._process
        if process is None or process.returncode is not None:
            return False
        self._send(number)
        try:
            async with asyncio.timeout(timeout_s):
                code = await process.wait()
        except TimeoutError:
            log.warning("process killed: it did not end in time", extra={"child": self.name, "after_s": timeout_s})
            self._send(signal.SIGKILL)
            await process.wait()
            return False
        return code == 0

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def _set(self, state: ChildState) -> None:
        self.state = state
        if self.on_change is not None:
            self.on_change(self)


def rotate(path: Path) -> None:
    """Set a long log aside, so that logs of a state folder stay bounded."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        if path.stat().st_size > _LOG_BYTES:
            path.replace(path.with_name(path.name + ".1"))
    except FileNotFoundError:
        return
