"""Kafka clients as the feed needs them, and whether the broker is there."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.conn import AIOKafkaConnection, create_conn

from chandlery.core.errors import LoginError, UnavailableError
from chandlery.core.kafka_ending import end_client
from chandlery.core.kafka_login import addresses_of, kafka_client, knock
from chandlery.core.settings import KafkaSettings
from chandlery.core.topics import CANDLES_CLIENT, SIGNALS_CLIENT

log = logging.getLogger("chandlery.feed.broker")

#: How long the broker may sit on an empty fetch. A new assignment waits behind a fetch under way, so this is
#: also its worst delay; idle it costs ten small requests a second.
FETCH_WAIT_MS: Final = 100
#: Forming candles that nobody decides on: how long the broker collects them, unless they are this many bytes.
SHOWN_FETCH_WAIT_MS: Final = 50
SHOWN_FETCH_BYTES: Final = 1_000_000
#: A local broker answers within milliseconds and restarts in about 4 s; a request that takes longer than this
#: is given up and sent again.
REQUEST_TIMEOUT_MS: Final = 10_000
# A busy machine may keep a new connection waiting; one that ends is noticed at once.
_CONNECT_MS: Final = 5_000
_RETRY_S: Final = 0.25
#: A flush takes milliseconds when the broker is there; a process has 10 s from SIGTERM to SIGKILL.
_FLUSH_S: Final = 2.0
#: Why a login isn't even tried: something is wrong with the files it is made from.
_OF_SECRETS: Final = ("SecretMissing", "BadSecret")
#: A login that was refused is tried again this often: the broker logs each, and a Secret is mended by a person.
_LOGIN_RETRY_S: Final = 1.0


def quieten_client() -> None:
    """Keep the client library's own log out: it writes several lines for every attempt while a broker is away.

    The feed says once that the broker is gone and once that it is back.
    """
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


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


class BrokerWatch:
    """Holds one idle connection to the broker, logged in, to know at once when it goes and when it is back.

    Attributes:
        connected: now. reconnects: times it came back after having been away.
        problem: why it can't be entered; None: it can, or just isn't there.

    Raises:
        InputError: an address in ``kafka.bootstrap`` is not host:port.
    """

    def __init__(self, kafka: KafkaSettings) -> None:
        addresses_of(kafka.bootstrap)
        self._kafka = kafka
        self.connected = False
        self.reconnects = 0
        self.problem: LoginError | None = None

    async def run(self) -> None:
        """Watch until cancelled."""
        ever = False
        while True:
            gone = asyncio.Event()
            connection = await self._connect(gone)
            if connection is None:
                if self.connected:
                    self.connected = False
                    log.warning("broker gone")
                await asyncio.sleep(_RETRY_S if self.problem is None else _LOGIN_RETRY_S)
                continue
            if not self.connected:
                self.connected = True
                self.reconnects += ever
                log.info("broker connected", extra={"reconnects": self.reconnects})
                ever = True
            try:
                await gone.wait()  # set when the broker goes or tires of an idle connection
            finally:
                connection.close()

    async def _connect(self, gone: asyncio.Event) -> AIOKafkaConnection | None:
        try:
            connection = await knock(
                create_conn, self._kafka, request_timeout_ms=_CONNECT_MS, on_close=lambda *_: gone.set()
            )
        except LoginError as error:
            if str(error) != str(self.problem):
                log.error("can't enter Kafka", extra={"reason": error.reason, "problem": str(error)})
            self.problem = error
            return None
        except UnavailableError as error:
            log.debug("no connection", extra={"reason": str(error)})
            if self.problem is not None and self.problem.reason in _OF_SECRETS:
                self.problem = None  # they were read: what was wrong with them isn't any more, whatever the broker does
            return None
        self.problem = None
        return connection
