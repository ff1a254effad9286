"""Assignments to workers: whole state with a sequence, to disk first, then pushed until taken.

A push that is lost, doubled or late changes nothing: the worker refuses lower sequences, and the file outlives
both sides (a feed that restarts alone reads it). Only the newest wanted state is ever pushed; what was wanted
in between is skipped.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, Protocol

import msgspec

from chandlery.cli.endpoint import Reply
from chandlery.cli.runtime.statedir import write_atomically
from chandlery.core.assignment import Assignment, TraderAssignment, content_hash, decode_assignment, encode
from chandlery.core.errors import UnavailableError

log = logging.getLogger("chandlery.up")

FIRST_BACKOFF_S: Final = 0.05
LAST_BACKOFF_S: Final = 2.0
Outcome = Literal["done", "again", "later"]


class Caller(Protocol):
    """What a delivery needs of an endpoint."""

    async def call(
        self, method: str, path: str, body: bytes | None = None, *, timeout_s: float | None = None
    ) -> Reply: ...


class _Taken(msgspec.Struct):
    """The part of an answer that matters: the sequence the worker has."""

    sequence: int = 0
    received_sequence: int = 0


class Delivery:
    """Keeps one worker's assignment delivered.

    Args:
        worker: its name. path: file that holds its last assignment. endpoint: its feed's API.
        chance: source of jitter, 0 … 1.
    """

    def __init__(
        self, worker: str, path: Path, endpoint: Caller, *, chance: Callable[[], float] = random.random
    ) -> None:
        self.worker = worker
        self.attempts = 0
        self.delivered_sequence = 0
        self.problem = ""
        self._path = path
        self._endpoint = endpoint
        self._chance = chance
        self._changed = asyncio.Event()
        self.assignment = self._read()

    def want(self, assignment: Assignment) -> bool:
        """Ask for this state. The file is written before this returns; the push follows.

        Args:
            assignment: its sequence is raised where it isn't above the last one's.

        Returns:
            Whether it differs from what was wanted before.
        """
        if self._path.exists() and assignment.hash == self.assignment.hash:
            if self.delivered_sequence != self.assignment.sequence:
                self.nudge()
            return False
        above = max(assignment.sequence, self.assignment.sequence + 1)
        self._write(above, assignment.hash, assignment.traders)
        return True

    def nudge(self) -> None:
        """Push again (the worker restarted, or says that it has an older one)."""
        self._changed.set()

    async def run(self) -> None:
        """Push whenever something is wanted; until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._push()

    async def _push(self) -> None:
        attempt = 0
        while self.delivered_sequence != self.assignment.sequence or attempt == 0:
            attempt += 1
            self.attempts += 1
            pushed = self.assignment
            try:
                # 2 s: the feed answers within a loop turn of its own; ten times the 0.2 s of its worst stall.
                reply = await self._endpoint.call("PUT", "/v1/assignment", encode(pushed), timeout_s=2.0)
            except UnavailableError as error:
                self.problem = str(error)
                await self._pause(attempt)
                continue
            outcome = self._settle(pushed, reply, attempt)
            if outcome == "done":
                return
            if outcome == "later":
                await self._pause(attempt)

    def _settle(self, pushed: Assignment, reply: Reply, attempt: int) -> Outcome:
        """What an answer means for the push."""
        facts = {"worker": self.worker, "sequence": pushed.sequence, "attempt": attempt}
        if reply.status == 200:
            self.delivered_sequence, self.problem = pushed.sequence, ""
            log.info("assignment delivered", extra=facts)
            return "done" if pushed is self.assignment else "again"
        if reply.status == 409:
            # The worker knows a higher sequence than our file: the file was lost or restored. Go above it.
            taken = msgspec.json.decode(reply.body, type=_Taken)
            above = max(taken.sequence, taken.received_sequence, self.assignment.sequence) + 1
            log.warning("assignment refused as old; going above", extra={**facts, "above": above})
            self._write(above, self.assignment.hash, self.assignment.traders)
            return "again"
        self.problem = f"refused with {reply.status}: {reply.body[:200].decode(errors='replace')}"
        log.error("assignment refused", extra={**facts, "problem": self.problem})
        # 400 says that this very state can't be read: pushing it again would give the same.
        return "done" if reply.status == 400 else "later"

    async def _pause(self, attempt: int) -> None:
        """Wait before the next attempt; a newer wanted state ends the wait (it replaces this one)."""
        full = min(FIRST_BACKOFF_S * 2.0 ** min(attempt - 1, 10), LAST_BACKOFF_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(full * (0.5 + self._chance() / 2)):
                await self._changed.wait()
        self._changed.clear()

    def _write(self, sequence: int, wanted: str, traders: list[TraderAssignment]) -> None:
        self.assignment = Assignment(self.worker, sequence, wanted, traders)
        write_atomically(self._path, encode(self.assignment))
        self._changed.set()

    def _read(self) -> Assignment:
        """The last one from disk; an unreadable one counts as none (the worker's 409 then tells the sequence)."""
        try:
            return decode_assignment(self._path.read_bytes())
        except FileNotFoundError:
            pass
        except (OSError, msgspec.DecodeError) as error:
            log.warning("assignment file unreadable, starting anew", extra={"path": str(self._path), "why": str(error)})
            self._path.unlink(missing_ok=True)
        return Assignment(self.worker, 0, content_hash([]), [])
