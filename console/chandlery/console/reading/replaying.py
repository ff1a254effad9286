"""Records of a signals topic read once more, for those who follow from an old position. Bounded, a piece at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, NamedTuple, TypeVar

from aiokafka import TopicPartition

from chandlery.console.reading.following import Follower, Missing, Replayed, Unplaced
from chandlery.console.reading.kafka_reading import (
    next_batches,
    no_answer,
    offsets_at,
    open_consumer,
    position_of,
    spans,
)
from chandlery.core.errors import UnavailableError
from chandlery.core.settings import KafkaSettings

Result = TypeVar("Result")

#: Records read in one piece: half a MB. A follower that doesn't read holds no more than that, and no connection.
PIECE_RECORDS: Final = 500
#: Pieces read of one Kafka at the same time, for all followers: each costs a connection.
_MOST_AT_ONCE: Final = 4
#: A piece takes tens of ms; a broker that is that slow is as good as away.
_PIECE_S: Final = 15.0


class Source(NamedTuple):
    """Where a feed's signals are."""

    kafka: KafkaSettings
    topic: str


class _Piece(NamedTuple):
    records: list[Replayed]
    next: int
    lost: int


class Replaying:
    """Reads for followers.

    Args:
        source_of: where the signals of a feed are; None: it is gone.
    """

    def __init__(self, source_of: Callable[[str], Source | None]) -> None:
        self._source_of = source_of
        #: By Kafka: one that is slow holds up nobody of another.
        self._slots: dict[str, asyncio.Semaphore] = {}

    async def read(self, follower: Follower, missing: Missing) -> None:
        """Hand the next piece of what is missing to the follower.

        Raises:
            UnavailableError: it can't be read now.
        """
        source = self._source(missing.partition.feed)
        partition = TopicPartition(source.topic, missing.partition.place[1])
        async with self._slot(source.kafka):
            piece = await _within(source.kafka, _read(source.kafka, partition, missing.begin, missing.end))
        follower.replay(missing.partition, piece.records)
        follower.replayed_to(missing.partition, piece.next, piece.lost)

    async def place(self, follower: Follower, unplaced: Unplaced) -> None:
        """Find out where a partition has to be told from.

        Raises:
            UnavailableError: it can't be asked now.
        """
        source = self._source(unplaced.partition.feed)
        partition = TopicPartition(source.topic, unplaced.partition.place[1])
        async with self._slot(source.kafka):
            offset = await _within(source.kafka, _place(source.kafka, partition, unplaced))
        follower.place_at(unplaced.partition, offset)

    def _slot(self, kafka: KafkaSettings) -> asyncio.Semaphore:
        return self._slots.setdefault(kafka.bootstrap, asyncio.Semaphore(_MOST_AT_ONCE))

    def _source(self, feed: str) -> Source:
        source = self._source_of(feed)
        if source is None:
            raise UnavailableError(f"there is no feed {feed} any more")
        return source


async def _within(kafka: KafkaSettings, work: Coroutine[Any, Any, Result]) -> Result:
    try:
        async with asyncio.timeout(_PIECE_S):
            return await work
    except TimeoutError as error:
        raise no_answer(kafka, error) from error


async def _read(kafka: KafkaSettings, partition: TopicPartition, begin: int, end: int) -> _Piece:
    async with open_consumer(kafka) as consumer:
        span = (await spans(consumer, kafka, [partition]))[partition]
        low, high = max(begin, span.begin), min(end, span.end)
        if low >= high:
            return _Piece([], end, end - begin)
        consumer.assign([partition])
        consumer.seek(partition, low)
        records: list[Replayed] = []
        at = low
        while at < high and len(records) < PIECE_RECORDS:
            for record in (await next_batches(consumer, kafka, partition)).get(partition, []):
                if record.offset < high:
                    records.append(Replayed(record.offset, record.timestamp, record.value))
            at = min(high, await position_of(consumer, kafka, partition))
        return _Piece(records, at if at < high else end, low - begin)


async def _place(kafka: KafkaSettings, partition: TopicPartition, unplaced: Unplaced) -> int:
    async with open_consumer(kafka) as consumer:
        span = (await spans(consumer, kafka, [partition]))[partition]
        if unplaced.within(span.end):
            return unplaced.offset
        found = await offsets_at(consumer, kafka, partition, unplaced.since_ms)
        return span.end if found is None else found
