"""Kafka clients as the feed needs them."""

from __future__ import annotations

import logging
from typing import Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.conn import create_conn

from chandlery.core.broker_watch import BrokerWatch
from chandlery.core.kafka_ending import end_client
from chandlery.core.kafka_login import kafka_client
from chandlery.core.settings import KafkaSettings
from chandlery.core.topics import CANDLES_CLIENT, SIGNALS_CLIENT

#: How long the broker may sit on an empty fetch. A new assignment waits behind a fetch under way, so this is
#: also its worst delay; idle it costs ten small requests a second.
FETCH_WAIT_MS: Final = 100
#: Forming candles that nobody decides on: how long the broker collects them, unless they are this many bytes.
SHOWN_FETCH_WAIT_MS: Final = 50
SHOWN_FETCH_BYTES: Final = 1_000_000
#: A local broker answers within milliseconds and restarts in about 4 s; a request that takes longer than this
#: is given up and sent again.
REQUEST_TIMEOUT_MS: Final = 10_000
#: A flush takes milliseconds when the broker is there; a process has 10 s from SIGTERM to SIGKILL.
_FLUSH_S: Final = 2.0


def quieten_client() -> None:
    """Keep the client library's own log out: it writes several lines for every attempt while a broker is away.

    The feed says once that the broker is gone and once that it is back.
    """
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


def broker_watch(kafka: KafkaSettings) -> BrokerWatch:
    """Whether the broker is there."""
    return BrokerWatch(kafka, create_conn)


def candle_consumer(kafka: KafkaSettings) -> AIOKafkaConsumer:
    """A consumer without group: partitions and positions are the caller's."""
    return kafka_client(
        AIOKafkaConsumer,
        kafka,
        client_id=CANDLES_CLIENT,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=FETCH_WAIT_MS,
        fetch_min_bytes=1,
        request_timeout_ms=REQUEST_TIMEOUT_MS,
        retry_backoff_ms=100,
    )


def forming_consumer(kafka: KafkaSettings, *, urgent: bool) -> AIOKafkaConsumer:
    """A consumer of forming candles.

    Args:
        urgent: whether somebody decides on them. Otherwise they are only shown, and fetched at most 20 times a
            second: a fetch costs the feed and the broker about as much as 50 records do.
    """
    return kafka_client(
        AIOKafkaConsumer,
        kafka,
        client_id=CANDLES_CLIENT,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=FETCH_WAIT_MS if urgent else SHOWN_FETCH_WAIT_MS,
        fetch_min_bytes=1 if urgent else SHOWN_FETCH_BYTES,
        request_timeout_ms=REQUEST_TIMEOUT_MS,
        retry_backoff_ms=100,
    )


def signal_producer(kafka: KafkaSettings) -> AIOKafkaProducer:
    """The producer of signals: idempotent, acknowledged by all in-sync replicas, no linger."""
    return kafka_client(
        AIOKafkaProducer,
        kafka,
        client_id=SIGNALS_CLIENT,
        enable_idempotence=True,
        acks="all",
        linger_ms=0,
        request_timeout_ms=REQUEST_TIMEOUT_MS,
        retry_backoff_ms=100,
    )


def note_producer(kafka: KafkaSettings) -> AIOKafkaProducer:
    """The producer of completions and dead letters: apart, so that they never wait in a signal's way."""
    return kafka_client(
        AIOKafkaProducer,
        kafka,
        acks=1,
        linger_ms=5,
        request_timeout_ms=REQUEST_TIMEOUT_MS,
        retry_backoff_ms=100,
    )


async def stop_quickly(producer: AIOKafkaProducer) -> None:
    """Stop a producer without waiting for a broker that is away: it would flush for ever."""
    await end_client(producer, within_s=_FLUSH_S)
