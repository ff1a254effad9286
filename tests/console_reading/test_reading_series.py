"""How many series are read, and for how long: bounded, and only what somebody looks at."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.workers_feed.feed_setup import until

from chandlery.console.backend import FeedKafka
from chandlery.console.reading import candle_reader, signal_reader
from chandlery.console.reading.candle_reader import CandleReader
from chandlery.console.reading.kafka_reading import Away
from chandlery.console.reading.signal_log import SignalLog
from chandlery.console.reading.signal_reader import SignalReader
from chandlery.core.errors import UnavailableError
from chandlery.core.settings import KafkaSettings

FEED, OTHER = "desk/a", "desk/b"


@asynccontextmanager
async def running(feeds: list[FeedKafka]) -> AsyncIterator[CandleReader]:
    """A reader whose Kafka is away: what is open and looked at doesn't depend on it."""
    reader = CandleReader(lambda: list(feeds), 10, Away())
    task = asyncio.create_task(reader.run())
    try:
        yield reader
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def feeds(monkeypatch: pytest.MonkeyPatch) -> list[FeedKafka]:
    monkeypatch.setattr(candle_reader, "_LOOK_S", 0.02)
    return [FeedKafka(FEED, KafkaSettings(bootstrap="127.0.0.1:1", feed="a"))]


async def test_a_series_that_nobody_looks_at_is_closed_after_a_while(
    feeds: list[FeedKafka], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candle_reader, "UNSEEN_S", 0.1)
    async with running(feeds) as reader:
        looked_at = reader.follow(FEED, "BTC/USDT", "1m")
        look = asyncio.ensure_future(anext(looked_at))
        reader.follow(FEED, "ETH/USDT", "1m")  # dropped without ever being asked
        assert reader.open_series == 2
        await until("the other is closed", lambda: reader.open_series == 1)
        assert reader.viewers == 1
        look.cancel()
        await asyncio.gather(look, return_exceptions=True)
        await until("both are closed", lambda: reader.open_series == 0)
        assert reader.viewers == 0


async def test_the_series_longest_unseen_makes_room_and_none_that_is_looked_at(
    feeds: list[FeedKafka], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candle_reader, "MOST_SERIES", 2)
    async with running(feeds) as reader:
        followed = [reader.follow(FEED, "A/B", "1m")]
        for symbol in ("C/D", "E/F"):
            with pytest.raises(UnavailableError):  # its Kafka is away
                await reader.candles(FEED, symbol, "1m", 10, None)
        assert reader.open_series == 2
        assert reader.counts["evicted"] == 1
        followed.append(reader.follow(FEED, "E/F", "1m"))
        with pytest.raises(UnavailableError, match="2 series are looked at"):
            reader.follow(FEED, "G/H", "1m")
        with pytest.raises(UnavailableError, match="close a chart"):
            await reader.candles(FEED, "G/H", "1m", 10, None)


async def test_who_looks_on_stays_when_the_feed_goes_and_comes_back(feeds: list[FeedKafka]) -> None:
    async with running(feeds) as reader:
        followed = reader.follow(FEED, "BTC/USDT", "1m")
        await until("it is open", lambda: reader.open_series == 1)
        feed = feeds.pop()
        await until("it is closed with its feed", lambda: reader.open_series == 0)
        assert reader.viewers == 1
        feeds.append(feed)
        await until("it is open again", lambda: reader.open_series == 1)
        del followed


async def test_who_looks_on_at_a_feed_that_is_gone_keeps_room_for_when_it_comes_back(
    feeds: list[FeedKafka], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candle_reader, "MOST_SERIES", 4)
    gone, other = feeds[0], FeedKafka(OTHER, KafkaSettings(bootstrap="127.0.0.1:1", feed="b"))
    async with running(feeds) as reader:
        followed = [reader.follow(FEED, symbol, "1m") for symbol in ("A/B", "C/D", "E/F")]
        await until("all are open", lambda: reader.open_series == 3)
        feeds[:] = [other]
        await until("they are closed with their feed", lambda: reader.open_series == 0)
        for symbol in ("A/B", "C/D"):
            with pytest.raises(UnavailableError, match="doesn't answer"):
                await reader.candles(OTHER, symbol, "1m", 10, None)
        followed.append(reader.follow(OTHER, "A/B", "1m"))
        for symbol in ("C/D", "E/F"):  # one of them is open
            with pytest.raises(UnavailableError, match="4 series are looked at"):
                reader.follow(OTHER, symbol, "1m")
        feeds.append(gone)
        await until("all that are looked at are open", lambda: reader.open_series == 4)
        assert (reader.viewers, reader.counts["evicted"], reader.counts["no_room"]) == (4, 1, 0)
        del followed


async def test_a_series_without_room_is_opened_again_later_and_ends_no_other(
    feeds: list[FeedKafka], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(feeds) as reader:
        followed = [reader.follow(FEED, symbol, "1m") for symbol in ("A/B", "C/D")]
        await until("both are open", lambda: reader.open_series == 2)
        feed = feeds.pop()
        await until("both are closed with their feed", lambda: reader.open_series == 0)
        monkeypatch.setattr(candle_reader, "MOST_SERIES", 1)
        feeds.append(feed)
        await until("one has no room", lambda: reader.counts["no_room"])
        monkeypatch.setattr(candle_reader, "MOST_SERIES", 2)
        await until("both are open again", lambda: reader.open_series == 2)
        del followed


async def test_the_reader_of_signals_ends_no_sooner_than_its_clients_of_feeds_that_have_gone(
    feeds: list[FeedKafka], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, closing, closed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def read_feed(_reader: SignalReader, _feed: FeedKafka) -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            closing.set()
            await closed.wait()

    monkeypatch.setattr(signal_reader, "_LOOK_S", 0.02)
    monkeypatch.setattr(SignalReader, "_read_feed", read_feed)
    reader = SignalReader(lambda: list(feeds), SignalLog(10), 10, Away())
    before = asyncio.all_tasks()
    running_reader = asyncio.create_task(reader.run())
    await begun.wait()
    feeds.clear()
    await closing.wait()
    running_reader.cancel()
    done, _ = await asyncio.wait([running_reader], timeout=0.1)
    assert not done, "it did not wait for the client"
    closed.set()
    await asyncio.wait([running_reader])
    assert running_reader.cancelled()
    assert not asyncio.all_tasks() - before
