"""The topic that holds the aggregator's saved states."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, for_code

from chandlery.core.errors import InputError, UnavailableError
from chandlery.core.kafka_ending import end_client
from chandlery.core.kafka_login import kafka_client
from chandlery.core.settings import KafkaSettings
from chandlery.core.topics import AGGREGATOR_CLIENT
from chandlery.core.wire import MAX_RECORD_BYTES

# As for the other topics: beyond what a cluster takes to elect leaders.
_DEADLINE_S: Final = 30.0
_RETRY_S: Final = 0.25
_NO_ERROR: Final = 0
_ALREADY_EXISTS: Final = 36


def changelog_name(kafka: KafkaSettings) -> str:
    """``{prefix}{feed}.aggregator-state``."""
    return f"{kafka.prefix}{kafka.feed}.aggregator-state"


async def ensure_changelog(kafka: KafkaSettings) -> None:
    """Make the compacted topic of saved states where absent.

    Raises:
        InputError: it exists with another number of partitions, or Kafka refuses it.
        UnavailableError: Kafka doesn't answer.
    """
    name = changelog_name(kafka)
    deadline = time.monotonic() + _DEADLINE_S
    while True:
        try:
            have = await _ensure(name, kafka)
        except (KafkaError, OSError) as error:
            if time.monotonic() + _RETRY_S > deadline:
                raise UnavailableError(f"Kafka at {kafka.bootstrap} can't make {name}: {error!r}") from error
        else:
            if have == kafka.partitions:
                return
            if have:
                raise InputError(f"topic {name} has {have} partitions, {kafka.partitions} are wanted")
            if time.monotonic() > deadline:
                raise UnavailableError(f"topic {name} has no leaders after {_DEADLINE_S:g} s")
        await asyncio.sleep(_RETRY_S)


async def _ensure(name: str, kafka: KafkaSettings) -> int:
    """Number of partitions with a leader, 0 while one has none."""
    admin = kafka_client(AIOKafkaAdminClient, kafka, client_id=AGGREGATOR_CLIENT)
    try:
        await admin.start()
        response = await admin.create_topics(
            [NewTopic(name, kafka.partitions, kafka.replication, topic_configs=_config(kafka))]
        )
        for _, code, *message in response.topic_errors:
            if code not in (_NO_ERROR, _ALREADY_EXISTS):
                kind = for_code(code)
                if getattr(kind, "retriable", False):
                    raise kind()
                raise InputError(f"Kafka doesn't make topic {name}: {message[0] if message else kind.__name__}")
        (topic,) = await admin.describe_topics([name])
    finally:
        await end_client(admin)
    partitions = topic["partitions"]
    led = all(entry["leader"] >= 0 for entry in partitions)
    return len(partitions) if led else 0


def _config(kafka: KafkaSettings) -> dict[str, str]:
    return {
        "cleanup.policy": "compact",
        # A state is written twice a second a busy symbol: recovery reads what isn't compacted yet, so small
        # segments, compacted soon.
        "segment.bytes": "16777216",
        "segment.ms": "600000",
        "min.cleanable.dirty.ratio": "0.2",
        "message.timestamp.type": "LogAppendTime",
        "min.insync.replicas": str(kafka.min_insync),
        "max.message.bytes": str(2 * MAX_RECORD_BYTES),
    }
