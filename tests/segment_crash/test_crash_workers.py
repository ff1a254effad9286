"""A real supervisor and its traders, when the feed beside them is killed, and when it is the supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

from tests.segment_crash.feed_matrix import SESSION
from tests.segment_crash.stage import ROOT, command, environment
from tests.workers_supervisor.fake_feed import BTC, Worker, gone, processes_of, ring_name, trader, worker

from chandlery.core.assignment import TraderStatus
from chandlery.workers.segment import SegmentWriter

TRADERS = ("a", "b", "c")
PATIENCE_S = 60.0


class DyingFeed:
    """A feed's writer as a process, with fault points."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    async def hears(self) -> str:
        assert self._process.stdout is not None
        return (await asyncio.wait_for(self._process.stdout.readline(), PATIENCE_S)).decode().strip()

    async def closes(self, price: float) -> None:
        """A candle closes."""
        self._say(f"close {price}")
        assert await self.hears() == "done"

    async def dies(self, store: int) -> None:
        """kill -9 right after that store of a revision of the newest candle."""
        self._say(f"die {store}")
        assert await asyncio.wait_for(self._process.wait(), PATIENCE_S) == -signal.SIGKILL

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())


@contextlib.asynccontextmanager
async def dying_feed(library: Path, made: Worker, *prices: float) -> AsyncIterator[DyingFeed]:
    """Takes the path, with candles of these prices."""
    process = await asyncio.create_subprocess_exec(
        *command(library, "feed_matrix", made.folder),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env=environment(),
    )
    feed = DyingFeed(process)
    try:
        assert await feed.hears() == "ready"
        for price in prices:
            await feed.closes(price)
        yield feed
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def each_decides(made: Worker, price: float) -> None:
    """Every Trader decides on a candle, and on no other."""
    for name in TRADERS:
        assert [each.price for each in await made.signals(f"desk/{name}", 1)] == [f"{price:g}"]


async def test_traders_of_feeds_killed_in_a_revision_keep_their_process_and_follow(library: Path) -> None:
    async with worker() as made:
        made.writer.close()
        before: dict[str, TraderStatus] = {}
        prices = [100.0]
        # Right after the revision's word is odd, in the middle of the row, and right before the word is even again.
        for store in (1, 8, 15):
            async with dying_feed(library, made, *prices) as feed:
                if not before:
                    made.assign(*(trader(name) for name in TRADERS))
                    before = await made.states(**dict.fromkeys(TRADERS, "Active"))
                prices.append(100.0 + store)
                await feed.closes(prices[-1])
                await each_decides(made, prices[-1])
                await feed.dies(store)
        # The last one has other rows, series and bells.
        made.writer = SegmentWriter.create(made.segment, rows=300, series=5, bells=32, guard_rows=70)
        assert made.writer.generation == 4
        made.index = made.writer.add_series(BTC, "1s")
        made.writer.reset(made.index, SESSION)
        made.close(*prices, 200.0)
        await each_decides(made, 200.0)
        after = (await made.until(lambda status: all(one.calls == 4 for one in status.traders.values()))).traders
        assert {name: (one.pid, one.restarts) for name, one in after.items()} == {
            f"desk/{name}": (before[f"desk/{name}"].pid, 0) for name in TRADERS
        }
        assert segments_of(made) == {"segment", "segment.lock"}


def segments_of(made: Worker) -> set[str]:
    """What there is in the folder of shared memory."""
    return {name for name in os.listdir(made.folder) if name.startswith("segment")}


async def test_a_killed_supervisor_s_successor_goes_on_with_the_rings_and_nothing_is_left_over() -> None:
    """Signals that nobody has taken stay in the rings; no candle is decided by both lives."""
    async with worker() as made:
        made.close(100.0)
        made.assign(*(trader(name) for name in TRADERS))
        await made.states(**dict.fromkeys(TRADERS, "Active"))
        made.close(101.0)
        first = await made.until(lambda status: all(one.signals == 1 for one in status.traders.values()))
        rings = {name: os.stat(made.rings / name).st_ino for name in os.listdir(made.rings) if name.endswith(".ring")}
        assert made.process is not None
        family = processes_of(made.process.pid)
        made.process.kill()
        await made.process.wait()
        await gone(family)
        made.close(102.0)
        assert segments_of(made) == {"segment", "segment.lock"}, "the feed's, which lives"
        # Killed while it made the ring of a Trader that is gone when its successor comes.
        (made.rings / ring_name("desk/gone")).with_suffix(".ring.new").write_bytes(b"half a ring")
        await made.start()
        await made.until(lambda status: all(one.signals == 2 for one in status.traders.values()))
        second = await made.states(**dict.fromkeys(TRADERS, "Active"))
        assert not {one.pid for one in first.traders.values()} & {one.pid for one in second.values()}
        for name in TRADERS:
            assert [each.price for each in made.take(f"desk/{name}")] == ["101", "102"]
        kept = {name: os.stat(made.rings / name).st_ino for name in os.listdir(made.rings) if ".ring" in name}
        assert kept == rings
