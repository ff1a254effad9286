"""Topics made explicitly: partitions, replication, retention and time stamps as Chandlery needs them.

All topics stamp ``LogAppendTime``: event times stand in the values, and a replayed capture of years ago must
not be retained away. None is compacted: a reader catches up by offset, and every record counts.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.conn import create_conn
from aiokafka.errors import KafkaError, for_code

from chandlery.core.errors import InputError, LoginError, UnavailableError
from chandlery.core.kafka_ending import end_client
from chandlery.core.kafka_login import kafka_client, knock
from chandlery.core.settings import KafkaSettings
from chandlery.core.topics import topics_of
from chandlery.stream.broker_config import MAX_MESSAGE_BYTES

# A broker that was killed is back within 4 s; a cluster elects leaders within 10–20 s. Beyond that the
# caller had better say so, and try again by its own rhythm.
DEADLINE_S: Final = 30.0
_POLL_S: Final = 0.05
_RETRY_S: Final = 0.25
_REQUEST_TIMEOUT_MS: Final = 5_000
# An offset is told within milliseconds, after a broker's restart within 5 s; the client itself would ask for 40 s.
_OFFSETS_S: Final = 15.0

_NO_ERROR: Final = 0
_UNKNOWN_TOPIC: Final = 3
# A new topic's, or a restarted broker's: the partitions are named all the same.
_NO_LEADER_YET: Final = 5
_ALREADY_EXISTS: Final = 36
_MINUTE_MS: Final = 60_000
_DAY_MS: Final = 86_400_000

log = logging.getLogger("chandlery.topics")


class TopicPlan(NamedTuple):
    """One topic as it shall be. ``config``: Kafka's topic settings, as text."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str]


def plan_topics(kafka: KafkaSettings) -> list[TopicPlan]:
    """What a feed's topics shall be."""
    names = topics_of(kafka)
    retention_ms = {
        names.trades: kafka.retention_trades_ms,
        names.candles_live: kafka.retention_live_ms,
        names.candles_fast: kafka.retention_fast_ms,
        names.candles: kafka.retention_closed_ms,
        names.trades_late: kafka.retention_trades_ms,
        # Dead letters are evidence: kept as long as what people look back at.
        names.dead_letters: kafka.retention_signals_ms,
        names.signals: kafka.retention_signals_ms,
    }
    return [
        TopicPlan(name, kafka.partitions, kafka.replication, _config(retention_ms[name], kafka.min_insync))
        for name in names
    ]


def _config(retention_ms: int, min_insync: int) -> dict[str, str]:
    # Kafka deletes whole segments: with four to a retention period at most a quarter too much is kept.
    segment_ms = min(max(retention_ms // 4, _MINUTE_MS), _DAY_MS)
    return {
        "cleanup.policy": "delete",
        "retention.ms": str(retention_ms),
        "segment.ms": str(segment_ms),
        "message.timestamp.type": "LogAppendTime",
        "min.insync.replicas": str(min_insync),
        "max.message.bytes": str(MAX_MESSAGE_BYTES),
        "unclean.leader.election.enable": "false",
    }


async def ensure_topics(kafka: KafkaSettings, *, deadline_s: float = DEADLINE_S) -> None:
    """Make a feed's topics where absent, and wait until every partition has a leader; safe to repeat.

    What exists keeps its settings: another retention may be its administrator's will, and is logged.

    Raises:
        InputError: an existing topic has another number of partitions, or Kafka refuses what is asked for.
        LoginError: Kafka isn't trusted, or doesn't let us in; at once.
        UnavailableError: Kafka doesn't answer, or has no leaders, within ``deadline_s``.
    """
    plans = plan_topics(kafka)
    deadline = time.monotonic() + deadline_s
    while True:
        try:
            async with _admin(kafka) as admin:
                await _create(admin, plans)
                await _await_leaders(admin, plans, deadline)
                await _report_differences(admin, plans)
            return
        except (KafkaError, OSError, _NotYet) as error:
            if time.monotonic() + _RETRY_S > deadline:
                raise UnavailableError(
                    f"Kafka at {kafka.bootstrap} doesn't serve its topics within {deadline_s:g} s ({_text(error)}): "
                    "is it running, and is the address right?"
                ) from error
        await asyncio.sleep(_RETRY_S)


async def end_offsets(kafka: KafkaSettings, topic: str) -> dict[int, int]:
    """End offset (that of the next record) of each partition of a topic.

    Raises:
        InputError: there is no such topic.
        UnavailableError: Kafka doesn't answer.
    """
    try:
        async with _admin(kafka) as admin:
            partitions = (await _partitions(admin, [topic])).get(topic)
        if partitions is None:
            raise InputError(f"Kafka at {kafka.bootstrap} has no topic {topic}")
        consumer = kafka_client(AIOKafkaConsumer, kafka, enable_auto_commit=False)
        try:
            async with asyncio.timeout(_OFFSETS_S):
                await consumer.start()
                offsets = await consumer.end_offsets([TopicPartition(topic, number) for number in partitions])
        finally:
            await end_client(consumer)
    except (KafkaError, OSError, TimeoutError, _NotYet) as error:
        raise UnavailableError(f"Kafka at {kafka.bootstrap} doesn't answer: {_text(error)}") from error
    return {partition.partition: offset for partition, offset in sorted(offsets.items())}


async def partitions_of(kafka: KafkaSettings, topic: str) -> list[int]:
    """Numbers of a topic's partitions; none: there is no such topic (and asking makes none).

    Raises:
        UnavailableError: Kafka doesn't answer, or (LoginError) doesn't let us in.
    """
    try:
        async with _admin(kafka) as admin:
            return sorted((await _partitions(admin, [topic])).get(topic, ()))
    except (KafkaError, OSError, _NotYet) as error:
        raise UnavailableError(f"Kafka at {kafka.bootstrap} doesn't answer: {_text(error)}") from error


async def delete_topics(kafka: KafkaSettings, names: Iterable[str], *, deadline_s: float = DEADLINE_S) -> None:
    """Delete topics with all they hold, and wait until they are gone; absent ones are no error.

    Raises:
        InputError: Kafka refuses.
        UnavailableError: Kafka doesn't answer, or they are still there after ``deadline_s``.
    """
    wanted = list(names)
    deadline = time.monotonic() + deadline_s
    try:
        async with _admin(kafka) as admin:
            response = await admin.delete_topics(wanted)
            for name, code in response.topic_error_codes:
                if code not in (_NO_ERROR, _UNKNOWN_TOPIC):
                    _refused(f"delete topic {name}", code, "")
            while await _partitions(admin, wanted):
                if time.monotonic() > deadline:
                    raise UnavailableError(
                        f"Kafka at {kafka.bootstrap} still has {', '.join(wanted)} after {deadline_s:g} s"
                    )
                await asyncio.sleep(_POLL_S)
    except (KafkaError, OSError, _NotYet) as error:
        raise UnavailableError(f"Kafka at {kafka.bootstrap} doesn't answer: {_text(error)}") from error


async def check_login(kafka: KafkaSettings) -> None:
    """Connect once as every client does.

    Raises:
        LoginError: Kafka isn't trusted, or doesn't let us in, or a Secret is missing: says which, and what to mend.
        UnavailableError: no broker answers.
    """
    connection = await knock(create_conn, kafka, client_id="chandlery-topics", request_timeout_ms=_REQUEST_TIMEOUT_MS)
    connection.close()


async def _entered(kafka: KafkaSettings) -> None:
    """Connect once: aiokafka itself only logs why it can't, and for each refused connection an error.

    Raises:
        LoginError: see :func:`check_login`.
    """
    try:
        await check_login(kafka)
    except LoginError:
        raise
    except UnavailableError as error:
        raise _NotYet(str(error)) from error


class _NotYet(Exception):
    """Kafka can't yet; asking again may help."""


@asynccontextmanager
async def _admin(kafka: KafkaSettings) -> AsyncIterator[AIOKafkaAdminClient]:
    await _entered(kafka)
    admin = kafka_client(
        AIOKafkaAdminClient, kafka, client_id="chandlery-topics", request_timeout_ms=_REQUEST_TIMEOUT_MS
    )
    try:
        await admin.start()
        yield admin
    finally:
        await end_client(admin)


async def _create(admin: AIOKafkaAdminClient, plans: list[TopicPlan]) -> None:
    have = await _partitions(admin, [plan.name for plan in plans])
    for plan in plans:
        if plan.name in have:
            _check_partitions(plan, len(have[plan.name]))
    absent = [plan for plan in plans if plan.name not in have]
    if not absent:
        return
    response = await admin.create_topics(
        [NewTopic(plan.name, plan.partitions, plan.replication, topic_configs=dict(plan.config)) for plan in absent]
    )
    for name, code, *message in response.topic_errors:
        # Somebody else made it between our question and our request: their count is checked like any other.
        if code not in (_NO_ERROR, _ALREADY_EXISTS):
            _refused(f"create topic {name}", code, message[0] if message else "")


def _check_partitions(plan: TopicPlan, have: int) -> None:
    if have != plan.partitions:
        raise InputError(
            f"topic {plan.name} has {have} partitions, {plan.partitions} are wanted: set partitions to {have}, or "
            "use another feed name or prefix, or delete the topic if its records may go"
        )


def _refused(what: str, code: int, message: str) -> None:
    kind = for_code(code)
    text = f"Kafka doesn't {what}: {message or kind.__name__}"
    if getattr(kind, "retriable", False):
        raise _NotYet(text)
    raise InputError(text)


async def _partitions(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, dict[int, int]]:
    """Leader (-1: none) of each partition of those of ``names`` that exist."""
    found: dict[str, dict[int, int]] = {}
    for topic in await admin.describe_topics(names):
        code: int = topic["error_code"]
        if code == _UNKNOWN_TOPIC:
            continue
        if code not in (_NO_ERROR, _NO_LEADER_YET):
            _refused(f"describe topic {topic['topic']}", code, "")
        found[topic["topic"]] = {entry["partition"]: entry["leader"] for entry in topic["partitions"]}
    return found


async def _await_leaders(admin: AIOKafkaAdminClient, plans: list[TopicPlan], deadline: float) -> None:
    while True:
        found = await _partitions(admin, [plan.name for plan in plans])
        for plan in plans:
            if found.get(plan.name):
                _check_partitions(plan, len(found[plan.name]))
        if all(found.get(plan.name) and min(found[plan.name].values()) >= 0 for plan in plans):
            return
        if time.monotonic() > deadline:
            raise _NotYet("topics without a leader")
        await asyncio.sleep(_POLL_S)


async def _report_differences(admin: AIOKafkaAdminClient, plans: list[TopicPlan]) -> None:
    resources = [ConfigResource(ConfigResourceType.TOPIC, plan.name) for plan in plans]
    have: dict[str, dict[str, str]] = {}
    for response in await admin.describe_configs(resources):
        for _code, _message, _kind, name, entries in response.resources:
            have[name] = {entry[0]: entry[1] for entry in entries}
    for plan in plans:
        for setting, want in plan.config.items():
            found = have.get(plan.name, {}).get(setting)
            if found is not None and found != want:
                log.warning(
                    "topic keeps another setting than asked for",
                    extra={"topic": plan.name, "setting": setting, "have": found, "want": want},
                )


def _text(error: Any) -> str:
    return str(error) or type(error).__name__
