"""Topics on the real broker: settings, idempotence, refusals, append time."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from chandlery.core.errors import InputError, UnavailableError
from chandlery.core.settings import KafkaSettings
from chandlery.core.topics import topics_of
from chandlery.core.wire import MAX_RECORD_BYTES
from chandlery.stream.broker_ports import ephemeral_port
from chandlery.stream.topics import delete_topics, end_offsets, ensure_topics, plan_topics


async def _settings_of(bootstrap: str, topic: str) -> dict[str, str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        (response,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        return {entry[0]: entry[1] for entry in response.resources[0][4]}
    finally:
        await admin.close()


#: What a topic has by its kind: how long records are kept, and when a segment ends so that a whole one can be deleted. By
#: value, each another one: what the code plans is what is held here.
_KEPT: Final = {
    "trades": ("7200000", "1800000"),
    "candles-live": ("480000", "120000"),
    "candles-fast": ("3600000", "900000"),
    "candles": ("864000000", "86400000"),
    "trades-late": ("7200000", "1800000"),
    "dead-letters": ("28800000", "7200000"),
    "signals": ("28800000", "7200000"),
}
#: And what all have.
_OF_EVERY_TOPIC: Final = {
    "cleanup.policy": "delete",
    "message.timestamp.type": "LogAppendTime",
    "min.insync.replicas": "1",
    "max.message.bytes": "1114112",  # a record's value of 1 MiB, and 64 KiB for what is around it
    "unclean.leader.election.enable": "false",
}
_HOUR_MS: Final = 3_600_000


def _of_distinct_retentions(kafka: KafkaSettings) -> KafkaSettings:
    return msgspec.structs.replace(
        kafka,
        partitions=3,
        retention_trades_ms=2 * _HOUR_MS,
        retention_live_ms=480_000,
        retention_fast_ms=_HOUR_MS,
        retention_closed_ms=240 * _HOUR_MS,
        retention_signals_ms=8 * _HOUR_MS,
    )


@pytest.mark.broker
async def test_every_topic_is_there_with_its_settings(kafka_settings: KafkaSettings) -> None:
    kafka = _of_distinct_retentions(kafka_settings)
    await ensure_topics(kafka)
    assert sorted(topics_of(kafka)) == sorted(f"{kafka.prefix}{kafka.feed}.{kind}" for kind in _KEPT)
    for kind, (retention_ms, segment_ms) in _KEPT.items():
        topic = f"{kafka.prefix}{kafka.feed}.{kind}"
        assert await end_offsets(kafka, topic) == {0: 0, 1: 0, 2: 0}, kind
        have = await _settings_of(kafka.bootstrap, topic)
        wanted = {**_OF_EVERY_TOPIC, "retention.ms": retention_ms, "segment.ms": segment_ms}
        assert {name: have[name] for name in wanted} == wanted, kind


def test_replicas_are_what_the_feed_asks_for_and_no_write_counts_with_fewer_in_sync() -> None:
    # Planned alone: one broker can't have three.
    kafka = KafkaSettings("none:1", "f", partitions=5, replication=3, min_insync=2)
    plans = plan_topics(kafka)
    assert [plan.name for plan in plans] == list(topics_of(kafka))
    for plan in plans:
        assert (plan.partitions, plan.replication) == (5, 3), plan.name
        # Said of each topic, though this broker has some of it as its own default: another one may not.
        wanted = {**_OF_EVERY_TOPIC, "min.insync.replicas": "2"}
        assert {name: plan.config.get(name) for name in wanted} == wanted, plan.name


def test_without_a_word_records_are_kept_by_their_topics_use() -> None:
    plans = {
        plan.name.rpartition(".")[2]: int(plan.config["retention.ms"])
        for plan in plan_topics(KafkaSettings("n:1", "f"))
    }
    day_ms = 24 * _HOUR_MS
    assert plans == {
        "trades": 3 * day_ms,
        "candles-live": 600_000,
        "candles-fast": day_ms,
        "candles": 180 * day_ms,
        "trades-late": 3 * day_ms,
        "dead-letters": 30 * day_ms,
        "signals": 30 * day_ms,
    }


@pytest.mark.broker
async def test_ensuring_topics_again_changes_nothing(kafka_settings: KafkaSettings) -> None:
    await ensure_topics(kafka_settings)
    trades = topics_of(kafka_settings).trades
    producer = AIOKafkaProducer(bootstrap_servers=kafka_settings.bootstrap)
    await producer.start()
    await producer.send_and_wait(trades, b"kept", partition=0)
    await producer.stop()
    await ensure_topics(kafka_settings)
    assert (await end_offsets(kafka_settings, trades))[0] == 1


@pytest.mark.broker
async def test_another_partition_count_is_refused_by_a_sentence_with_the_way_out(
    kafka_settings: KafkaSettings,
) -> None:
    await ensure_topics(kafka_settings)
    with pytest.raises(InputError) as caught:
        await ensure_topics(msgspec.structs.replace(kafka_settings, partitions=7))
    assert f"topic {topics_of(kafka_settings).trades} has 4 partitions, 7 are wanted" in str(caught.value)
    assert "set partitions to 4" in str(caught.value)


@pytest.mark.broker
async def test_a_replication_that_the_cluster_cannot_give_is_refused(kafka_settings: KafkaSettings) -> None:
    with pytest.raises(InputError, match=r"(?i)replication"):
        await ensure_topics(msgspec.structs.replace(kafka_settings, replication=3))


@pytest.mark.broker
async def test_a_differing_setting_of_an_existing_topic_is_kept_and_logged(
    kafka_settings: KafkaSettings, caplog: pytest.LogCaptureFixture
) -> None:
    await ensure_topics(kafka_settings)
    with caplog.at_level(logging.WARNING, logger="chandlery.topics"):
        await ensure_topics(msgspec.structs.replace(kafka_settings, retention_signals_ms=123_456))
    topic = topics_of(kafka_settings).signals
    told = [vars(record) for record in caplog.records if vars(record).get("topic") == topic]
    assert ("retention.ms", "123456") in [(entry["setting"], entry["want"]) for entry in told]
    assert (await _settings_of(kafka_settings.bootstrap, topic))["retention.ms"] == str(
        kafka_settings.retention_signals_ms
    )


@pytest.mark.broker
async def test_records_bear_the_time_of_appending_and_not_the_one_given(kafka_settings: KafkaSettings) -> None:
    await ensure_topics(kafka_settings)
    trades = topics_of(kafka_settings).trades
    producer = AIOKafkaProducer(bootstrap_servers=kafka_settings.bootstrap)
    await producer.start()
    before_ms = time.time_ns() // 1_000_000
    told = await producer.send_and_wait(trades, b"of 2024", partition=0, timestamp_ms=1_710_000_000_000)
    after_ms = time.time_ns() // 1_000_000
    await producer.stop()
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka_settings.bootstrap)
    await consumer.start()
    partition = TopicPartition(trades, 0)
    consumer.assign([partition])
    await consumer.seek_to_beginning(partition)
    record = await consumer.getone()
    await consumer.stop()
    assert before_ms <= record.timestamp <= after_ms
    assert record.timestamp_type == 1
    assert (told.timestamp, told.timestamp_type) == (record.timestamp, 1)


@pytest.mark.broker
async def test_the_longest_record_fits(kafka_settings: KafkaSettings) -> None:
    await ensure_topics(kafka_settings)
    signals = topics_of(kafka_settings).signals
    producer = AIOKafkaProducer(bootstrap_servers=kafka_settings.bootstrap, max_request_size=2 * MAX_RECORD_BYTES)
    await producer.start()
    await producer.send_and_wait(
        signals, bytes(MAX_RECORD_BYTES), key=b"BTC/USDT", partition=1, headers=[("stamps", bytes(84))]
    )
    await producer.stop()
    assert (await end_offsets(kafka_settings, signals))[1] == 1


@pytest.mark.broker
async def test_a_consumer_group_with_the_aggregators_short_session_is_taken(kafka_settings: KafkaSettings) -> None:
    await ensure_topics(kafka_settings)
    trades = topics_of(kafka_settings).trades
    consumer = AIOKafkaConsumer(
        trades,
        bootstrap_servers=kafka_settings.bootstrap,
        group_id=kafka_settings.feed,
        session_timeout_ms=3_000,
        heartbeat_interval_ms=500,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    producer = AIOKafkaProducer(bootstrap_servers=kafka_settings.bootstrap, transactional_id=kafka_settings.feed)
    await producer.start()
    async with producer.transaction():
        await producer.send_and_wait(trades, b"to the group", partition=3)
    record = await asyncio.wait_for(consumer.getone(), 30)
    await consumer.commit()
    await producer.stop()
    await consumer.stop()
    assert (record.partition, record.value) == (3, b"to the group")


@pytest.mark.broker
async def test_deleted_topics_are_gone_and_deleting_them_again_is_no_error(kafka_settings: KafkaSettings) -> None:
    await ensure_topics(kafka_settings)
    await delete_topics(kafka_settings, topics_of(kafka_settings))
    with pytest.raises(InputError, match="has no topic"):
        await end_offsets(kafka_settings, topics_of(kafka_settings).trades)
    await delete_topics(kafka_settings, topics_of(kafka_settings))


@pytest.mark.broker
async def test_a_topic_that_another_made_with_too_few_partitions_is_found_out(kafka_settings: KafkaSettings) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_settings.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topics_of(kafka_settings).candles, 1, 1)])
    await admin.close()
    with pytest.raises(InputError, match=r"candles has 1 partitions, 4 are wanted"):
        await ensure_topics(kafka_settings)


async def test_a_broker_that_is_not_there_is_unavailable_with_its_address() -> None:
    bootstrap = f"127.0.0.1:{ephemeral_port()}"
    with pytest.raises(UnavailableError, match=bootstrap):
        await ensure_topics(KafkaSettings(bootstrap=bootstrap, feed="nowhere"), deadline_s=0.5)
    with pytest.raises(UnavailableError, match=bootstrap):
        await end_offsets(KafkaSettings(bootstrap, "any"), "nothing")
    with pytest.raises(UnavailableError, match=bootstrap):
        await delete_topics(KafkaSettings(bootstrap, "any"), ["nothing"])
