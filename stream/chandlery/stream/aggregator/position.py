"""Records strictly one offset after the other, whatever the consumer does at a rebalance.

Faust acknowledges records that it skips, and forgets what it fetched while its flow was suspended. So the
position isn't left to it: a record behind it is a repetition, one ahead of it shows a hole, and then the
broker is asked what comes next.
"""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from chandlery.core.errors import UnavailableError
from chandlery.core.kafka_ending import end_client
from chandlery.core.kafka_login import kafka_client
from chandlery.core.settings import KafkaSettings

# The record that showed the hole is there, so the probe has something to read: a fetch takes milliseconds.
# Beyond the wait of a broker's restart after SIGKILL (5 s) something is wrong.
_PROBE_S: Final = 15.0
# After a seek the buffers still hold what was fetched before it: a full one drains within a second.
_SEEK_S: Final = 2.0


class Verdict(Enum):
    """What to do with a record."""

    NEXT = auto()
    REPEATED = auto()
    AHEAD = auto()


class SeekPatience:
    """Remembers that a seek is under way, so that what was buffered before it is dropped without more ado."""

    def __init__(self) -> None:
        self._until: dict[int, float] = {}

    def sought(self, partition: int, now_s: float) -> None:
        """A seek of ``partition`` was asked for."""
        self._until[partition] = now_s + _SEEK_S

    def waiting(self, partition: int, now_s: float) -> bool:
        """Whether records ahead of the position may still be leftovers from before a seek."""
        return now_s < self._until.get(partition, 0.0)

    def arrived(self, partition: int) -> None:
        """The record sought is there."""
        self._until.pop(partition, None)


def judge(offset: int, next_offset: int) -> Verdict:
    """What to do with the record at ``offset`` when ``next_offset`` is the next to apply."""
    if offset == next_offset:
        return Verdict.NEXT
    return Verdict.REPEATED if offset < next_offset else Verdict.AHEAD


async def next_existing_offset(kafka: KafkaSettings, topic: str, partition: int, offset: int) -> int:
    """Offset of the first record at or after ``offset`` that the broker has; there must be one.

    Raises:
        UnavailableError: no answer in time.
    """
    consumer = kafka_client(
        AIOKafkaConsumer, kafka, enable_auto_commit=False, auto_offset_reset="earliest", max_poll_records=1
    )
    try:
        async with asyncio.timeout(_PROBE_S):
            await consumer.start()
            tp = TopicPartition(topic, partition)
            consumer.assign([tp])
            consumer.seek(tp, offset)
            record = await consumer.getone(tp)
    except (KafkaError, TimeoutError) as error:
        raise UnavailableError(f"{topic} {partition}: can't read from offset {offset}: {error!r}") from error
    finally:
        await end_client(consumer)
    found: int = record.offset
    return found
