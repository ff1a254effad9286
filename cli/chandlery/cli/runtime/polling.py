"""Watching the status of a process over its socket."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import msgspec

from chandlery.cli.endpoint import Endpoint
from chandlery.cli.runtime.children import Child
from chandlery.core.assignment import WorkerStatus, decode_status
from chandlery.core.errors import ChandleryError, InputError, InvariantError, MachineError, UnavailableError

log = logging.getLogger("chandlery.up")

_POLL_S: Final = 0.5
_RETRY_S: Final = 0.2
_LONG_POLL_MS: Final = 5_000
#: A status is asked for twice a second and answered within milliseconds, or given up after 2 s: one that is older than two
#: answers in vain is of before.
OLD_S: Final = 5.0
#: A worker's answer may take 5 s, and is given up after 8: of one that is older an answer was asked for in vain.
OLD_WORKER_S: Final = 10.0
StatusT = TypeVar("StatusT")


class StatusWatch:
    """Keeps the newest JSON status of a process that has no long-poll. ``told_s``: when it came (monotonic); 0: never.

    Args:
        on_told: called with each status that came.
    """

    def __init__(self, endpoint: Endpoint, on_told: Callable[[], None] | None = None) -> None:
        self.status: dict[str, Any] = {}
        self.told_s = 0.0
        self._endpoint = endpoint
        self._on_told = on_told

    async def run(self) -> None:
        """Ask twice a second, until cancelled."""
        while True:
            with contextlib.suppress(UnavailableError):
                await self.refresh()
            await asyncio.sleep(_POLL_S)

    async def refresh(self) -> dict[str, Any]:
        """Ask now.

        Raises:
            UnavailableError: no answer.
        """
        body = await self._endpoint.get("/v1/status")
        try:
            self.status = msgspec.json.decode(body, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise UnavailableError(f"{self._endpoint.socket.name}: no status: {error}") from error
        self.told_s = time.monotonic()
        if self._on_told is not None:
            self._on_told()
        return self.status


class WorkerWatch:
    """Keeps a worker's newest status by long-poll. ``told_ms``: when it last answered (wall clock); 0: never. ``told_s``:
    the same, monotonic."""

    def __init__(self, endpoint: Endpoint, on_change: Callable[[], None]) -> None:
        self.status: WorkerStatus | None = None
        self.told_ms = 0
        self.told_s = 0.0
        self._endpoint = endpoint
        self._on_change = on_change

    async def run(self) -> None:
        """Follow every change, until cancelled."""
        while True:
            try:
                await self.refresh(wait_ms=_LONG_POLL_MS)
            except UnavailableError:
                await asyncio.sleep(_RETRY_S)

    async def refresh(self, *, wait_ms: int = 0) -> WorkerStatus:
        """Ask now, or as soon as there is something newer.

        Raises:
            UnavailableError: no answer.
        """
        after = self.status.version if self.status and wait_ms else 0
        # The worker answers when wait_ms has passed at the latest; 3 s more for a busy machine.
        body = await self._endpoint.get(f"/v1/status?after={after}&wait_ms={wait_ms}", timeout_s=wait_ms / 1000 + 3)
        try:
            status = decode_status(body)
        except msgspec.DecodeError as error:
            raise UnavailableError(f"{self._endpoint.socket.name}: no worker status: {error}") from error
        changed = self.status is None or self.status.version != status.version
        self.status, self.told_ms, self.told_s = status, time.time_ns() // 1_000_000, time.monotonic()
        if changed:
            self._on_change()
        return status


async def until_answers(child: Child, ask: Callable[[], Awaitable[StatusT]], timeout_s: float) -> StatusT:
    """Wait until a process that was just started answers.

    Raises:
        ChandleryError: it ended instead (of the class that its exit code says, with its last words).
        UnavailableError: it lives, but doesn't answer in time.
    """
    deadline = asyncio.get_running_loop().time() + timeout_s
    while True:
        try:
            return await ask()
        except UnavailableError as error:
            if child.last_exit is not None:
                raise failed_start(child) from error
            if asyncio.get_running_loop().time() > deadline:
                raise UnavailableError(
                    f"{child.name} does not answer {timeout_s:.0f} s after its start; see {child.log_path}"
                ) from error
        await asyncio.sleep(0.03)


def failed_start(child: Child) -> ChandleryError:
    """What to raise when a process ended at its start."""
    kinds: dict[int, type[ChandleryError]] = {
        kind.exit_code: kind for kind in (InputError, MachineError, UnavailableError, InvariantError)
    }
    kind = kinds.get(child.last_exit or 0, InvariantError)
    return kind(f"{child.name} ended at its start (exit code {child.last_exit}): {last_words(child)}")


def last_words(child: Child) -> str:
    """What a process that ended said last, and where the rest of it is."""
    words = " | ".join(plain_words(line) for line in child.last_lines(2)) or "it said nothing"
    return f"{words}; see {child.log_path}"


def plain_words(line: str) -> str:
    """The message of a JSON log line; any other line as it is."""
    try:
        entry = msgspec.json.decode(line.encode(), type=dict[str, Any])
    except msgspec.DecodeError:
        return line.strip()
    return str(entry.get("message", line)).strip()
