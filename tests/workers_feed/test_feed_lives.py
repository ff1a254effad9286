"""What closes say of signals on forming candles, from the ring to the topic: once, counted apart, over any restart."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest
from tests.workers_feed.feed_setup import (
    MINUTE,
    api,
    assignment,
    feed_settings,
    make_ring,
    put,
    read_topic,
    running_feed,
    signal,
    trader,
    until,
)
from tests.workers_feed.test_feed_recall import minute_of_now

from chandlery.core import signals as signal_format
from chandlery.core.settings import KafkaSettings
from chandlery.core.signals import Completion, Decided, Life, Signal
from chandlery.core.telemetry.exposition import Labelled
from chandlery.core.topics import topics_of
from chandlery.stream.topics import ensure_topics
from chandlery.workers.feed.metrics import families
from chandlery.workers.feed.newest_signals import NewestSignals
from chandlery.workers.segment import SignalRing

pytestmark = pytest.mark.broker
BTC = "BTC/USDT"


def push(ring: SignalRing, *items: Signal | Decided) -> None:
    for item in items:
        assert ring.push(signal_format.encode(item))


def decided(number: int) -> Decided:
    return Decided("desk/a", "c", BTC, "1m", number, 0, incarnation=1, at_wall_ms=900 + number)


async def on_topic(kafka: KafkaSettings) -> list[Signal | Life]:
    records = [signal_format.decode_record(value) for value in await read_topic(kafka, topics_of(kafka).signals)]
    return [record for record in records if not isinstance(record, Completion)]


def told(records: list[Signal | Life]) -> list[tuple[str, str]]:
    number = {signal("a", at).id: str(at) for at in range(1, 5)}
    return [("signal" if isinstance(one, Signal) else one.state, number[one.id]) for one in records]


async def test_what_closes_say_stands_on_the_topic_behind_its_signals_and_counts_as_no_signal(
    tmp_path: Path, kafka_settings: KafkaSettings
) -> None:
    await ensure_topics(kafka_settings)
    settings = feed_settings(tmp_path, kafka_settings)
    async with running_feed(settings) as feed, api(settings) as client:
        await put(client, assignment(1, trader("a", [BTC])))
        ring = make_ring(settings, "a")
        push(ring, signal("a", 1, forming=True), signal("a", 2, forming=True))
        push(ring, signal("a", 1, emitted_wall_ms=77), decided(1), decided(2), decided(1), signal("a", 3))
        await until("drained", lambda: ring.depth == 0)
        status = feed.status()
        assert status.feed["signals"] == {"emitted": 3, "published": 3, "unique": 3, "dropped": {}}
        assert status.feed["lives"] == {"confirmed": 1, "invalidated": 1, "fenced": 0, "incomplete": 0, "forgotten": 0}
        newest = [(one["signal"].id, one["word"] and one["word"].state) for one in feed.signals(10)]
        assert newest == [
            (signal("a", 3).id, None), (signal("a", 2).id, "invalidated"), (signal("a", 1).id, "confirmed")
        ]  # fmt: skip
        assert [(one["signal"].id) for one in feed.signals(2)] == [identity for identity, _ in newest[:2]]
        figures = {
            sample.labels["state"]: sample.value
            for family in families(status, feed.latency, Labelled(10))
            for sample in family.samples
            if sample.name == "chandlery_feed_signal_lives_total"
        }
        assert figures == {"confirmed": 1, "invalidated": 1, "fenced": 0, "incomplete": 0, "forgotten": 0}
    records = await on_topic(kafka_settings)
    assert told(records) == [
        ("signal", "1"), ("signal", "2"), ("confirmed", "1"), ("invalidated", "2"), ("signal", "3")
    ]  # fmt: skip
    words = [record for record in records if isinstance(record, Life)]
    assert [(word.symbol, word.open_time_ms, word.at_wall_ms) for word in words] == [(BTC, 1, 77), (BTC, 2, 902)]


def test_the_newest_signals_are_bounded_and_know_a_word_that_was_acknowledged_before_its_signal() -> None:
    newest = NewestSignals(2)
    words = [Life(signal("a", at).id, "desk/a", BTC, "confirmed", at, 100 * at) for at in range(1, 6)]
    for word in words[1:4]:
        newest.hear(word)  # of the first of these there was no room left
    for at in range(1, 5):
        newest.add(signal("a", at), Completion(signal("a", at).id, "desk/a", 1, 1))
    newest.hear(words[0])
    newest.hear(msgspec.structs.replace(words[3], state="invalidated"))
    assert [(one.signal.open_time_ms, one.word) for one in newest.newest(5)] == [(4, words[3]), (3, words[2])]
    assert [one.signal.open_time_ms for one in newest.newest(1)] == [4]
    assert newest.newest(0) == []


@pytest.mark.parametrize("lost", ["feed", "pod"])
async def test_the_feed_that_comes_after_knows_what_waits_for_its_close_from_the_topic(
    tmp_path: Path, kafka_settings: KafkaSettings, lost: str
) -> None:
    await ensure_topics(kafka_settings)
    settings = feed_settings(tmp_path, kafka_settings)
    own = trader("a", [BTC], signal_ttl_ms=10 * MINUTE, since_ms=(minute_of_now() - 5) * MINUTE)
    async with running_feed(settings), api(settings) as client:
        await put(client, assignment(1, own))
        ring = make_ring(settings, "a")
        push(ring, *(signal("a", at, forming=True) for at in (1, 2, 3)), signal("a", 3), decided(3))
        await until("drained", lambda: ring.depth == 0)
    if lost == "pod":
        ring.close()
        shutil.rmtree(settings.rings_dir)
    async with running_feed(settings) as feed, api(settings) as client:
        if lost == "pod":
            await put(client, assignment(1, own))
            ring = make_ring(settings, "a")
        push(ring, signal("a", 1), *map(decided, (1, 2, 3)))
        await until("drained", lambda: ring.depth == 0)
        assert feed.status().feed["lives"] == {
            "confirmed": 1,
            "invalidated": 1,
            "fenced": 0,
            "incomplete": 0,
            "forgotten": 0,
        }
        assert feed.status().feed["signals"]["emitted"] == 0
    assert told(await on_topic(kafka_settings)) == [
        *(("signal", at) for at in "123"), ("confirmed", "3"), ("confirmed", "1"), ("invalidated", "2")
    ]  # fmt: skip
