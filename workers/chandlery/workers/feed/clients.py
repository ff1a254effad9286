"""Kafka clients as the feed needs them, and whether the broker is there."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError

from chandlery.core.errors import InputError
from chandlery.core.settings import KafkaSettings

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
_CONNECT_S: Final = 2.0
_RETRY_S: Final = 0.25


def quieten_client() -> None:
    """Keep the client library's own log out: it writes several lines for every attempt while a broker is away.

    The feed says once that the broker is gone and once that it is back.
    """
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


def candle_consumer(kafka: KafkaSettings) -> AIOKafkaConsumer:
    """A consumer without group: partitions and positions are the caller's."""
    return AIOKafkaConsumer(
        bootstrap_servers=kafka.bootstrap,
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
    return AIOKafkaConsumer(
        bootstrap_servers=kafka.bootstrap,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=FETCH_WAIT_MS if urgent else SHOWN_FETCH_WAIT_MS,
        fetch_min_bytes=1 if urgent else SHOWN_FETCH_BYTES,
        request_timeout_ms=REQUEST_TIMEOUT_MS,
        retry_backoff_ms=100,
    )


def signal_producer(kafka: KafkaSettings) -> AIOKafkaProducer:
    """The producer of signals: idempotent, acknowledged by all in-sync replicas, no linger."""
    return AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap,
        enable_idempotence=True,
        acks="all",
        linger_ms=0,
        request_timeout_ms=REQUEST_TIMEOUT_MS,
        retry_backoff_ms=100,
    )


def note_producer(kafka: KafkaSettings) -> AIOKafkaProducer:
    """The producer of completions and dead letters: apart, so that they never wait in a signal's way."""
    return AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap,
        acks=1,
        linger_ms=5,
        request_timeout_ms=REQUEST_TIMEOUT_MS,
        retry_backoff_ms=100,
    )


async def stop_quickly(producer: AIOKafkaProducer) -> None:
    """Stop a producer without waiting for a broker that is away: it would flush for ever."""
    try:
        # 2 s: a flush takes milliseconds when the broker is there; a process has 10 s from SIGTERM to SIGKILL.
        await asyncio.wait_for(producer.stop(), 2.0)
    except (TimeoutError, KafkaError) as error:
        log.debug("producer ended unflushed", extra={"reason": repr(error)})


class BrokerWatch:
    """Holds one idle connection to the broker, to know at once when it goes and when it is back.

    Attributes:
        connected: now. reconnects: times it came back after having been away.

    Raises:
        InputError: an address in ``bootstrap`` is not host:port.
    """

    def __init__(self, bootstrap: str) -> None:
        self._addresses = [_address(entry) for entry in bootstrap.split(",")]
        self.connected = False
        self.reconnects = 0

    async def run(self) -> None:
        """Watch until cancelled."""
        ever = False
        while True:
            stream = await self._connect()
            if stream is None:
                if self.connected:
                    self.connected = False
                    log.warning("broker gone")
                await asyncio.sleep(_RETRY_S)
                continue
            if not self.connected:
                self.connected = True
                self.reconnects += ever
                log.info("broker connected", extra={"reconnects": self.reconnects})
                ever = True
            reader, writer = stream
            try:
                await reader.read()  # ends when the broker goes or tires of an idle connection
            except OSError as error:
                log.debug("watch connection ended", extra={"reason": repr(error)})
            finally:
                writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for host, port in self._addresses:
            try:
                return await asyncio.wait_for(asyncio.open_connection(host, port), _CONNECT_S)
            except (OSError, TimeoutError) as error:
                log.debug("no connection", extra={"host": host, "port": port, "reason": repr(error)})
        return None


def _address(entry: str) -> tuple[str, int]:
    host, _, port = entry.strip().rpartition(":")
    if not host or not port.isdigit():
        raise InputError(f"kafka.bootstrap: {entry!r} is no address: write host:port")
    return host.strip("[]"), int(port)
