"""A partition that nobody leads any more is noticed also while records of another come."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError

from chandlery.console.backend import FeedKafka
from chandlery.console.reading import signal_reader
from chandlery.console.reading.kafka_reading import Away
from chandlery.console.reading.signal_log import SignalLog
from chandlery.console.reading.signal_reader import SignalReader
from chandlery.core.errors import UnavailableError
from chandlery.core.settings import KafkaSettings


class HalfLed:
    """A consumer that always has something, of a topic of which a partition has no leader."""

    async def getmany(self, *_: object, **__: object) -> dict[TopicPartition, list[object]]:
        return {TopicPartition("signals", 0): []}

    def highwater(self, _: object) -> None:
        return None

    def assignment(self) -> set[TopicPartition]:
        return {TopicPartition("signals", 0), TopicPartition("signals", 1)}

    async def beginning_offsets(self, _: object) -> dict[TopicPartition, int]:
        raise KafkaConnectionError("no leader")


async def test_a_partition_without_leader_is_noticed_while_records_of_another_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(signal_reader, "LEADER_CHECK_S", 0.0)
    consumer: Any = HalfLed()
    feed = FeedKafka("desk/market", KafkaSettings("127.0.0.1:1", "market"))
    reader = SignalReader(lambda: [feed], SignalLog(10), 10, Away())
    with pytest.raises(UnavailableError):
        async with asyncio.timeout(20):
            await reader._consume(consumer, feed, "signals")
