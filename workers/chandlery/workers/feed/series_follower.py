"""The worker's series follow its assignment: in the segment, on the topics, and in how large the segment is."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from aiokafka import TopicPartition

from chandlery.core.assignment import MOST_INCARNATIONS, Assignment, SeriesRef, TraderAssignment
from chandlery.core.intervals import parse_interval
from chandlery.core.settings import FeedSettings
from chandlery.core.topics import partition_of, topics_of
from chandlery.workers.feed.board import SeriesBoard
from chandlery.workers.feed.growing import SPARE_BYTES, Growing, capacity_for
from chandlery.workers.feed.positions import LivePositions
from chandlery.workers.feed.router import Track
from chandlery.workers.segment import SegmentWriter

log = logging.getLogger("chandlery.feed.series")


class CatchesUp(Protocol):
    """What reads the history of new series."""

    def start(self, partition: TopicPartition, tracks: dict[SeriesRef, Track]) -> None: ...
    def catching_up(self) -> list[SeriesRef]: ...


class FollowsLive(Protocol):
    """What consumes forming candles."""

    def follow_live(self, partitions: set[TopicPartition]) -> None: ...


def first_segment(path: str, settings: FeedSettings, restored: Assignment | None) -> SegmentWriter:
    """The segment that a feed begins with: as large as what it was last assigned needs; where the file system has no room
    to grow, as large as it may ever be.

    Raises:
        SegmentError: no room now, or never for as many series as there may be; or a live writer has the path.
    """
    most, rows = settings.segment_series, settings.segment_rows
    left_bytes = SegmentWriter.check_room(path, rows=rows, series=most, bells=MOST_INCARNATIONS)
    needed = len({ref for trader in restored.traders for ref in trader.series()}) if restored else 0
    # A growing segment lies beside the one before it. What fits once has room for all, if it has it from the first on.
    series = capacity_for(needed, settings.segment_first_series, most) if left_bytes >= SPARE_BYTES else most
    return SegmentWriter.create(path, rows=rows, series=series, bells=MOST_INCARNATIONS)


class SeriesFollower:
    """Adds, keeps and frees series, and has the segment grow for them.

    Args:
        closed, forming: where the live consumers stand. consumer: the one of forming candles.
        grown: called when the segment has another file. changed: when series came or went, or could not, without a new
            assignment. failed: told of an error that nobody expected.
    """

    def __init__(
        self,
        settings: FeedSettings,
        writer: SegmentWriter,
        board: SeriesBoard,
        closed: LivePositions,
        forming: LivePositions,
        consumer: FollowsLive,
        catchup: CatchesUp,
        grown: Callable[[], None],
        changed: Callable[[], None],
        failed: Callable[[BaseException], None],
        counts: Counter[str],
    ) -> None:
        self._settings = settings
        self._topics = topics_of(settings.kafka)
        self._writer = writer
        self._board = board
        self._closed = closed
        self._forming = forming
        self._consumer = consumer
        self._catchup = catchup
        self._told_of_growth = grown
        self._changed = changed
        first, most = settings.segment_first_series, settings.segment_series
        self._growing = Growing(writer, first, most, self._grown, self._no_room, failed, counts)
        self._traders: list[TraderAssignment] = []
        self._bells: dict[str, int] = {}

    def follow(self, traders: Iterable[TraderAssignment], bells: dict[str, int]) -> None:
        """Make the series those that the traders read; where there is no room for all, the rest come as there is."""
        self._traders, self._bells = list(traders), bells
        self._fill()

    def _fill(self) -> None:
        new = self._board.want(self._traders, self._bells)
        self._follow_topics()
        jobs: defaultdict[TopicPartition, dict[SeriesRef, Track]] = defaultdict(dict)
        for ref in new:
            jobs[self._partition(ref)][ref] = self._board.tracks[ref]
        for tp, tracks in jobs.items():
            self._catchup.start(tp, tracks)
        if self._board.waiting:
            self._growing.grow(self._board.needed)

    def _follow_topics(self) -> None:
        live = self._live_partitions()
        self._closed.keep({self._partition(ref) for ref in self._board.tracks})
        self._forming.keep(live)
        self._consumer.follow_live(live)

    def each_second(self) -> None:
        """Free what nobody reads any more, and look whether there is room for what waits."""
        freed = self._board.free_unread()
        if freed:
            log.info("series freed", extra={"series": freed, "left": len(self._board.tracks)})
        if freed or self._board.waiting:
            self._fill()
        if freed:
            self._changed()

    def _grown(self) -> None:
        self._board.follow_growth()
        self._told_of_growth()
        self._fill()
        self._changed()

    def _no_room(self, why: str) -> None:
        if self._board.refuse_waiting(why):
            log.error("segment can't grow", extra={"reason": why, "series": self._board.needed})
            self._changed()

    async def stop(self) -> None:
        """Leave a growth where it is."""
        await self._growing.stop()

    def figures(self) -> dict[str, Any]:
        """What the worker's status says of its series and of the segment."""
        board = self._board
        return {
            "series": len(board.tracks) - len(board.grace),
            "refused_series": {_text(ref): why for ref, why in board.refused.items()},
            "catching_up": [_text(ref) for ref in self._catchup.catching_up()],
            "held_now": sum(track.sequence.holds for track in board.tracks.values()),
            "segment": {
                "path": self._writer.path,
                "size_bytes": self._writer.file_bytes,
                "generation": self._writer.generation,
                "rows": self._settings.segment_rows,
                **self.room(),
            },
        }

    def absent(self) -> dict[str, str]:
        """Series that Traders read and that aren't there, and why."""
        board = self._board
        waiting = {_text(ref): "it waits for the segment to grow" for ref in board.waiting}
        return waiting | {_text(ref): why for ref, why in board.refused.items()}

    def room(self) -> dict[str, int]:
        """How full the present file is, and what became of it since the start."""
        return {
            "series_capacity": self._settings.segment_series,
            "series_room": self._writer.capacity,
            "series_used": len(self._board.tracks),
            "series_in_grace": len(self._board.grace),
            "series_waiting": len(self._board.waiting),
            "series_freed": self._board.freed,
            "growths": self._growing.growths,
        }

    def _partition(self, ref: SeriesRef) -> TopicPartition:
        fast = parse_interval(ref.interval).is_fast
        topic = self._topics.candles_fast if fast else self._topics.candles
        return TopicPartition(topic, partition_of(ref.symbol, self._settings.kafka.partitions))

    def _live_partitions(self) -> set[TopicPartition]:
        if not self._settings.live:
            return set()
        numbers = {partition_of(ref.symbol, self._settings.kafka.partitions) for ref in self._board.tracks}
        return {TopicPartition(self._topics.candles_live, number) for number in numbers}


def _text(ref: SeriesRef) -> str:
    return f"{ref.symbol} {ref.interval}"
