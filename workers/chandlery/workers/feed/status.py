"""The worker's status: versions that grow with every change, and waiting for a newer one."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from chandlery.core.assignment import Assignment, SeriesRef, TraderStatus, WorkerStatus, trader_of
from chandlery.workers.control_messages import StatusMessage

log = logging.getLogger("chandlery.feed")

#: What of a trader's status is news at once; everything else is a counter or gauge that may ride along.
_NEWS = (
    "state", "reason", "message", "generation", "incarnation", "pid", "attempt", "restarts", "code", "last_error",
    "until_ms",
)  # fmt: skip


def is_news(before: dict[str, TraderStatus], after: dict[str, TraderStatus]) -> bool:
    """Whether traders came, went or changed state (and not just counters)."""
    if before.keys() != after.keys():
        return True
    return any(getattr(before[name], field) != getattr(after[name], field) for name in after for field in _NEWS)


Statuses = dict[str, TraderStatus]


def statuses(assignment: Assignment | None, supervisor: StatusMessage, *, connected: bool) -> tuple[Statuses, Statuses]:
    """The supervisor's word on what is assigned, and ``Pending`` where it has none: traders and successors."""
    traders, successors = dict(supervisor.traders), dict(supervisor.successors)
    first: dict[str, int] = {}
    for one in assignment.traders if assignment else []:
        first[one.trader] = min(one.incarnation, first.get(one.trader, one.incarnation))
    for one in assignment.traders if assignment else []:
        found = traders if one.incarnation == first[one.trader] else successors
        if one.trader not in found:
            found[one.trader] = TraderStatus("Pending", "" if connected else "NoSupervisor")
    return traders, successors


def tell_corrupt(key: str, why: str, traders: Statuses, successors: Statuses) -> None:
    """Note in an incarnation's status that its ring can't be trusted."""
    trader = trader_of(key)
    for found in (traders, successors):
        if trader in found and f"{trader}@{found[trader].incarnation}" == key:
            found[trader] = msgspec.structs.replace(found[trader], reason="RingCorrupt", message=why)


def tell_refused(
    assignment: Assignment | None, refused: Mapping[SeriesRef, str], traders: Statuses, successors: Statuses
) -> None:
    """Note in the status of an incarnation that waits for a series that it can't have it, and why."""
    if not refused or assignment is None:
        return
    for one in assignment.traders:
        missing = next((ref for ref in one.series() if ref in refused), None)
        for found in (traders, successors):
            status = found.get(one.trader)
            if missing is None or status is None or status.incarnation not in (0, one.incarnation):
                continue
            if status.state in ("Pending", "Init"):
                why = f"series {missing.symbol} {missing.interval}: {refused[missing]}"
                found[one.trader] = msgspec.structs.replace(status, reason="SeriesRefused", message=why)


def write_status(path: Path, status: WorkerStatus) -> None:
    """Leave a last status behind; written by rename, so it is whole."""
    temporary = path.with_name(path.name + ".new")
    try:
        temporary.write_bytes(msgspec.json.encode(status))
        os.replace(temporary, path)
    except OSError as error:
        log.error("last status not written", extra={"path": str(path), "reason": str(error)})


class VersionBoard:
    """A version number that others can wait on.

    It begins with the wall clock in ms, so that it also grows over a restart of the feed: who waits for
    something newer than the last version of the feed before is not left waiting.
    """

    def __init__(self) -> None:
        self.version = int(time.time() * 1_000)
        self._news = asyncio.Event()
        self._dirty = False
        self._closed = False

    def bump(self) -> None:
        """Something changed that is told at once."""
        self.version += 1
        self._dirty = False
        self._news.set()
        self._news = asyncio.Event()

    def touch(self) -> None:
        """A counter moved: told with the next :meth:`tick`."""
        self._dirty = True

    def tick(self) -> None:
        """Called once a second: tell what :meth:`touch` noted."""
        if self._dirty:
            self.bump()

    def close(self) -> None:
        """Let everyone who waits go, now and later: the process ends."""
        self._closed = True
        self.bump()

    async def wait_newer(self, than: int, timeout_s: float) -> None:
        """Return when the version is higher than ``than``, or after ``timeout_s``."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while self.version <= than and not self._closed:
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return
            try:
                async with asyncio.timeout(left):
                    await self._news.wait()
            except TimeoutError:
                return
