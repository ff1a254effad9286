"""The control socket between its two real ends: what one says is what the other takes."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from tests.workers_supervisor.fake_feed import PATIENCE_S, trader

from chandlery.core.assignment import Assignment, TraderAssignment, TraderStatus, content_hash
from chandlery.workers.control_messages import AssignmentMessage, StatusMessage
from chandlery.workers.feed.control import ControlServer
from chandlery.workers.supervisor.feed_link import FeedLink


class Ends:
    """A feed's and a supervisor's end, and what each has taken."""

    def __init__(self, path: Path) -> None:
        self.assignments: list[AssignmentMessage] = []
        self.rings: list[str] = []
        self.statuses: list[StatusMessage] = []
        self.counts: Counter[str] = Counter()
        self.feed = ControlServer(path, self.counts, self.statuses.append, lambda: None)
        self.supervisor = FeedLink(str(path), self.assignments.append, self.rings.append, lambda: None)


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[Ends]:
    # Not pytest's tmp_path: a Unix socket's path may have 107 bytes only.
    with tempfile.TemporaryDirectory(prefix="chandlery-") as folder:
        ends = Ends(Path(folder) / "control.sock")
        await ends.feed.start()
        task = asyncio.create_task(ends.supervisor.run())
        try:
            yield ends
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await ends.feed.stop()


async def until(holds: Callable[[], bool]) -> None:
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while not holds():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)


def assigned(*traders: TraderAssignment) -> AssignmentMessage:
    specs = list(traders)
    bells = {spec.trader: at for at, spec in enumerate(specs)}
    return AssignmentMessage(Assignment("worker-0", 7, content_hash(specs), specs), bells, "/dev/shm/segment")


async def test_every_message_arrives_as_it_was_sent() -> None:
    async with connected() as ends:
        message = assigned(trader("a"), trader("b", parameters={"size": 2}))
        ends.feed.assign(message)
        ends.feed.replace_ring("desk/a")
        await until(lambda: bool(ends.assignments and ends.rings))
        assert (ends.assignments, ends.rings) == ([message], ["desk/a"])
        status = StatusMessage(7, "hash", {"desk/a": TraderStatus("Active", calls=3)}, [{"name": "buys"}])
        assert ends.supervisor.send(status)
        await until(lambda: bool(ends.statuses))
        assert ends.statuses == [status]
        assert not ends.counts


async def test_the_longest_assignment_there_can_be_fits_a_line_at_both_ends() -> None:
    """As many traders as a worker may have, with as much source as one may have, each character of it escaped."""
    async with connected() as ends:
        message = assigned(*(trader(f"t{at}", source='"' * 65_536) for at in range(256)))
        ends.feed.assign(message)
        await until(lambda: bool(ends.assignments))
        assert ends.assignments == [message]
        assert not ends.counts
