"""Signals read from a real broker: followed, resumed, replayed, and bounded where nobody reads."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from tests.console_reading.reading_setup import (
    ALL,
    Taken,
    completion_of,
    in_memory,
    reads,
    running_readers,
    signal_number,
    signal_writer,
    taking,
)
from tests.support.free_ports import free_ports
from tests.workers_feed.feed_setup import candle_writer, until

from chandlery.console.backend import FeedKafka
from chandlery.console.market import SignalQuery
from chandlery.console.reading import Readers
from chandlery.core.settings import KafkaSettings
from chandlery.core.topics import topics_of
from chandlery.stream.broker import EmbeddedBroker
from chandlery.stream.topics import delete_topics, ensure_topics

pytestmark = pytest.mark.broker


async def test_signals_of_before_the_start_are_there_and_new_ones_come(kafka_settings: KafkaSettings) -> None:
    await ensure_topics(kafka_settings)
    async with signal_writer(kafka_settings) as writer:
        await writer.numbers(0, 40, partitions=4, whole=True)
        async with running_readers(kafka_settings) as readers:
            await until("40 signals", lambda: in_memory(readers) == 40)
            assert not readers.away()
            async with taking(readers.signals.follow("", ALL)) as taken:
                signal = signal_number(40)
                await writer.write(signal)
                await until("the signal", lambda: taken.events)
                await writer.write(completion_of(signal))
                await until("its completion", lambda: len(taken.events) == 2)
            first, second = taken.events
            assert (first.signal.price, first.signal.stages) == ("40", [])
            assert second.signal.frame_to_signal_us == 1_000
            assert [name for name, _ in second.signal.stages][-1] == "acknowledged"
            assert readers.signals.get(signal.id).trace_id == signal.id  # type: ignore[union-attr]


async def test_a_position_outlives_the_reader_and_gives_every_signal_once_in_order(
    kafka_settings: KafkaSettings,
) -> None:
    """Far more came meanwhile than is kept in memory: it is read from Kafka, then memory, then as it comes."""
    await ensure_topics(kafka_settings)
    async with signal_writer(kafka_settings) as writer:
        await writer.numbers(0, 20, partitions=4, whole=True)
        async with running_readers(kafka_settings, signals_kept=50) as readers:
            async with taking(readers.signals.follow("", ALL)) as taken:
                await until("reading began", lambda: in_memory(readers) == 20)
                await writer.numbers(20, 30, partitions=4, whole=True)
                await until("30 signals", lambda: len(taken.prices) == 30)
            at = next(at for at, event in enumerate(taken.events) if event.signal.price == "35")
            position = taken.events[at].position
            told = {int(event.signal.price) for event in taken.events[: at + 1]}
        await writer.numbers(50, 1_500, partitions=4, whole=True)
        async with (
            running_readers(kafka_settings, signals_kept=50) as readers,
            taking(readers.signals.follow(position, ALL)) as taken,
        ):
            await until("all that came", lambda: len(taken.prices) >= 1_530 - len(told))
            await writer.numbers(1_550, 20, partitions=4)
            await until("all that comes", lambda: len(taken.prices) >= 1_550 - len(told))
    assert told | set(taken.prices) == set(range(20, 1_570))
    assert not told & set(taken.prices)
    for partition in range(4):
        of_partition = [price for price in taken.prices if price % 4 == partition]
        assert of_partition == sorted(of_partition)
    assert sum(event.lost for event in taken.events) == 0


async def test_a_position_that_kafka_no_longer_reaches_tells_how_much_is_lost(kafka_settings: KafkaSettings) -> None:
    kafka = msgspec.structs.replace(kafka_settings, partitions=1)
    await ensure_topics(kafka)
    async with signal_writer(kafka) as writer:
        async with running_readers(kafka) as readers, taking(readers.signals.follow("", ALL)) as taken:
            await until("reading began", lambda: reads(readers))
            await writer.numbers(0, 5)
            await until("5 signals", lambda: len(taken.events) == 5)
            position = taken.events[1].position
        await writer.numbers(5, 5)
        await delete_before(kafka, 7)
        async with running_readers(kafka) as readers, taking(readers.signals.follow(position, ALL)) as taken:
            await until("what is left", lambda: len(taken.events) == 3)
    assert [(event.signal.price, event.lost) for event in taken.events] == [("7", 5), ("8", 0), ("9", 0)]


async def delete_before(kafka: KafkaSettings, offset: int) -> None:
    """Have the broker drop the records of the signals' first partition before an offset."""
    from aiokafka import TopicPartition
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.admin.records_to_delete import RecordsToDelete

    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(topics_of(kafka).signals, 0): RecordsToDelete(before_offset=offset)})
    finally:
        await admin.close()


async def test_a_follower_that_never_reads_holds_nobody_up_and_learns_how_much_it_lost(
    kafka_settings: KafkaSettings,
) -> None:
    kafka = msgspec.structs.replace(kafka_settings, partitions=1)
    await ensure_topics(kafka)
    async with signal_writer(kafka) as writer, running_readers(kafka, signals_kept=50) as readers:
        await until("reading began", lambda: reads(readers))
        idle = readers.signals.follow("", ALL)
        async with taking(readers.signals.follow("", ALL)) as taken:
            for first in range(0, 300, 20):
                await writer.numbers(first, 20)
                await until_told(taken, first + 20)
        late = await anext(idle)
        assert (late.signal.price, late.lost) == ("200", 200)
        assert (await anext(idle)).lost == 0
        await idle.aclose()  # type: ignore[attr-defined]
        assert in_memory(readers) == 50


async def until_told(taken: Taken, count: int) -> None:
    await until(f"{count} events", lambda: len(taken.events) == count)


async def test_a_feed_that_comes_later_is_followed_and_one_that_goes_is_left(kafka_settings: KafkaSettings) -> None:
    other = msgspec.structs.replace(kafka_settings, feed=f"{kafka_settings.feed}-b")
    feeds = [FeedKafka("desk/a", kafka_settings)]
    await ensure_topics(kafka_settings)
    async with signal_writer(kafka_settings) as one, running_readers(lambda: list(feeds)) as readers:
        await until("reading began", lambda: reads(readers))
        async with taking(readers.signals.follow("", ALL)) as taken:
            feeds.append(FeedKafka("desk/b", other))
            await one.numbers(0, 1)
            await until("the first feed's", lambda: taken.prices == [0])
            await until("the other's topic is waited for", lambda: readers.states().get("desk/b") == "waiting")
            await ensure_topics(other)
            async with signal_writer(other) as two:
                await two.numbers(100, 3)
                await until("all of the new feed's", lambda: taken.prices == [0, 100, 101, 102])
                assert [event.signal.feed for event in taken.events] == ["desk/a"] + ["desk/b"] * 3
                feeds.pop()
                await until("it is left", lambda: list(readers.states()) == ["desk/a"])
                assert not readers.away()
                page, _ = readers.signals.page(SignalQuery(feed="desk/b"))
                assert [signal.price for signal in page] == ["102", "101", "100"]


@pytest.mark.slow
async def test_a_broker_that_was_killed_is_named_and_nothing_is_lost_when_it_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broker = EmbeddedBroker(tmp_path / "broker", port=free_ports(1))
    await broker.start()
    caplog.set_level("INFO", "chandlery.console.reading")
    try:
        kafka = KafkaSettings(bootstrap=broker.bootstrap, feed="mine", partitions=2)
        await ensure_topics(kafka)
        async with running_readers(kafka) as readers, taking(readers.signals.follow("", ALL)) as taken:
            await until("reading began", lambda: reads(readers))
            await write_some(kafka, 0)
            await until("10 signals", lambda: len(taken.events) == 10)
            await until("10 candles", lambda: candles_of(readers, 10))
            broker.kill()
            sentences = await until("it is named", readers.away)
            assert len(sentences) == 1
            assert broker.bootstrap in sentences[0]
            assert in_memory(readers) == 10
            assert await candles_of(readers, 10)
            # Whoever comes with a position while Kafka is away gets what memory has, and the rest when it is back.
            async with taking(readers.signals.follow(taken.events[4].position, ALL)) as again:
                await until("5 signals", lambda: len(again.prices) == 5)
                await broker.start()
                await write_some(kafka, 10)
                await until("20 signals", lambda: len(taken.events) == 20)
                await until("15 signals", lambda: len(again.prices) == 15)
            await until("20 candles", lambda: candles_of(readers, 20))
            await until("nothing is away", lambda: not readers.away())
        said = [record.getMessage() for record in caplog.records if record.name == "chandlery.console.reading"]
        # The signals' topic, a partition of the candles', and the pulse: each once, however often it was tried.
        assert said.count("can't read a topic") == said.count("a topic is read again") <= 3
        assert sorted(taken.prices) == list(range(20))
        assert sum(event.lost for event in taken.events) == 0
    finally:
        await broker.stop()


async def write_some(kafka: KafkaSettings, first: int) -> None:
    async with signal_writer(kafka) as writer, candle_writer(kafka) as candles:
        await writer.numbers(first, 10, partitions=2)
        await candles.closed("BTC/USDT", first, 10)


async def candles_of(readers: Readers, count: int) -> bool:
    found = await readers.market.candles("desk/feed", "BTC/USDT", "1m", 100, None)
    return found.complete and len(found.candles) == count


async def test_a_topic_that_is_made_again_is_read_from_its_beginning(kafka_settings: KafkaSettings) -> None:
    kafka = msgspec.structs.replace(kafka_settings, partitions=1)
    await ensure_topics(kafka)
    async with running_readers(kafka) as readers:
        await until("reading began", lambda: reads(readers))
        async with taking(readers.signals.follow("", ALL)) as taken:
            async with signal_writer(kafka) as writer:
                await writer.numbers(0, 10)
            await until("10 signals", lambda: len(taken.events) == 10)
            await delete_topics(kafka, [topics_of(kafka).signals])
            await ensure_topics(kafka)
            async with signal_writer(kafka) as writer:
                await writer.numbers(20, 3)
            await until("those of the new topic", lambda: taken.prices[10:] == [20, 21, 22])
        position = taken.events[9].position
        async with taking(readers.signals.follow(position, ALL)) as taken:
            await until("a position of the old topic gives all of the new", lambda: taken.prices == [20, 21, 22])


async def test_who_stays_hears_a_feed_that_is_deleted_and_made_again(kafka_settings: KafkaSettings) -> None:
    kafka = msgspec.structs.replace(kafka_settings, partitions=1)
    feed = FeedKafka("desk/feed", kafka)
    feeds = [feed]
    await ensure_topics(kafka)
    async with running_readers(lambda: list(feeds)) as readers:
        await until("reading began", lambda: reads(readers))
        async with taking(readers.signals.follow("", ALL)) as taken:
            async with signal_writer(kafka) as writer:
                await writer.numbers(0, 10)
            await until("10 signals", lambda: len(taken.events) == 10)
            for number, waited in ((20, False), (30, True)):
                feeds.clear()
                await until("it is left", lambda: not readers.states())
                await delete_topics(kafka, [topics_of(kafka).signals])
                if waited:
                    feeds.append(feed)
                    await until("its topic is waited for", lambda: readers.states() == {"desk/feed": "waiting"})
                await ensure_topics(kafka)
                async with signal_writer(kafka) as writer:
                    await writer.numbers(number, 3)
                if not waited:
                    feeds.append(feed)
                await until("those of the new topic", lambda n=number: taken.prices[-3:] == [n, n + 1, n + 2])  # type: ignore[misc]
        assert taken.prices == [*range(10), 20, 21, 22, 30, 31, 32]


async def test_followers_end_when_the_client_goes(kafka_settings: KafkaSettings) -> None:
    await ensure_topics(kafka_settings)
    async with running_readers(kafka_settings) as readers:
        await until("reading began", lambda: reads(readers))
        async with taking(readers.signals.follow("", ALL)):
            await until("it follows", lambda: readers.signals.followers == 1)
        assert readers.signals.followers == 0
