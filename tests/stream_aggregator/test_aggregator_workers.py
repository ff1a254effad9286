"""Workers that come, go and die share the partitions, and the result stays exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.stream_aggregator.aggregator_market import SESSION, Load, aggregator_settings, check_exact
from tests.stream_aggregator.aggregator_process import AggregatorProcess, Appended

from chandlery.core.settings import KafkaSettings
from chandlery.core.topics import topics_of
from chandlery.stream.broker import EmbeddedBroker
from chandlery.stream.topics import end_offsets, ensure_topics

pytestmark = [pytest.mark.broker, pytest.mark.slow]


def has_partitions(count: int) -> Any:
    return lambda status: status["ready"] and len(status["partitions"]) == count


async def test_partitions_move_to_the_worker_that_is_left_and_stay_exact(
    kafka_settings: KafkaSettings, tmp_path: Path
) -> None:
    kafka = msgspec.structs.replace(kafka_settings, partitions=4)
    await ensure_topics(kafka)
    first = AggregatorProcess(tmp_path / "first", aggregator_settings(kafka))
    second = AggregatorProcess(tmp_path / "second", aggregator_settings(kafka))
    try:
        async with Load(kafka, 1) as load:
            await first.start()
            await first.until(has_partitions(4), "all partitions")
            await second.start()
            await second.until(has_partitions(2), "half of the partitions")
            await first.until(has_partitions(2), "the other half")
            before = (await second.status())["records"]
            await second.until_records(before + 50)
            # Killed: the first takes over when the session of the second ends.
            await second.kill()
            await first.until(has_partitions(4), "all partitions after the kill")
            # Back again, and stopped in order: the partitions go over at once.
            await second.start()
            await second.until(has_partitions(2), "half of the partitions, again")
            assert await second.terminate() == 0, second.log()
            await first.until(has_partitions(4), "all partitions after the stop")
            await load.end()
        await first.until_applied(await end_offsets(kafka, topics_of(kafka).trades))
        assert await first.terminate() == 0, first.log()
    finally:
        await first.kill()
        await second.kill()
    check_exact(load, await Appended.read(kafka, SESSION), first.final()["symbols"])


async def test_a_broker_killed_and_back_loses_nothing(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path / "broker")
    await broker.start()
    kafka = KafkaSettings(broker.bootstrap, "outage", partitions=2)
    await ensure_topics(kafka)
    aggregator = AggregatorProcess(tmp_path / "aggregator", aggregator_settings(kafka))
    try:
        async with Load(kafka, 2) as load:
            await aggregator.start()
            await aggregator.until_records(100)
            broker.kill()
            await broker.wait()
            await broker.start()
            await load.end()
        await aggregator.until_applied(await end_offsets(kafka, topics_of(kafka).trades))
        await aggregator.until(lambda status: bool(status["reconnects"] >= 1), "the broker's return is told")
        assert await aggregator.terminate() == 0, aggregator.log()
        check_exact(load, await Appended.read(kafka, SESSION), aggregator.final()["symbols"])
        assert aggregator.starts == 1, "it reconnected by itself"
    finally:
        await aggregator.kill()
        await broker.stop()
