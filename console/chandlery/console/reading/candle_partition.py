"""One partition of a feed's candles: followed by one consumer for all series in it, read back for each."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Final, NamedTuple

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from chandlery.console.reading.candle_book import CandleBook, Lookback
from chandlery.console.reading.kafka_reading import (
    LEADER_CHECK_S,
    Away,
    Backoff,
    Span,
    next_batches,
    open_consumer,
    position_of,
    spans,
)
from chandlery.core.assignment import SeriesRef
from chandlery.core.errors import UnavailableError
from chandlery.core.settings import KafkaSettings
from chandlery.core.topics import Topics, topics_of
from chandlery.core.wire import CandleUpdate
from chandlery.workers.feed.candle_rows import mentions
from chandlery.workers.feed.router import RawRecord, Router, Track, decode_record

log = logging.getLogger("chandlery.console.reading")

#: Records of ``candles-live`` looked at for a forming candle: quiet symbols have theirs a little back.
LIVE_LOOK_BACK_RECORDS: Final = 1_000
#: Most records that one look back reads: at 4 µs each, 0.8 s of this process. With 25 symbols a partition and ``1m`` as
#: the shortest interval of its topic that is 5 days; what is older isn't shown.
MOST_LOOK_BACK_RECORDS: Final = 200_000
_FIRST_STRETCH_RECORDS: Final = 2_000
#: What a stretch holds of one series is in memory at once: 20 MB at the very most.
_LONGEST_STRETCH_RECORDS: Final = 20_000
_POLL_MS: Final = 200


class PartitionReading:
    """Follows one partition of the candle topics that are wanted, from where each was first wanted.

    Args:
        counts: see the sequence and the router of workers/feed; besides ``records`` and ``undecodable``.
        updated: called when candle records were read.
    """

    def __init__(
        self, kafka: KafkaSettings, partition: int, away: Away, counts: Counter[str], updated: Callable[[], None]
    ) -> None:
        self.kafka = kafka
        self.topics: Topics = topics_of(kafka)
        self._partition = partition
        self._away = away
        self._counts = counts
        self._updated = updated
        self._router = Router(self.topics.candles_live, counts, self._refuse)
        self._positions: dict[TopicPartition, int] = {}
        self._wanted = {self.of(self.topics.candles_live)}
        self._placed = asyncio.Event()
        self.series: dict[SeriesRef, Track] = {}
        self._name = f"{self.topics.candles_live}/{partition}"

    def of(self, topic: str) -> TopicPartition:
        """This partition of a topic."""
        return TopicPartition(topic, self._partition)

    def position(self, partition: TopicPartition) -> int | None:
        """The next offset to be followed; None: it isn't yet."""
        return self._positions.get(partition)

    async def place(self, partition: TopicPartition) -> None:
        """Follow a closed topic too; returns once it is, from its end on."""
        self._wanted.add(partition)
        while partition not in self._positions:
            await self._placed.wait()

    def add(self, ref: SeriesRef, book: CandleBook) -> None:
        """Remember what passes of a series. It isn't told before :meth:`join`."""
        track = self.series[ref] = Track(book.sequence)
        self._router.add(ref, track)

    def join(self, ref: SeriesRef, book: CandleBook, newest_live: RawRecord | None) -> None:
        """The book has all closed candles up to :meth:`position`: from now on it is told what comes."""
        book.open = True
        self._router.join(ref, self.series[ref])
        if newest_live is not None:
            self._router.live([newest_live])

    def remove(self, ref: SeriesRef) -> None:
        """Nobody looks at a series any more."""
        if self.series.pop(ref, None) is not None:
            self._router.remove(ref)

    async def run(self) -> None:
        """Follow until cancelled."""
        backoff = Backoff()
        try:
            while True:
                try:
                    async with open_consumer(self.kafka) as consumer:
                        await self._assign(consumer)
                        self._away.back(self._name)
                        backoff.reset()
                        await self._consume(consumer)
                except UnavailableError as error:
                    self._away.gone(self._name, "candles", error, self.kafka.bootstrap)
                    await asyncio.sleep(backoff.next_s())
        finally:
            self._away.back(self._name)

    async def _consume(self, consumer: AIOKafkaConsumer) -> None:
        checked_s = time.monotonic()
        while True:
            if self._wanted != consumer.assignment():
                await self._assign(consumer)
            batches = await next_batches(consumer, self.kafka, timeout_ms=_POLL_MS)
            if batches:
                self._take(batches)
                await asyncio.sleep(0)
            # Also while records come: they are of some partitions, and others may have nobody who leads them.
            if time.monotonic() - checked_s >= LEADER_CHECK_S:
                await self._check(consumer)
                checked_s = time.monotonic()

    async def _assign(self, consumer: AIOKafkaConsumer) -> None:
        wanted = set(self._wanted)
        for partition, span in (await spans(consumer, self.kafka, wanted)).items():
            self._positions[partition] = self._start(partition, span)
        consumer.assign(list(wanted))
        for partition in wanted:
            consumer.seek(partition, self._positions[partition])
        self._placed.set()
        self._placed = asyncio.Event()

    def _start(self, partition: TopicPartition, span: Span) -> int:
        known = self._positions.get(partition)
        if known is not None:
            # Beyond the end: the topic was made again.
            return known if known <= span.end else span.begin
        if partition.topic == self.topics.candles_live:
            return max(span.begin, span.end - LIVE_LOOK_BACK_RECORDS)
        return span.end

    def _take(self, batches: dict[TopicPartition, list[ConsumerRecord]]) -> None:
        """Closed candles first: forming ones of the same batch then find their predecessors."""
        live = self.of(self.topics.candles_live)
        for partition, records in batches.items():
            if partition != live:
                self._router.closed(records)
        if live in batches:
            self._router.live(batches[live])
        for partition, records in batches.items():
            self._positions[partition] = records[-1].offset + 1
            self._counts["records"] += len(records)
        self._updated()

    async def _check(self, consumer: AIOKafkaConsumer) -> None:
        """Is there anybody for each partition? Raises UnavailableError: there isn't."""
        for partition, span in (await spans(consumer, self.kafka, consumer.assignment())).items():
            if span.end < self._positions[partition]:
                raise UnavailableError(f"topic {partition.topic} was made again")
            # It may have passed records that no reader is shown.
            self._positions[partition] = await position_of(consumer, self.kafka, partition)

    def _refuse(self, record: RawRecord, reason: str) -> None:
        self._counts["undecodable"] += 1
        log.debug(
            "a candle record can't be used",
            extra={"topic": record.topic, "partition": record.partition, "offset": record.offset, "reason": reason},
        )


class Found(NamedTuple):
    """How far a look back came. ``begin``: the offset it ended at; ``beginning``: nothing is before that."""

    begin: int
    beginning: bool


async def look_back(
    consumer: AIOKafkaConsumer,
    kafka: KafkaSettings,
    partition: TopicPartition,
    span: Span,
    ref: SeriesRef,
    look: Lookback,
) -> Found:
    """Read stretches from ``span.end`` backwards until ``look`` has enough, or the bound or the beginning is reached."""
    high, stretch = span.end, _FIRST_STRETCH_RECORDS
    least = max(span.begin, span.end - MOST_LOOK_BACK_RECORDS)
    while high > least and not look.enough:
        low = max(least, high - stretch)
        look.stretch([one async for one in updates_between(consumer, kafka, partition, low, high, ref)])
        high, stretch = low, min(2 * stretch, _LONGEST_STRETCH_RECORDS)
    return Found(high, high == span.begin or look.whole_session)


async def updates_between(
    consumer: AIOKafkaConsumer, kafka: KafkaSettings, partition: TopicPartition, low: int, high: int, ref: SeriesRef
) -> AsyncIterator[tuple[int, list[CandleUpdate]]]:
    """Sessions and updates of one series in a partition's records ``low`` … ``high``, not included."""
    async for record in records_between(consumer, kafka, partition, low, high, ref.symbol):
        if mentions(record.value or b"", ref.interval):
            decoded, _reason = decode_record(record)  # what can't be decoded is counted by who follows
            if decoded is not None:
                yield decoded.session, [one for one in decoded.updates if one.interval == ref.interval]


async def records_between(
    consumer: AIOKafkaConsumer, kafka: KafkaSettings, partition: TopicPartition, low: int, high: int, symbol: str
) -> AsyncIterator[ConsumerRecord]:
    """Records of one symbol, ``low`` … ``high``, not included."""
    key = symbol.encode()
    at = low
    if at < high:
        if partition not in consumer.assignment():
            consumer.assign([partition])
        consumer.seek(partition, low)
    while at < high:
        for record in (await next_batches(consumer, kafka, partition)).get(partition, []):
            if record.offset < high and record.key == key:
                yield record
        at = await position_of(consumer, kafka, partition)
        await asyncio.sleep(0)
