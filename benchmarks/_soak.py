"""Series that come and go without end: what a feed keeps of them, driven without a broker."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from aiokafka import TopicPartition

from chandlery.core import wire
from chandlery.core.assignment import SeriesRef, TraderAssignment
from chandlery.core.settings import FeedSettings, KafkaSettings
from chandlery.core.topics import partition_of
from chandlery.core.wire import CandlesRecord, CandleUpdate
from chandlery.workers.feed.board import Receipt, SeriesBoard
from chandlery.workers.feed.positions import LivePositions
from chandlery.workers.feed.router import RawRecord, Router, Track
from chandlery.workers.feed.series_follower import SeriesFollower, first_segment
from chandlery.workers.feed.window_sender import WindowSender
from chandlery.workers.segment import SegmentReader

#: Series that come with each assignment, and go with the next; half of those of the time before come back.
BATCH: Final = 32
STEADY: Final = 8
#: Assignments that a series outlives its last reader by.
GRACE_TURNS: Final = 4
#: So many that the segment has grown and every free place been used again.
WARM_UP_CYCLES: Final = 100_000
_MINUTE_MS: Final = 60_000


class Held(NamedTuple):
    """What a process holds: resident bytes, living objects, mappings, descriptors; and the segment's file in bytes."""

    rss_bytes: int
    objects: int
    mappings: int
    descriptors: int
    file_bytes: int


class _Record(NamedTuple):
    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


class _Joins:
    """A catch-up with nothing to read: a new series joins at once."""

    board: SeriesBoard

    def start(self, _partition: TopicPartition, tracks: dict[SeriesRef, Track]) -> None:
        for ref, track in tracks.items():
            self.board.join(ref, track)

    def catching_up(self) -> list[SeriesRef]:
        return []


class _Consumes:
    def follow_live(self, _partitions: set[TopicPartition]) -> None:
        pass


class Soak:
    """The parts of a feed that know series, a reader that follows, and a clock that a turn moves by a second."""

    def __init__(self, folder: Path) -> None:
        settings = FeedSettings(
            worker="w-0",
            kafka=KafkaSettings("none:1", "f"),
            listen="",
            shm_dir=str(folder),
            rings_dir=str(folder),
            segment_rows=100,
            segment_series=256,
            segment_first_series=STEADY,
        )
        self.path = str(folder / "segment")
        self.counts: Counter[str] = Counter()
        self.router = Router("live", self.counts, _refuse)
        self.router.watch_changes = True
        self.writer = first_segment(self.path, settings, None)
        self.now_s = 0.0
        self.board = SeriesBoard(
            self.writer,
            self.router,
            Receipt(),
            self.counts,
            most=settings.segment_series,
            grace_s=float(GRACE_TURNS),
            clock=lambda: self.now_s,
        )
        self.pipes = WindowSender(folder / "windows.sock", self.path, self.counts)
        joins = _Joins()
        joins.board = self.board
        self.follower = SeriesFollower(
            settings,
            self.writer,
            self.board,
            LivePositions(),
            LivePositions(),
            _Consumes(),
            joins,
            grown=self.pipes.follow_segment,
            changed=_nothing,
            failed=_raise,
            counts=self.counts,
        )
        self.reader = SegmentReader.open(self.path)
        self.cycles = 0
        #: Every name is a new one: whatever is kept by name grows for ever.
        self._new = itertools.count(1_000_000)
        self._batch: list[SeriesRef] = []
        self._minutes = itertools.count()
        self._steady = [_trader(f"steady{number}", [SeriesRef(f"B{number}/USDT", "1m")]) for number in range(STEADY)]

    async def warm_up(self) -> None:
        """Let everything have the size that it keeps: allocator, segment, and the cache of partitions, which is bounded."""
        for number in range(partition_of.cache_info().maxsize or 0):
            partition_of(f"W{number}/USDT", 4)
        await self.run(WARM_UP_CYCLES // 2)
        self.held()  # what it collects and allocates itself has its size too, then
        await self.run(WARM_UP_CYCLES // 2)

    async def run(self, cycles: int, told: Callable[[int], None] = lambda _cycles: None) -> None:
        """So many series subscribed to and unsubscribed from; with each turn candles close and a reader looks."""
        end = self.cycles + cycles
        recent: deque[list[SeriesRef]] = deque(maxlen=2)
        while self.cycles < end:
            back = recent[0][: BATCH // 2] if len(recent) == 2 else []
            fresh = [SeriesRef(f"C{next(self._new)}/USDT", "1m") for _ in range(BATCH - len(back))]
            self._turn([*back, *fresh])
            recent.append(fresh)
            self.cycles += BATCH
            await asyncio.sleep(0)
            if self.board.waiting:
                await self._grown()
            if self.cycles % (BATCH * 1_000) == 0:
                told(self.cycles)

    async def _grown(self) -> None:
        while self.board.waiting:  # noqa: ASYNC110
            await asyncio.sleep(0)

    def _turn(self, refs: list[SeriesRef]) -> None:
        traders = [*self._steady, _trader("churn", refs)]
        self.follower.follow(traders, {trader.key: bell for bell, trader in enumerate(traders)})
        self.pipes.assign(traders)
        minute = next(self._minutes)
        self.router.closed([_closed(ref, minute) for ref in (refs[0], refs[-1], SeriesRef("B0/USDT", "1m"))])
        self.board.ring()
        self.pipes.changed(self.router.take_changed())
        self.now_s += 1
        self.follower.each_second()
        if self.reader.superseded:
            self.reader.close()
            self.reader = SegmentReader.open(self.path)
        series = self.reader.series(refs[-1].symbol, "1m")
        if series is not None and series.count:
            window = series.window(series.count, 1)
            if not series.valid(window) or int(window.open_time[0]) != minute * _MINUTE_MS:
                raise AssertionError(f"{refs[-1]}: {window.open_time} at minute {minute}")

    def held(self) -> Held:
        """What there is now, garbage aside."""
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return Held(
            pages * os.sysconf("SC_PAGE_SIZE"),
            len(gc.get_objects()),
            Path("/proc/self/maps").read_text().count("\n"),
            len(os.listdir("/proc/self/fd")),
            os.path.getsize(self.path),
        )

    async def end(self) -> None:
        """Leave nothing."""
        await self.follower.stop()
        self.reader.close()
        await self.pipes.stop()
        self.writer.close()


def _trader(name: str, refs: list[SeriesRef]) -> TraderAssignment:
    symbols = [ref.symbol for ref in refs]
    return TraderAssignment(trader=f"desk/{name}", uid=name, strategy="x", symbols=symbols, interval="1m")


def _closed(ref: SeriesRef, minute: int) -> RawRecord:
    before = (minute - 1) * _MINUTE_MS if minute else -1
    update = CandleUpdate(ref.interval, minute * _MINUTE_MS, before, "closed", 0, "1", "2", "0", "1", "1", 1)
    value = wire.encode(CandlesRecord(ref.symbol, 1, minute + 1, [update]))
    return _Record("closed", 0, minute, ref.symbol.encode(), value)


def _refuse(_record: RawRecord, reason: str) -> None:
    raise AssertionError(reason)


def _raise(error: BaseException) -> None:
    raise error


def _nothing() -> None:
    pass
