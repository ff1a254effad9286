"""Assignments to workers: whole state with a sequence, kept first, then pushed until taken.

A push that is lost, doubled or late changes nothing: the worker refuses lower sequences, and what is kept (a file,
a ConfigMap) outlives both sides: a feed that restarts alone reads it. Only the newest wanted state is ever pushed;
what was wanted in between is skipped. The local runtime and the operator share this.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from typing import Final, Literal, NamedTuple, Protocol

import msgspec

from chandlery.core.assignment import Assignment, encode
from chandlery.core.errors import ChandleryError, UnavailableError

log = logging.getLogger("chandlery.delivery")

FIRST_BACKOFF_S: Final = 0.05
LAST_BACKOFF_S: Final = 2.0
Outcome = Literal["done", "again", "later"]


class Reply(NamedTuple):
    """An answer: HTTP status and body."""

    status: int
    body: bytes


class Caller(Protocol):
    """What a delivery needs of an endpoint."""

    async def call(self, method: str, path: str, body: bytes | None = None, *, timeout_s: float | None = None) -> Reply:
        """One request.

        Raises:
            UnavailableError: no answer.
        """
        ...


class _Taken(msgspec.Struct):
    """The part of an answer that matters: the sequence the worker has."""

    sequence: int = 0
    received_sequence: int = 0


class Delivery:
    """Keeps one worker's assignment delivered.

    Args:
        assignment: the newest one kept, by whoever delivered before. endpoint: the worker's API.
        chance: source of jitter, 0 … 1.

    Attributes:
        delivered_sequence: sequence that the worker has taken from here; 0: none yet.
        problem: why the last attempt failed; empty: it didn't.
    """

    def __init__(
        self, assignment: Assignment, endpoint: Caller, *, chance: Callable[[], float] = random.random
    ) -> None:
        self.worker = assignment.worker
        self.assignment = assignment
        self.attempts = 0
        self.delivered_sequence = 0
        self.problem = ""
        self._endpoint = endpoint
        self._chance = chance
        self._changed = asyncio.Event()
        #: Sequence and problem of the failure that the log had last.
        self._logged = (0, "")

    def want(self, assignment: Assignment) -> bool:
        """Ask for this state.

        Args:
            assignment: its sequence is raised where it isn't above the last one's.

        Returns:
            Whether it differs from what was wanted before.
        """
        if self._is_kept() and assignment.hash == self.assignment.hash:
            if self.delivered_sequence != self.assignment.sequence:
                self.nudge()
            return False
        above = max(assignment.sequence, self.assignment.sequence + 1)
        self._replace(msgspec.structs.replace(assignment, worker=self.worker, sequence=above))
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

    # What keeps assignments: subclasses say.

    def _is_kept(self) -> bool:
        """Whether anything is kept at all; without, even what seems unchanged must be kept again."""
        return self.assignment.sequence > 0

    def _replace(self, assignment: Assignment) -> None:
        """Take another assignment as the wanted one."""
        self.assignment = assignment
        self._changed.set()

    async def _keep(self, assignment: Assignment) -> None:
        """Called before an assignment is pushed: returns when it is kept.

        Raises:
            ChandleryError: not now; it is tried again before the next push.
        """

    def _tell(self, problem: str) -> None:
        """Called with why an attempt failed; empty: it didn't."""
        self.problem = problem

    async def _push(self) -> None:
        attempt = 0
        while True:  # also what was delivered before: who asks for it again has a worker that may have lost it
            attempt += 1
            pushed = self.assignment
            try:
                await self._keep(pushed)
                if pushed is not self.assignment:
                    continue  # kept in vain: a newer one goes first
                self.attempts += 1
                # 2 s: the feed answers within a loop turn of its own; ten times the 0.2 s of its worst stall.
                reply = await self._endpoint.call("PUT", "/v1/assignment", encode(pushed), timeout_s=2.0)
            except ChandleryError as error:
                self._log_failure(pushed, attempt, error)
                self._tell(str(error))
                await self._pause(attempt)
                continue
            outcome = self._settle(pushed, reply, attempt)
            if outcome == "done":
                return
            if outcome == "later":
                await self._pause(attempt)

    def _log_failure(self, pushed: Assignment, attempt: int, error: ChandleryError) -> None:
        """A line for the first attempt of a sequence that fails so, and for each that fails otherwise than the one before."""
        failure = (pushed.sequence, str(error))
        if failure == self._logged:
            return
        self._logged = failure
        facts = {"worker": self.worker, "sequence": pushed.sequence, "attempt": attempt, "problem": str(error)}
        if isinstance(error, UnavailableError):
            log.warning("assignment not delivered", extra=facts)
        else:
            log.error("assignment can't be kept", extra=facts)

    def _settle(self, pushed: Assignment, reply: Reply, attempt: int) -> Outcome:
        """What an answer means for the push."""
        facts = {"worker": self.worker, "sequence": pushed.sequence, "attempt": attempt}
        if reply.status == 200:
            self.delivered_sequence = pushed.sequence
            self._logged = (0, "")
            self._tell("")
            log.info("assignment delivered", extra=facts)
            return "done" if pushed is self.assignment else "again"
        if reply.status == 409:
            # The worker knows a higher sequence than what is kept: that was lost or restored. Go above it.
            try:
                taken = msgspec.json.decode(reply.body, type=_Taken)
            except msgspec.DecodeError as error:
                # Not the worker's own words (a proxy, another process on its port): ask again, it may come back.
                self._tell(f"refused with 409, which tells no sequence: {error}")
                log.error("assignment refused", extra={**facts, "problem": self.problem})
                return "later"
            above = max(taken.sequence, taken.received_sequence, self.assignment.sequence) + 1
            log.warning("assignment refused as old; going above", extra={**facts, "above": above})
            self._replace(msgspec.structs.replace(self.assignment, sequence=above))
            return "again"
        self._tell(f"refused with {reply.status}: {reply.body[:200].decode(errors='replace')}")
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
