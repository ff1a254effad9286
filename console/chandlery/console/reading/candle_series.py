"""One series that somebody looks at: opened, loaded from the topic's tail, joined to what is followed."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import Counter
from contextlib import suppress
from typing import Final

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from chandlery.console.api.models import Candle
from chandlery.console.reading.candle_book import CandleBook, Lookback
from chandlery.console.reading.candle_partition import (
    LIVE_LOOK_BACK_RECORDS,
    PartitionReading,
    look_back,
    records_between,
    updates_between,
)
from chandlery.console.reading.kafka_reading import Span, open_consumer, spans
from chandlery.core.assignment import SeriesRef
from chandlery.core.errors import UnavailableError
from chandlery.core.intervals import parse_interval
from chandlery.core.wire import CandleUpdate

#: Places remembered by which older pages are found.
_MOST_HINTS: Final = 256


class Series:
    """One open series.

    Attributes:
        book: its candles. loaded: set once they are all there. answered: set once something can be said: candles, that
            there are none, or (``problem``) why not.
        looked_s: when somebody last asked for it, by the loop's clock.
        reopened: whether it was open before for somebody who still looks on, and missed what came since.
    """

    def __init__(self, feed: str, ref: SeriesRef, book: CandleBook, counts: Counter[str]) -> None:
        self.feed = feed
        self.ref = ref
        self.book = book
        self.loaded = asyncio.Event()
        self.answered = asyncio.Event()
        self.problem: UnavailableError | None = None
        self.looked_s = 0.0
        self.reopened = False
        self.reading: PartitionReading | None = None
        self.task: asyncio.Task[None] | None = None
        self._counts = counts
        #: Open times and offsets: what opened before the one was written before the other. Ascending.
        self._hints: list[tuple[int, int]] = []
        self._hints_session = -1

    async def load(self, reading: PartitionReading, slots: asyncio.Semaphore, need: int) -> None:
        """Read the newest ``need`` closed candles and join what is followed; safe to repeat.

        Raises:
            UnavailableError: Kafka doesn't answer.
        """
        partition = self._closed(reading)
        if self.reading is None:
            self.reading = reading
            reading.add(self.ref, self.book)
        await reading.place(partition)
        async with slots, open_consumer(reading.kafka) as consumer:
            span = (await spans(consumer, reading.kafka, [partition]))[partition]
            look = Lookback(self.ref.symbol, self.ref.interval, need)
            found = await look_back(consumer, reading.kafka, partition, span, self.ref, look)
            for session, update in look.updates():
                self._take(session, update)
            everything = _in_order(look, self.book.session)
            if everything:
                self._remember(everything[0].open_time_ms, found.begin)
            self.book.from_beginning = found.beginning and self._begins_with(everything)
            newest_live = await _newest_live(consumer, reading, self.ref)
            await self._catch_up(consumer, reading, partition, span.end)
            reading.join(self.ref, self.book, newest_live)

    async def _catch_up(
        self, consumer: AIOKafkaConsumer, reading: PartitionReading, partition: TopicPartition, at: int
    ) -> None:
        """Read on until nothing lies between here and what is followed. There is no await after the last look."""
        while (followed := reading.position(partition)) is not None and at < followed:
            async for session, updates in updates_between(consumer, reading.kafka, partition, at, followed, self.ref):
                for update in updates:
                    if update.state != "forming":
                        self._take(session, update)
            at = followed

    def _take(self, session: int, update: CandleUpdate) -> None:
        try:
            self.book.take(session, update)
        except ValueError:
            self._counts["undecodable"] += 1

    async def older(self, before_ms: int | None, limit: int, slots: asyncio.Semaphore) -> list[Candle]:
        """Closed candles that opened before a time, oldest first, read back from Kafka.

        Those directly before what the book holds go into it, as far as it has room: asked for again, they are there,
        and where the bound of one look back ended the next goes on.

        Raises:
            UnavailableError: Kafka doesn't answer.
        """
        reading, book = self.reading, self.book
        assert reading is not None, "a series that is loaded has a reading"
        partition, session = self._closed(reading), book.session
        adjoining = book.oldest_ms in (None, before_ms)
        async with slots, open_consumer(reading.kafka) as consumer:
            span = (await spans(consumer, reading.kafka, [partition]))[partition]
            end = span.end if before_ms is None else min(span.end, self._hinted(before_ms, span.end))
            look = Lookback(self.ref.symbol, self.ref.interval, limit, before_ms, session)
            found = await look_back(
                consumer, reading.kafka, partition, Span(span.begin, max(span.begin, end)), self.ref, look
            )
        everything = _in_order(look, session)
        if book.session == session:
            oldest_ms = everything[0].open_time_ms if everything else before_ms
            if oldest_ms is not None:
                self._remember(oldest_ms, found.begin)
            if adjoining and book.oldest_ms in (None, before_ms):
                book.put_before(everything)
                book.from_beginning = found.beginning and (
                    not everything or book.oldest_ms == everything[0].open_time_ms
                )
        return everything[-limit:]

    def _begins_with(self, candles: list[Candle]) -> bool:
        """Whether the oldest of them is in the book too."""
        return not candles or candles[0].open_time_ms == self.book.oldest_ms

    def _closed(self, reading: PartitionReading) -> TopicPartition:
        topics = reading.topics
        return reading.of(topics.candles_fast if parse_interval(self.ref.interval).is_fast else topics.candles)

    # ---- where older candles are ----

    def _remember(self, open_time_ms: int, offset: int) -> None:
        if self._hints_session != self.book.session:
            self._hints, self._hints_session = [], self.book.session
        at = bisect_left(self._hints, (open_time_ms, -1))
        if at < len(self._hints) and self._hints[at][0] == open_time_ms:
            self._hints[at] = open_time_ms, min(offset, self._hints[at][1])
            return
        self._hints.insert(at, (open_time_ms, offset))
        if len(self._hints) > _MOST_HINTS:
            del self._hints[len(self._hints) // 2]

    def _hinted(self, before_ms: int, end: int) -> int:
        """An offset behind every candle that opened before a time."""
        if self._hints_session != self.book.session:
            return end
        at = bisect_left(self._hints, (before_ms, -1))
        return self._hints[at][1] if at < len(self._hints) else end


def _in_order(look: Lookback, session: int) -> list[Candle]:
    """What was found of a session, by the same rules as what is followed."""
    updates = [update for of_session, update in look.updates() if of_session == session]
    page = CandleBook(len(updates), Counter())  # what is left out here was counted when it came
    for update in updates:
        with suppress(ValueError):  # counted when it came, too
            page.take(session, update)
    return page.candles(len(updates))


async def _newest_live(consumer: AIOKafkaConsumer, reading: PartitionReading, ref: SeriesRef) -> ConsumerRecord | None:
    """The newest record of a symbol in the live topic, if it is among the last."""
    live = reading.of(reading.topics.candles_live)
    span = (await spans(consumer, reading.kafka, [live]))[live]
    newest = None
    low = max(span.begin, span.end - LIVE_LOOK_BACK_RECORDS)
    async for record in records_between(consumer, reading.kafka, live, low, span.end, ref.symbol):
        newest = record
    return newest
