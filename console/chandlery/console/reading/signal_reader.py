"""The ``signals`` topics of all feeds into one :class:`SignalLog`: their newest records first, then what comes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from chandlery.console.backend import FeedKafka
from chandlery.console.reading.kafka_reading import (
    LEADER_CHECK_S,
    Away,
    Backoff,
    Span,
    check_running,
    next_batches,
    offsets_at,
    open_consumer,
    position_of,
    shares,
    spans,
)
from chandlery.console.reading.positions import OVERLAP_MS, Place, feed_key
from chandlery.console.reading.recency import Now, came_ms, now
from chandlery.console.reading.replaying import Source
from chandlery.console.reading.signal_log import SignalLog
from chandlery.core.errors import UnavailableError
from chandlery.core.topics import topics_of
from chandlery.stream.topics import partitions_of

log = logging.getLogger("chandlery.console.reading")

#: Feeds come and go: looked at so often.
_LOOK_S: Final = 1.0
#: A topic that isn't there yet: asked for so often.
_TOPIC_POLL_S: Final = 1.0
#: Records read at the start for each signal kept: itself, its completion, and as much again for partitions that are
#: quieter than others.
_RECORDS_PER_SIGNAL: Final = 4


class SignalReader:
    """Reads while it runs; whatever brokers do, it goes on where it stands.

    Args:
        kafkas: the feeds and their Kafka; asked again each second.
        kept: signals that the log keeps.
        clocks: this moment by both clocks.

    Attributes:
        records: taken in. states: by feed: ``connecting``, ``waiting`` (for the topic) or ``reading``.
    """

    def __init__(
        self,
        kafkas: Callable[[], Sequence[FeedKafka]],
        signals: SignalLog,
        kept: int,
        away: Away,
        clocks: Callable[[], Now] = now,
    ) -> None:
        self._kafkas = kafkas
        self._clocks = clocks
        self._log = signals
        self._start_records = _RECORDS_PER_SIGNAL * kept
        self._away = away
        self._news = asyncio.Event()
        self._feeds: dict[str, tuple[FeedKafka, asyncio.Task[None]]] = {}
        #: Of feeds that went: their client takes a while to end.
        self._ending: set[asyncio.Task[None]] = set()
        self.records = 0
        self.states: dict[str, str] = {}

    def news(self) -> asyncio.Event:
        """Set as soon as the log has more than now."""
        return self._news

    def source_of(self, feed: str) -> Source | None:
        """Where a feed's signals are; None: there is no such feed now."""
        known = self._feeds.get(feed)
        return None if known is None else Source(known[0].kafka, topics_of(known[0].kafka).signals)

    async def run(self) -> None:
        """Read until cancelled."""
        try:
            while True:
                self._look()
                await asyncio.sleep(_LOOK_S)
        finally:
            tasks = [task for _, task in self._feeds.values()]
            for task in tasks:
                task.cancel()
            # Those that end already aren't told twice: that would cut their client's end short.
            await asyncio.gather(*tasks, *self._ending, return_exceptions=True)
            self._feeds.clear()
            self.states.clear()

    def _look(self) -> None:
        """Begin with feeds that have come or are elsewhere now, end with those that have gone."""
        wanted = {feed.feed: feed for feed in self._kafkas()}
        for name, (feed, task) in list(self._feeds.items()):
            check_running(task)
            if wanted.get(name) != feed:
                task.cancel()
                self._ending.add(task)
                task.add_done_callback(self._ending.discard)
                self._away.back(topics_of(feed.kafka).signals)
                del self._feeds[name], self.states[name]
                if name not in wanted:
                    self._log.leave(feed_key(name, topics_of(feed.kafka).signals))
        for name, feed in wanted.items():
            if name not in self._feeds:
                self.states[name] = "connecting"
                self._feeds[name] = feed, asyncio.create_task(self._read_feed(feed), name=f"signals of {name}")

    async def _read_feed(self, feed: FeedKafka) -> None:
        topic = topics_of(feed.kafka).signals
        backoff = Backoff()
        waited = False
        while True:
            try:
                numbers = await partitions_of(feed.kafka, topic)
                if not numbers:
                    waited = True
                    self.states[feed.feed] = "waiting"
                    self._away.back(topic)  # Kafka answers: it is the feed that hasn't begun
                    await asyncio.sleep(_TOPIC_POLL_S)
                    continue
                async with open_consumer(feed.kafka, exact=True) as consumer:
                    await self._place(consumer, feed, topic, numbers, new=waited)
                    self._away.back(topic)
                    self.states[feed.feed] = "reading"
                    backoff.reset()
                    await self._consume(consumer, feed, topic)
            except UnavailableError as error:
                self.states[feed.feed] = "connecting"
                self._away.gone(topic, "signals", error, feed.kafka.bootstrap)
                await asyncio.sleep(backoff.next_s())

    async def _place(
        self, consumer: AIOKafkaConsumer, feed: FeedKafka, topic: str, numbers: Sequence[int], *, new: bool
    ) -> None:
        """Assign the partitions: from where we stand, or at the first time from a little before their end.

        Args:
            new: the topic wasn't there when we first looked: nothing in it is history.
        """
        partitions = [TopicPartition(topic, number) for number in numbers]
        have = await spans(consumer, feed.kafka, partitions)
        starts = self._starts(have)
        key = feed_key(feed.feed, topic)
        for partition, span in have.items():
            place = (key, partition.partition)
            known = self._log.partition(place)
            if known is None:
                self._log.begin(feed.feed, place, starts[partition], starts[partition] if new else span.end)
            elif known.next > span.end:
                # Fewer records than were read: the topic was made again, or lost its newest. What is older than what was
                # read is history in either case.
                since_ms = max(0, known.newest_ms - OVERLAP_MS)
                found = await offsets_at(consumer, feed.kafka, partition, since_ms)
                start = span.end if found is None else found
                self._log.begin(feed.feed, place, start, start)
            elif known.next < span.begin:
                self._log.skip(place, span.begin)
        consumer.assign(partitions)
        for partition in partitions:
            begun = self._log.partition((key, partition.partition))
            assert begun is not None, "every partition of the topic was begun above"
            consumer.seek(partition, begun.next)
        self._tell()

    def _starts(self, have: Mapping[TopicPartition, Span]) -> dict[TopicPartition, int]:
        """Where to begin in each partition: the newest records, as many in each, and what one lacks in the others."""
        given = shares([span.end - span.begin for span in have.values()], self._start_records)
        return {partition: span.end - records for (partition, span), records in zip(have.items(), given, strict=True)}

    async def _consume(self, consumer: AIOKafkaConsumer, feed: FeedKafka, topic: str) -> None:
        key = feed_key(feed.feed, topic)
        checked_s = time.monotonic()
        while True:
            batches = await next_batches(consumer, feed.kafka)
            if batches:
                self.take(key, batches)
                self._note_caught_up(consumer, key, batches)
                await asyncio.sleep(0)
            # Also while records come: they are of some partitions, and others may have nobody who leads them.
            if time.monotonic() - checked_s >= LEADER_CHECK_S:
                await self._check(consumer, feed, key)
                checked_s = time.monotonic()

    def take(self, key: bytes, batches: Mapping[TopicPartition, Sequence[ConsumerRecord]]) -> None:
        """Records that were just read of a feed's partitions."""
        at = self._clocks()
        for partition, records in batches.items():
            place = (key, partition.partition)
            for record in records:
                known = self._log.partition(place)
                # Of history nothing is known but what its broker's clock said.
                bound_ms = known.caught_up_ms if known is not None and record.offset >= known.backlog else None
                came = came_ms(record.timestamp, at, bound_ms)
                self._log.add(place, record.offset, record.timestamp, record.value, came)
            self.records += len(records)
        self._tell()

    def caught_up(self, place: Place) -> None:
        """Everything that a partition had until now has been read: what comes later is younger than that."""
        known = self._log.partition(place)
        if known is not None:
            known.caught_up_ms = self._clocks().steady_ms

    def _note_caught_up(self, consumer: AIOKafkaConsumer, key: bytes, read: Iterable[TopicPartition]) -> None:
        for partition in read:
            known, end = self._log.partition((key, partition.partition)), consumer.highwater(partition)
            if known is not None and end is not None and known.next >= end:
                self.caught_up(known.place)

    async def _check(self, consumer: AIOKafkaConsumer, feed: FeedKafka, key: bytes) -> None:
        """Is there anybody for each partition? Raises UnavailableError: there isn't."""
        partitions = consumer.assignment()
        have = await spans(consumer, feed.kafka, partitions)
        for partition, span in have.items():
            known = self._log.partition((key, partition.partition))
            if known is not None and span.end < known.next:
                raise UnavailableError(f"topic {partition.topic} was made again")
            self._log.pass_to((key, partition.partition), await position_of(consumer, feed.kafka, partition))
            if known is not None and known.next >= span.end:
                self.caught_up(known.place)

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
