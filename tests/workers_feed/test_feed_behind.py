"""How far aggregator and feed are behind what Kafka has, by the age of what waits; without Kafka."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from aiokafka import TopicPartition

from chandlery.core.settings import AggregatorSettings, KafkaSettings
from chandlery.stream.aggregator.service import Aggregator
from chandlery.workers.feed.consumer import LiveConsumer
from chandlery.workers.feed.positions import LivePositions

FAST, LIVE = TopicPartition("f.candles-fast", 0), TopicPartition("f.candles-live", 0)
AGO_S = 30


def ago_ms(seconds: float) -> int:
    return int((time.time() - seconds) * 1000)


def following(ends: dict[TopicPartition, int]) -> tuple[LiveConsumer, dict[TopicPartition, int]]:
    """A live consumer of two partitions that end there."""
    positions = LivePositions()
    for tp in ends:
        positions.add(tp, 0)
    anything: Any = SimpleNamespace()
    live = LiveConsumer(
        anything, positions, anything, anything, anything, Counter(), live_topic=LIVE.topic, after_batch=lambda: None
    )
    live._client = SimpleNamespace(assignment=lambda: set(ends), highwater=ends.get)
    return live, ends


def took(live: LiveConsumer, tp: TopicPartition, *, offset: int, appended_s: float) -> None:
    record: Any = SimpleNamespace(offset=offset, timestamp=ago_ms(appended_s))
    live._advance(tp, [record])


def test_a_feed_is_as_far_behind_as_the_slower_of_its_partitions() -> None:
    live, ends = following({FAST: 10, LIVE: 1})
    took(live, FAST, offset=4, appended_s=AGO_S)
    took(live, LIVE, offset=0, appended_s=0)
    assert live.behind() == 5
    assert AGO_S - 1 < live.behind_ms() / 1000 < AGO_S + 10
    took(live, FAST, offset=9, appended_s=0)
    for _ in range(2):
        live.each_second()
    assert (live.behind(), live.behind_ms()) == (0, 0)
    ends[FAST] = 11
    assert live.behind_ms() < 10_000, "what came just now hasn't waited since the last one"


def test_a_feed_without_a_client_or_a_partition_says_nothing_of_what_it_knew() -> None:
    live, ends = following({FAST: 10})
    took(live, FAST, offset=4, appended_s=AGO_S)
    live._client = None
    assert live.behind_ms() == 0, "that Kafka is away is told elsewhere"
    live.each_second()
    live._client = SimpleNamespace(assignment=lambda: set(ends), highwater=ends.get)
    assert live.behind_ms() == 0, "a partition that was given up and taken up again begins anew"


async def test_an_aggregator_is_as_far_behind_as_the_slowest_of_its_partitions(tmp_path: Path) -> None:
    aggregator = Aggregator(AggregatorSettings(KafkaSettings("nowhere:1", "f"), ["1s"], "127.0.0.1:0", str(tmp_path)))
    ends = {0: 10, 1: 1}
    faust: Any = SimpleNamespace(end_offset=ends.get)
    aggregator._faust = faust

    async def apply(number: int, *, offset: int, appended_s: float) -> None:
        state: Any = SimpleNamespace(partition=number, next_offset=offset, is_dirty=False)

        def take(at: int, key: bytes, value: bytes) -> list[Any]:
            state.next_offset = at + 1
            return []

        state.take = take
        aggregator._partitions[number] = state
        record: Any = SimpleNamespace(
            partition=number, offset=offset, key=b"", value=b"", timestamp=time.time() - appended_s, headers={}
        )
        await aggregator._apply(record, state)

    await apply(0, offset=4, appended_s=AGO_S)
    await apply(1, offset=0, appended_s=0)
    assert aggregator._lag() == 5
    assert AGO_S - 1 < aggregator._behind_ms() / 1000 < AGO_S + 10, "a record's time is rounded to whole milliseconds"
    await apply(0, offset=9, appended_s=0)
    for _ in range(2):
        aggregator._look_behind()
    assert (aggregator._lag(), aggregator._behind_ms()) == (0, 0)
    await apply(0, offset=9, appended_s=AGO_S)
    await aggregator._on_revoked()
    assert aggregator._behind_ms() == 0, "another's partitions are another's"
