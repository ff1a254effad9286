"""The readers as a whole: figures, defects, what they load, and how they end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Sequence

import pytest
from tests.console_reading.reading_setup import ALL, reads, running_readers, signal_number, signal_writer, taking
from tests.workers_feed.feed_setup import until

from chandlery.console.backend import FeedKafka
from chandlery.console.market import Market, Signals
from chandlery.console.reading import readers as readers_module
from chandlery.core.settings import KafkaSettings
from chandlery.stream.topics import ensure_topics


async def test_they_are_what_the_api_asks_for() -> None:
    async with running_readers(list) as readers:
        signals: Signals = readers.signals
        market: Market = readers.market
        assert signals.page(ALL) == ([], "")
        assert market.newest_age_ms("desk/a") is None


@pytest.mark.broker
async def test_figures_tell_what_is_read_and_by_how_many(kafka_settings: KafkaSettings) -> None:
    await ensure_topics(kafka_settings)
    async with signal_writer(kafka_settings) as writer, running_readers(kafka_settings) as readers:
        await until("reading began", lambda: reads(readers))
        async with taking(readers.signals.follow("", ALL)) as taken:
            await writer.write(signal_number(0), signal_number(0))
            await until("the signal", lambda: taken.events)
            samples = {
                (sample.name, *sample.labels.values()): sample.value
                for family in readers.families()
                for sample in family.samples
            }
    assert samples["chandlery_console_signals_kept",] == 1
    assert samples["chandlery_console_signal_followers",] == 1
    assert samples["chandlery_console_signal_records_total", "signals"] >= 1
    assert samples["chandlery_console_feeds", "reading"] == 1
    assert samples["chandlery_console_topics_away",] == 0


async def test_a_reader_that_ends_by_a_defect_is_named_and_begins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers_module, "_DEFECT_PAUSE_S", 0.2)
    broken = True

    def kafkas() -> Sequence[FeedKafka]:
        if broken:
            raise ZeroDivisionError("oh")
        return [FeedKafka("desk/a", KafkaSettings(bootstrap="127.0.0.1:1", feed="a"))]

    async with running_readers(kafkas) as readers:
        sentences = await until("both readers are named", lambda: len(readers.away()) == 2 and readers.away())
        assert "the reader of candles ended by a defect: ZeroDivisionError: oh" in sentences
        broken = False
        await until("they have begun again", lambda: readers.states() == {"desk/a": "connecting"})
        await until("it is Kafka that is away now", lambda: [one for one in readers.away() if "127.0.0.1:1" in one])


async def test_readers_without_a_kafka_say_so_and_end_leaving_nothing_behind() -> None:
    before = asyncio.all_tasks()
    async with running_readers(KafkaSettings(bootstrap="127.0.0.1:1", feed="a")) as readers:
        sentences = await until("it is said", readers.away)
        assert len(sentences) == 1  # not one a topic
        assert "127.0.0.1:1 doesn't answer" in sentences[0]
        assert readers.signals.page(ALL) == ([], "")
        assert readers.signals.per_minute() == 0
    await until("no task is left", lambda: asyncio.all_tasks() == before)


def test_the_views_of_the_command_line_load_neither_the_readers_nor_their_libraries() -> None:
    code = (
        "import sys, chandlery.console.tables, chandlery.console.live, chandlery.console.cluster; "
        "print([name for name in ('aiokafka', 'fastapi', 'chandlery.console.reading') if name in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"
