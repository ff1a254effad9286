"""A feed's series without a broker: board, router and segment, a catch-up that is done at once, a clock to turn."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import msgspec
from aiokafka import TopicPartition

from chandlery.core import wire
from chandlery.core.assignment import SeriesRef, TraderAssignment
from chandlery.core.settings import FeedSettings, KafkaSettings
from chandlery.core.wire import CandlesRecord, CandleUpdate
from chandlery.workers.feed.board import Receipt, SeriesBoard
from chandlery.workers.feed.candle_rows import Headers
from chandlery.workers.feed.positions import LivePositions
from chandlery.workers.feed.router import RawRecord, Router, Track
from chandlery.workers.feed.series_follower import SeriesFollower, first_segment
from chandlery.workers.segment import SegmentReader, SeriesReader

STEP_MS = 60_000
GRACE_S = 60.0


class Record(msgspec.Struct):
    """A consumed record."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class CaughtUp:
    """A catch-up that has nothing to read but what the market says, and joins at once."""

    def __init__(self, stage: SeriesStage) -> None:
        self._stage = stage
        self.started: list[SeriesRef] = []

    def start(self, _partition: TopicPartition, tracks: dict[SeriesRef, Track]) -> None:
        for ref, track in tracks.items():
            self.started.append(ref)
            for update in self._stage.market.get(ref, ()):
                track.sequence.apply(1, update, self._stage.router.clocks.unpack(b""))
            self._stage.board.join(ref, track)

    def catching_up(self) -> list[SeriesRef]:
        return []


class NoConsumer:
    """Nothing is consumed here."""

    def __init__(self) -> None:
        self.partitions: set[TopicPartition] = set()

    def follow_live(self, partitions: set[TopicPartition]) -> None:
        self.partitions = partitions


class SeriesStage:
    """The parts that a feed has for its series."""

    def __init__(
        self, folder: Path, *, first: int = 2, most: int = 8, rows: int = 100, grace_s: float = GRACE_S
    ) -> None:
        self.settings = FeedSettings(
            worker="w-0",
            kafka=KafkaSettings("none:1", "f"),
            listen="",
            shm_dir=str(folder),
            rings_dir=str(folder),
            segment_rows=rows,
            segment_series=most,
            segment_first_series=first,
        )
        self.path = str(folder / "segment")
        self.now_s = 1_000.0
        self.counts: Counter[str] = Counter()
        self.refused: list[str] = []
        self.router = Router("live", self.counts, self._refuse)
        self.writer = first_segment(self.path, self.settings, None)
        self.board = SeriesBoard(
            self.writer, self.router, Receipt(), self.counts, most=most, grace_s=grace_s, clock=lambda: self.now_s
        )
        self.catchup = CaughtUp(self)
        self.closed, self.forming, self.consumer = LivePositions(), LivePositions(), NoConsumer()
        self.growths_told = 0
        self.changes_told = 0
        self.failures: list[BaseException] = []
        self.follower = SeriesFollower(
            self.settings,
            self.writer,
            self.board,
            self.closed,
            self.forming,
            self.consumer,
            self.catchup,
            grown=self._grown,
            changed=self._changed,
            failed=self.failures.append,
            counts=self.counts,
        )
        #: Every candle that ever closed.
        self.market: dict[SeriesRef, list[CandleUpdate]] = {}
        self._sequences: Counter[str] = Counter()
        self._offsets = itertools.count()

    def _refuse(self, _record: RawRecord, reason: str) -> None:
        self.refused.append(reason)

    def _grown(self) -> None:
        self.growths_told += 1

    def _changed(self) -> None:
        self.changes_told += 1

    def close(self, ref: SeriesRef, count: int = 1) -> None:
        """Candles close, as the closed topic tells it; the close price is the candle's number from 0."""
        candles = self.market.setdefault(ref, [])
        for number in range(len(candles), len(candles) + count):
            before = (number - 1) * STEP_MS if number else -1
            update = CandleUpdate(
                ref.interval, number * STEP_MS, before, "closed", 0, "1", "2", "0", str(number), "1", 1
            )
            candles.append(update)
            self._sequences[ref.symbol] += 1
            record = CandlesRecord(ref.symbol, 1, self._sequences[ref.symbol], [update])
            self.router.closed([Record("closed", 0, next(self._offsets), ref.symbol.encode(), wire.encode(record))])

    def follow(self, *refs: SeriesRef) -> None:
        """An assignment in which each series has one Trader."""
        traders = [reader_of(ref) for ref in refs]
        self.follower.follow(traders, {trader.key: bell for bell, trader in enumerate(traders)})

    def in_segment(self) -> set[SeriesRef]:
        """The series that a reader finds now."""
        with SegmentReader.open(self.path) as reader:
            return {SeriesRef(one["symbol"], one["interval"]) for one in reader.info()["series"]}

    def end(self) -> None:
        self.writer.close()


def reader_of(ref: SeriesRef) -> TraderAssignment:
    """A Trader that reads one series."""
    name = f"desk/{ref.symbol.replace('/', '-').lower()}-{ref.interval}"
    return TraderAssignment(trader=name, uid=name, strategy="x", symbols=[ref.symbol], interval=ref.interval)


def closes(series: SeriesReader, most: int = 36) -> list[int]:
    """The newest close prices that can be read."""
    return [int(close) for close in series.window(series.count, most).close]
