"""Candles read from a real broker: what was written, forming ones, revisions, sessions, older pages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from tests.console_reading.reading_setup import running_readers
from tests.workers_feed.feed_setup import MINUTE, candle, candle_writer, until

from chandlery.console.api.models import Candle, Candles
from chandlery.console.backend import FeedKafka
from chandlery.console.market import CandleEvent
from chandlery.console.reading import Readers
from chandlery.core.errors import InputError, UnavailableError
from chandlery.core.settings import KafkaSettings
from chandlery.stream.topics import ensure_topics

pytestmark = pytest.mark.broker
BTC = "BTC/USDT"


async def loaded(readers: Readers, symbol: str = BTC, interval: str = "1m", limit: int = 500) -> Candles:
    """The newest candles, once they are all there."""

    async def look() -> Candles | None:
        found = await readers.market.candles("desk/feed", symbol, interval, limit, None)
        return found if found.complete else None

    found: Candles = await until(f"candles of {symbol} {interval}", look)
    return found


@asynccontextmanager
async def looking(events: AsyncIterator[CandleEvent]) -> AsyncIterator[list[CandleEvent]]:
    """Candle events as they come."""
    seen: list[CandleEvent] = []

    async def look() -> None:
        async for event in events:
            seen.append(event)

    task = asyncio.create_task(look())
    try:
        yield seen
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def minutes(candles: list[Candle]) -> list[int]:
    return [one.open_time_ms // MINUTE for one in candles]


async def test_candles_are_those_that_were_written_as_the_exchange_wrote_them(kafka_settings: KafkaSettings) -> None:
    await ensure_topics(kafka_settings)
    async with candle_writer(kafka_settings) as writer, running_readers(kafka_settings) as readers:
        await writer.closed("ETH/USDT", 0, 50)
        await writer.closed(BTC, 0, 20)
        await writer.closed(BTC, 20, 1, filled=True, volume="0", trades=0)
        await writer.write(writer.topics.candles_live, BTC, candle(21 * MINUTE, "forming", close="61837.630"))
        await writer.flush()
        found = await loaded(readers, limit=10)
        assert minutes(found.candles) == list(range(12, 22))
        assert [one.state for one in found.candles] == ["closed"] * 9 + ["forming"]
        assert (found.candles[-1].close, found.candles[-2].filled, found.candles[-3].close) == ("61837.630", True, "19")
        assert (found.candles[-1].open, found.candles[-1].volume) == ("100", "7.25")
        assert readers.market.newest_age_ms("desk/feed") is not None


async def test_a_look_on_sees_forming_updates_the_close_a_revision_and_a_new_session(
    kafka_settings: KafkaSettings,
) -> None:
    await ensure_topics(kafka_settings)
    async with candle_writer(kafka_settings) as writer, running_readers(kafka_settings) as readers:
        await writer.closed(BTC, 0, 3)
        await loaded(readers)
        events = readers.market.follow("desk/feed", "btcusdt", "1m")
        async with looking(events) as seen, looking(readers.market.follow("desk/feed", BTC, "1m")) as also_seen:
            await writer.write(writer.topics.candles_live, BTC, candle(3 * MINUTE, "forming", close="1"))
            await writer.flush()
            await until("the first forming update", lambda: [one.candle.close for one in seen] == ["1"])
            await writer.write(writer.topics.candles_live, BTC, candle(3 * MINUTE, "forming", close="2"))
            await writer.closed(BTC, 3, 1)
            await until("the close", lambda: seen[-1].candle.state == "closed")
            await writer.write(writer.topics.candles, BTC, candle(2 * MINUTE, "revised", revision=1, close="2.5"))
            await writer.flush()
            await until("the revision", lambda: seen[-1].candle.state == "revised")
            assert (seen[-1].candle.close, seen[-1].reset) == ("2.5", False)
            found = await loaded(readers)
            assert [one.close for one in found.candles] == ["0", "1", "2.5", "3"]
            await writer.write(writer.topics.candles, BTC, candle(MINUTE, close="7"), session=5, seq=1)
            await writer.flush()
            await until("the new session", lambda: seen[-1].reset)
            assert [one.close for one in (await loaded(readers)).candles] == ["7"]
            await until("another sees the same", lambda: also_seen[-1:] == seen[-1:])
        assert readers.market.viewers == 0
        assert readers.market.open_series == 1


async def test_older_pages_are_read_back_from_kafka(kafka_settings: KafkaSettings) -> None:
    await ensure_topics(kafka_settings)
    async with candle_writer(kafka_settings) as writer, running_readers(kafka_settings, candles_kept=20) as readers:
        for first in range(0, 300, 10):  # several symbols in the partition
            await writer.closed("ETH/USDT", first, 10)
            await writer.closed(BTC, first, 10)
        newest = await loaded(readers, limit=50)
        assert minutes(newest.candles) == list(range(250, 300))
        page, seen = newest.candles, minutes(newest.candles)
        while page:
            page = (await readers.market.candles("desk/feed", BTC, "1m", 70, page[0].open_time_ms)).candles
            seen = minutes(page) + seen
        assert seen == list(range(300))
        assert readers.market.open_series == 1


async def test_fast_candles_and_slow_ones_are_read_from_their_own_topics(kafka_settings: KafkaSettings) -> None:
    await ensure_topics(kafka_settings)
    async with candle_writer(kafka_settings) as writer, running_readers(kafka_settings) as readers:
        await writer.closed(BTC, 0, 3)
        for second in range(5):
            update = candle(second * 1_000, interval="1s", prev=second * 1_000 - 1_000 if second else -1)
            await writer.write(writer.topics.candles_fast, BTC, update)
        await writer.flush()
        assert minutes((await loaded(readers)).candles) == [0, 1, 2]
        assert [one.open_time_ms for one in (await loaded(readers, interval="1s")).candles] == [
            0,
            1000,
            2000,
            3000,
            4000,
        ]
        async with looking(readers.market.follow("desk/feed", BTC, "1s")) as fast:
            await writer.write(writer.topics.candles_fast, BTC, candle(5_000, interval="1s", prev=4_000))
            await writer.flush()
            await until("the next second", lambda: [one.candle.open_time_ms for one in fast] == [5_000])


async def test_what_is_no_candle_record_is_counted_and_left_out(kafka_settings: KafkaSettings) -> None:
    await ensure_topics(kafka_settings)
    async with candle_writer(kafka_settings) as writer, running_readers(kafka_settings) as readers:
        await writer.closed(BTC, 0, 2)
        await writer.raw(writer.topics.candles, BTC.encode(), b"{", BTC)
        await writer.write(writer.topics.candles, BTC, candle(2 * MINUTE, close="nan"))
        await writer.closed(BTC, 3, 1)
        assert minutes((await loaded(readers)).candles) == [0, 1, 3]
        async with looking(readers.market.follow("desk/feed", BTC, "1m")) as seen:
            await writer.raw(writer.topics.candles, BTC.encode(), b'{"kind": "candles"}', BTC)
            await writer.raw(writer.topics.candles, None, b"{}", BTC)
            await writer.closed(BTC, 4, 1)
            await until("the next candle", lambda: minutes([one.candle for one in seen]) == [4])
        assert readers.market.counts["undecodable"] >= 2


async def test_a_series_of_a_feed_that_has_no_topics_yet_is_empty_and_comes(kafka_settings: KafkaSettings) -> None:
    async with running_readers(kafka_settings) as readers:
        found = await readers.market.candles("desk/feed", BTC, "1m", 10, None)
        assert (found.candles, found.complete) == ([], False)
        async with looking(readers.market.follow("desk/feed", BTC, "1m")) as seen:
            await ensure_topics(kafka_settings)
            async with candle_writer(kafka_settings) as writer:
                await loaded(readers)
                await writer.closed(BTC, 0, 1)
                await until("the first candle", lambda: minutes([one.candle for one in seen]) == [0])


async def test_who_looks_on_is_told_what_closed_while_the_feed_was_away(kafka_settings: KafkaSettings) -> None:
    await ensure_topics(kafka_settings)
    feeds = [FeedKafka("desk/feed", kafka_settings)]
    async with candle_writer(kafka_settings) as writer, running_readers(lambda: list(feeds)) as readers:
        await writer.closed(BTC, 0, 3)
        await loaded(readers)
        async with looking(readers.market.follow("desk/feed", BTC, "1m")) as seen:
            await writer.closed(BTC, 3, 1)
            await until("a candle", lambda: minutes([one.candle for one in seen]) == [3])
            feeds.clear()
            await until("the series is closed", lambda: readers.market.open_series == 0)
            await writer.closed(BTC, 4, 2)
            feeds.append(FeedKafka("desk/feed", kafka_settings))
            await until("the candles", lambda: minutes([one.candle for one in seen]) == [3, *range(6)])
            await writer.closed(BTC, 6, 1)
            await until("the next", lambda: minutes([one.candle for one in seen[1:]]) == list(range(7)))
            assert [one.reset for one in seen] == [False, True, *[False] * 6]


async def test_what_is_no_feed_symbol_or_interval_is_refused_by_name(kafka_settings: KafkaSettings) -> None:
    async with running_readers(kafka_settings) as readers:
        for feed, symbol, interval in (("desk/nil", BTC, "1m"), ("desk/feed", "../x", "1m"), ("desk/feed", BTC, "1x")):
            with pytest.raises(InputError):
                await readers.market.candles(feed, symbol, interval, 10, None)
            with pytest.raises(InputError):
                readers.market.follow(feed, symbol, interval)


async def test_candles_of_a_kafka_that_is_away_are_unavailable(kafka_settings: KafkaSettings) -> None:
    nowhere = KafkaSettings(bootstrap="127.0.0.1:1", feed="x")
    async with running_readers(nowhere) as readers:
        with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1 doesn't answer"):
            await readers.market.candles("desk/feed", BTC, "1m", 10, None)
        assert len(await until("it is named", readers.away)) == 1
