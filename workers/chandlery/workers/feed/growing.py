"""When the segment grows, to which size, and how the event loop goes on meanwhile."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from chandlery.core.errors import SegmentError
from chandlery.workers.segment import SegmentWriter, _native

log = logging.getLogger("chandlery.feed.growing")

#: Left free beside a grown segment, for the other users of the file system: a worker's memory volume has 8 MiB more than
#: two whole segments (operator/children/workers.py), and the old file is at most one of them.
SPARE_BYTES: Final = 4 << 20
#: The old file stays mapped for so long: its readers leave it meanwhile, each at its next wake-up, so that none of them is
#: the last one, who has to free it. Beside a file that has doubled again, older ones still fit: half as large each.
LET_GO_S: Final = 1.0


def capacity_for(needed: int, first: int, most: int) -> int:
    """Series that a segment has room for: the first size, doubled until it holds what is needed, at most ``most``."""
    capacity = min(first, most)
    while capacity < min(needed, most):
        capacity = min(2 * capacity, most)
    return capacity


class Growing:
    """Has the segment grow, once at a time, and says how it ended.

    Args:
        first, most: series that a segment begins with, and may ever have.
        grown: called when there is a larger file. no_room: when there can't be, with the reason.
        failed: told of an error that nobody expected.

    Attributes:
        growths: since the start.
    """

    def __init__(
        self,
        writer: SegmentWriter,
        first: int,
        most: int,
        grown: Callable[[], None],
        no_room: Callable[[str], None],
        failed: Callable[[BaseException], None],
        counts: Counter[str],
    ) -> None:
        self._writer = writer
        self._first = first
        self._most = most
        self._grown = grown
        self._no_room = no_room
        self._failed = failed
        self._counts = counts
        self._task: asyncio.Task[None] | None = None
        #: What growths have left, while it is still held.
        self._held: set[asyncio.Task[None]] = set()
        self._stopped = False
        self.growths = 0

    def grow(self, needed: int) -> None:
        """Make room for so many series, beginning now; nothing happens while it grows already, or once it is stopped."""
        needed = min(needed, self._most)
        if self._task is None and not self._stopped and needed > self._writer.capacity:
            self._task = asyncio.create_task(self._run(needed), name="growth")
            self._task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        if self._task is task:
            self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)

    async def stop(self) -> None:
        """Leave a growth where it is, for good: nothing of it remains."""
        self._stopped = True  # the feed looks for room each second until its rings are drained
        tasks = [*self._held] if self._task is None else [self._task, *self._held]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, needed: int) -> None:
        problem = await self._grow(needed)
        self._task = None  # whoever is told may ask for more
        if problem:
            self._no_room(problem)
        else:
            self._grown()

    async def _grow(self, needed: int) -> str:
        """Grow; why that can't be, or empty."""
        problem = await self._grow_somehow(needed)
        while problem and self._held:
            # A growth of a moment ago: what it has left still takes the room that this one may have.
            await asyncio.wait(self._held)
            problem = await self._grow_somehow(needed)
        return f"the segment is full and can't grow: {problem}" if problem else ""

    async def _grow_somehow(self, needed: int) -> str:
        """Double, or where that has no room make what is needed now; why neither can be, or empty."""
        doubled = capacity_for(needed, self._first, self._most)
        problem = ""
        for capacity in (doubled, needed) if needed < doubled else (doubled,):
            try:
                await self._grow_to(capacity)
            except SegmentError as error:
                problem = str(error)
            else:
                return ""
        return problem

    async def _let_go(self, left: list[_native.Mapping]) -> None:
        await _readers_gone()
        # The list has the only reference. In a thread: candles go on meanwhile.
        await asyncio.to_thread(left.clear)

    async def _grow_to(self, capacity: int) -> None:
        before, begun_s = self._writer.capacity, time.monotonic()
        left: list[_native.Mapping] = []
        steps = self._writer.grow(capacity, spare_bytes=SPARE_BYTES, left=left)
        try:
            for _ in steps:
                await asyncio.sleep(0)
        finally:
            steps.close()
        held = asyncio.create_task(self._let_go(left), name="old segment")
        self._held.add(held)
        held.add_done_callback(self._held.discard)
        self.growths += 1
        self._counts["segment_growths"] += 1
        log.info(
            "segment grown",
            extra={
                "series_before": before,
                "series": capacity,
                "generation": self._writer.generation,
                "took_ms": round((time.monotonic() - begun_s) * 1e3, 1),
            },
        )


async def _readers_gone() -> None:
    await asyncio.sleep(LET_GO_S)
