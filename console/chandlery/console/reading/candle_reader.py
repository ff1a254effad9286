"""Candles of any series of any feed (:class:`chandlery.console.market.Market`): read when first asked for."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, NamedTuple
from weakref import WeakSet

from aiokafka import TopicPartition

from chandlery.console.api.models import Candle, Candles
from chandlery.console.backend import FeedKafka
from chandlery.console.market import CandleEvent
from chandlery.console.reading.candle_book import CandleBook, CandleChange, Changes
from chandlery.console.reading.candle_partition import PartitionReading
from chandlery.console.reading.candle_series import Series
from chandlery.console.reading.kafka_reading import Away, Backoff, check_running, open_consumer, spans
from chandlery.core.assignment import SeriesRef
from chandlery.core.errors import InputError, UnavailableError
from chandlery.core.intervals import parse_interval
from chandlery.core.symbols import parse_symbol
from chandlery.core.topics import partition_of, topics_of
from chandlery.core.wording import did_you_mean, shown
from chandlery.stream.topics import partitions_of

#: A series that nobody looks at is followed for so long: a page that is loaded again finds it.
UNSEEN_S: Final = 60.0
#: Series open at once: each holds up to ``candles_kept`` candles, 1.5 KB each: 150 MB with the default of 1,500.
MOST_SERIES: Final = 64
#: An answer waits so long for the newest candles, then says that they are incomplete.
_LOAD_WAIT_S: Final = 3.0
#: An older page is read in a second; a broker that is that slow is as good as away.
_PAGE_S: Final = 20.0
#: Closed candles read when a series is first asked for, if fewer are wanted: a chart asks for that many.
_FIRST_CANDLES: Final = 500
_LOOK_S: Final = 1.0
_TOPIC_POLL_S: Final = 1.0
_FEED_POLL_S: Final = 0.05
#: How often it is asked whether a feed's candles have grown.
_PULSE_S: Final = 1.0
#: Look backs in one Kafka at the same time: each is CPU of this process.
_LOOK_BACKS: Final = 2


class _SeriesKey(NamedTuple):
    feed: str
    ref: SeriesRef


class _Viewer:
    """One who looks on."""

    def __init__(self, most: int) -> None:
        self.changes = Changes(most)
        self.some = asyncio.Event()

    def add(self, change: CandleChange) -> None:
        self.changes.add(change)
        self.some.set()


class _Feed(NamedTuple):
    """A feed that is known, with what is read of it."""

    feed: FeedKafka
    readings: dict[int, tuple[PartitionReading, asyncio.Task[None]]]
    pulse: asyncio.Task[None]


class CandleReader:
    """Candles of all feeds.

    Args:
        kafkas: the feeds and their Kafka; asked again each second. kept: closed candles in memory, a series.

    Attributes:
        counts: of the series' sequences and routers (docs/telemetry.md), and ``records``, ``undecodable``,
            ``evicted`` (series closed to make room), ``no_room`` (looks at which one that is looked at couldn't be
            opened again), ``left_out`` (changes that slow viewers weren't told).
    """

    def __init__(self, kafkas: Callable[[], Sequence[FeedKafka]], kept: int, away: Away) -> None:
        self._kafkas = kafkas
        self._kept = max(1, kept)
        self._away = away
        self._feeds: dict[str, _Feed] = {}
        self._series: dict[_SeriesKey, Series] = {}
        self._viewers: dict[_SeriesKey, WeakSet[_Viewer]] = {}
        self._grown_s: dict[str, float] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._slots: dict[str, asyncio.Semaphore] = {}
        self.counts: Counter[str] = Counter()

    # ---- what the API asks ----

    async def candles(self, feed: str, symbol: str, interval: str, limit: int, before_ms: int | None) -> Candles:
        """The newest candles of a series, or those before a time; oldest first, the forming one among them.

        Raises:
            InputError: no such feed, or a text that is no symbol or interval. UnavailableError: no Kafka.
        """
        key = self._key(feed, symbol, interval)
        series = self._open(key, min(limit, self._kept))
        try:
            async with asyncio.timeout(_LOAD_WAIT_S):
                await series.answered.wait()
        except TimeoutError:
            pass  # what is there by now, said to be incomplete
        if series.problem is not None and not series.loaded.is_set():
            raise series.problem
        found = series.book.candles(limit, before_ms)
        loaded = series.loaded.is_set()
        if loaded and len(found) < limit and series.book.session >= 0 and not series.book.from_beginning:
            try:
                found = [*await self._older(series, found, limit, before_ms), *found]
            except UnavailableError:
                if not found:
                    raise
                loaded = False  # those that are here are better than none
        return Candles(feed=feed, symbol=key.ref.symbol, interval=key.ref.interval, candles=found, complete=loaded)

    async def _older(self, series: Series, found: list[Candle], limit: int, before_ms: int | None) -> list[Candle]:
        """Candles before those found. Raises UnavailableError: Kafka doesn't answer in time."""
        oldest_ms = found[0].open_time_ms if found else before_ms
        try:
            async with asyncio.timeout(_PAGE_S):
                return await series.older(oldest_ms, limit - len(found), self._slot(series.feed))
        except TimeoutError as error:
            raise UnavailableError(f"candles of {series.ref.symbol} couldn't be read within {_PAGE_S:g} s") from error

    def follow(self, feed: str, symbol: str, interval: str) -> AsyncIterator[CandleEvent]:
        """Changes from now on: who falls behind gets the newest state of each candle.

        Raises:
            InputError: as :meth:`candles`.
        """
        key = self._key(feed, symbol, interval)
        self._check_viewed(key)
        self._open(key, 1)
        viewer = _Viewer(self._kept)
        self._viewers.setdefault(key, WeakSet()).add(viewer)
        return self._followed(key, viewer)

    def newest_age_ms(self, feed: str) -> int | None:
        """How long ago a feed's candle topics were last seen to have grown, ms (within a second)."""
        grown_s = self._grown_s.get(feed)
        return None if grown_s is None else round(1_000 * (time.monotonic() - grown_s))

    @property
    def open_series(self) -> int:
        """How many are read."""
        return len(self._series)

    @property
    def viewers(self) -> int:
        """How many look on."""
        return sum(map(len, self._viewers.values()))

    async def _followed(self, key: _SeriesKey, viewer: _Viewer) -> AsyncIterator[CandleEvent]:
        try:
            while True:
                await viewer.some.wait()
                viewer.some.clear()
                for change in viewer.changes.take():
                    yield CandleEvent(key.feed, key.ref.symbol, key.ref.interval, change.candle, change.reset)
        finally:
            self.counts["left_out"] += viewer.changes.left_out
            self._viewers.get(key, WeakSet()).discard(viewer)

    def _key(self, feed: str, symbol: str, interval: str) -> _SeriesKey:
        known = {one.feed for one in self._kafkas()}
        if feed not in known:
            raise InputError(f"there is no feed {shown(feed)}{did_you_mean(feed, known)}")
        return _SeriesKey(feed, SeriesRef(parse_symbol(symbol), parse_interval(interval).text))

    # ---- series ----

    def _open(self, key: _SeriesKey, need: int) -> Series:
        series = self._series.get(key)
        if series is None:
            self._check_viewed(key)
            self._make_room()
            book = CandleBook(self._kept, self.counts, lambda change: self._tell(key, change))
            series = self._series[key] = Series(key.feed, key.ref, book, self.counts)
            series.reopened = bool(self._viewers.get(key))
            need = max(need, min(_FIRST_CANDLES, self._kept))
            series.task = asyncio.create_task(self._load(series, need), name=_name(key))
        series.looked_s = time.monotonic()
        return series

    def _tell(self, key: _SeriesKey, change: CandleChange) -> None:
        for viewer in self._viewers.get(key, ()):
            viewer.add(change)

    def _check_viewed(self, key: _SeriesKey) -> None:
        """Raises UnavailableError: so many others are looked at, open or to be opened again, that there is no room."""
        others = sum(1 for other, viewers in self._viewers.items() if viewers and other != key)
        if others >= MOST_SERIES:
            raise _no_room()

    def _make_room(self) -> None:
        """At most :data:`MOST_SERIES`: the one longest unseen goes. Raises UnavailableError: all are looked at."""
        if len(self._series) < MOST_SERIES:
            return
        unseen = [key for key in self._series if not self._viewers.get(key)]
        if not unseen:
            raise _no_room()
        self._close(min(unseen, key=lambda key: self._series[key].looked_s))
        self.counts["evicted"] += 1

    def _close_all(self, feed: str) -> None:
        for key in [key for key in self._series if key.feed == feed]:
            self._close(key)

    def _close(self, key: _SeriesKey) -> None:
        series = self._series.pop(key)
        if series.task is not None:
            series.task.cancel()
            self._ending.add(series.task)
            series.task.add_done_callback(self._ending.discard)
        if series.reading is not None:
            series.reading.remove(series.ref)
        self._away.back(_name(key))

    async def _load(self, series: Series, need: int) -> None:
        """Load a series, however often it takes."""
        backoff = Backoff()
        name = _name(_SeriesKey(series.feed, series.ref))
        while True:
            try:
                if series.feed not in self._feeds:
                    await asyncio.sleep(_FEED_POLL_S)  # it was named, and is about to be known here
                    continue
                reading = await self._reading_of(series)
                if reading is None:
                    series.problem = None
                    series.answered.set()
                    await asyncio.sleep(_TOPIC_POLL_S)
                    continue
                await series.load(reading, self._slot(series.feed), need)
            except UnavailableError as error:
                series.problem = error
                series.answered.set()
                self._away.gone(name, "candles", error, self._bootstrap(series.feed))
                await asyncio.sleep(backoff.next_s())
            else:
                break
        if series.reopened:
            series.book.tell_all()
        series.problem = None
        series.loaded.set()
        series.answered.set()
        self._away.back(name)

    def _slot(self, feed: str) -> asyncio.Semaphore:
        return self._slots.setdefault(self._bootstrap(feed), asyncio.Semaphore(_LOOK_BACKS))

    def _bootstrap(self, feed: str) -> str:
        known = self._feeds.get(feed)
        return "" if known is None else known.feed.kafka.bootstrap

    async def _reading_of(self, series: Series) -> PartitionReading | None:
        """What follows the partition of a series; None: the feed's topics aren't there yet."""
        feed = self._feeds.get(series.feed)
        if feed is None:
            return None
        numbers = await partitions_of(feed.feed.kafka, topics_of(feed.feed.kafka).candles)
        if not numbers or self._feeds.get(series.feed) is not feed:
            return None
        partition = partition_of(series.ref.symbol, len(numbers))
        known = feed.readings.get(partition)
        if known is None:
            reading = PartitionReading(
                feed.feed.kafka, partition, self._away, self.counts, lambda: self._grown(series.feed)
            )
            task = asyncio.create_task(reading.run(), name=f"candles of {series.feed}, partition {partition}")
            known = feed.readings[partition] = reading, task
        return known[0]

    def _grown(self, feed: str) -> None:
        self._grown_s[feed] = time.monotonic()

    # ---- feeds ----

    async def run(self) -> None:
        """Read until cancelled."""
        try:
            while True:
                await self._look()
                await asyncio.sleep(_LOOK_S)
        finally:
            for key in list(self._series):
                self._close(key)
            for name in list(self._feeds):
                await self._leave(name)
            # They were told already: once more would cut their client's end short.
            await asyncio.gather(*self._ending, return_exceptions=True)

    async def _look(self) -> None:
        """Follow feeds that come and go, close what nobody looks at, open again what somebody does."""
        wanted = {feed.feed: feed for feed in self._kafkas()}
        for name, known in list(self._feeds.items()):
            self._check_tasks(known)
            if wanted.get(name) != known.feed:
                self._close_all(name)
                await self._leave(name)
        for name in {key.feed for key in self._series} - wanted.keys():
            self._close_all(name)  # it went before it was known here
        for name, feed in wanted.items():
            if name not in self._feeds:
                pulse = asyncio.create_task(self._feel_pulse(feed), name=f"pulse of {name}")
                self._feeds[name] = _Feed(feed, {}, pulse)
        self._close_unseen()
        self._open_again()
        await self._end_idle_readings()

    def _close_unseen(self) -> None:
        now_s = time.monotonic()
        for key, series in list(self._series.items()):
            if self._viewers.get(key):
                series.looked_s = now_s
            elif now_s - series.looked_s > UNSEEN_S:
                self._close(key)

    def _open_again(self) -> None:
        """What is looked at and was closed: its feed went and has come back, or reading began again."""
        for key, viewers in list(self._viewers.items()):
            if not viewers:
                del self._viewers[key]
            elif key not in self._series and key.feed in self._feeds:
                try:
                    self._open(key, 1)
                except UnavailableError:
                    self.counts["no_room"] += 1  # one look later there may be

    def _check_tasks(self, known: _Feed) -> None:
        """Raises InvariantError: something ended that runs for ever."""
        for task in (known.pulse, *(task for _, task in known.readings.values())):
            check_running(task)
        for key, series in self._series.items():
            if key.feed == known.feed.feed and series.task is not None and not series.loaded.is_set():
                check_running(series.task)

    async def _end_idle_readings(self) -> None:
        loading = {key.feed for key, series in self._series.items() if not series.loaded.is_set()}
        for name, known in self._feeds.items():
            for partition, (reading, task) in list(known.readings.items()):
                if not reading.series and name not in loading:
                    del known.readings[partition]
                    await _ended(task)

    async def _leave(self, name: str) -> None:
        known = self._feeds.pop(name)
        self._grown_s.pop(name, None)
        await _ended(known.pulse, *(task for _, task in known.readings.values()))

    async def _feel_pulse(self, feed: FeedKafka) -> None:
        """Ask each second whether a feed's candles have grown: reading them all would cost far more."""
        topics = topics_of(feed.kafka)
        backoff = Backoff()
        name = f"pulse of {feed.feed}"
        try:
            while True:
                try:
                    numbers = await partitions_of(feed.kafka, topics.candles_live)
                    if not numbers:
                        await asyncio.sleep(_TOPIC_POLL_S)
                        continue
                    await self._count_records(feed, topics.candles_live, numbers, name)
                except UnavailableError as error:
                    self._away.gone(name, "candles", error, feed.kafka.bootstrap)
                    await asyncio.sleep(backoff.next_s())
        finally:
            self._away.back(name)

    async def _count_records(self, feed: FeedKafka, topic: str, numbers: Sequence[int], name: str) -> None:
        partitions = [TopicPartition(topic, number) for number in numbers]
        seen = -1
        async with open_consumer(feed.kafka) as consumer:
            while True:
                have = sum(span.end for span in (await spans(consumer, feed.kafka, partitions)).values())
                self._away.back(name)
                if -1 < seen < have:
                    self._grown(feed.feed)
                seen = have
                await asyncio.sleep(_PULSE_S)


def _no_room() -> UnavailableError:
    return UnavailableError(f"{MOST_SERIES} series are looked at, and no more can be: close a chart, then try again")


def _name(key: _SeriesKey) -> str:
    return f"candles of {key.feed}: {key.ref.symbol} {key.ref.interval}"


async def _ended(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
