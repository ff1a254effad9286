"""Where packed records go: the interface of a sink, and the one that is Kafka."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.conn import create_conn
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, RecordTooLargeError
from aiokafka.structs import TopicPartition

from chandlery.core.broker_watch import BrokerWatch
from chandlery.core.errors import InvariantError, LoginError, UnavailableError
from chandlery.core.kafka_ending import end_client
from chandlery.core.kafka_login import kafka_client
from chandlery.core.settings import KafkaSettings
from chandlery.core.topics import INGEST_CLIENT, topics_of
from chandlery.stream.topics import check_login, ensure_topics

log = logging.getLogger("chandlery.ingest")

#: Most bytes a batch. The broker refuses batches over max.message.bytes (1 MiB and some); this leaves a tenth.
MAX_BATCH_BYTES: Final = 950_000
# A produce request that got no answer for this long is sent again (idempotent). A local broker answers in
# milliseconds, one in another zone within tens; a broker that restarts closes its connections at once. So only a
# stalled one is waited for, and ten seconds keep the aggregator's lateness out of play no longer than it must be.
_REQUEST_TIMEOUT_MS: Final = 10_000
# A batch that is under way for longer than this is worth a line in the log; the 99th percentile is 5 ms.
_SLOW_S: Final = 2.0
_FIRST_BACKOFF_S: Final = 0.1
_LAST_BACKOFF_S: Final = 2.0
# A login that was refused: the broker logs each, and a Secret is mended by a person.
_LOGIN_RETRY_S: Final = 1.0


class OutgoingRecord(NamedTuple):
    """One record of a batch."""

    key: bytes
    value: bytes
    stamps: bytes


class Batch(NamedTuple):
    """Records of one partition, in order, together at most :data:`MAX_BATCH_BYTES` unless it is just one."""

    partition: int
    records: Sequence[OutgoingRecord]


class Sink(Protocol):
    """Takes batches and keeps their order within a partition."""

    @property
    def problem(self) -> UnavailableError | None:
        """Why nothing can be sent now, if that is known."""

    @property
    def reconnects(self) -> int:
        """Times that the broker came back after having been away."""

    async def start(self) -> None:
        """Connect; waits for ever while there is nobody to connect to."""

    async def watch(self) -> None:
        """Notice when the broker goes and when it is back, once connected; until cancelled."""

    def channel(self, partition: int) -> int:
        """Which way a partition goes: batches of one channel travel together, one request at a time."""

    async def send(self, batches: Sequence[Batch]) -> None:
        """Send batches of one channel and return when all are acknowledged, however long that takes.

        Raises:
            InvariantError: the broker refuses a batch that must be right.
        """

    async def close(self) -> None:
        """Let go of the connection. What isn't acknowledged by then is not kept."""


class KafkaSink:
    """The topic ``trades``, by an idempotent producer with acks=all.

    A failure that the producer can't mend by itself (an expired batch leaves a hole in its sequence numbers)
    ends in a new producer and the same batches again: a repetition, never a loss.
    """

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._topic = topics_of(kafka).trades
        self._producer: AIOKafkaProducer | None = None
        self._renewing = asyncio.Lock()
        self._problem: UnavailableError | None = None
        self._away = False
        self._watch = BrokerWatch(kafka, create_conn)
        self._started = asyncio.Event()

    @property
    def problem(self) -> UnavailableError | None:
        """See :class:`Sink`. A producer that had got in tells of no login; whoever watches does."""
        return self._problem or self._watch.problem

    @property
    def reconnects(self) -> int:
        """See :class:`Sink`."""
        return self._watch.reconnects

    async def start(self) -> None:
        """Make the topics where absent and connect; waits for ever while the broker is away.

        Raises:
            InputError: the topics have another number of partitions than the settings say.
        """
        while True:
            try:
                await ensure_topics(self._kafka)
            except UnavailableError as error:
                if str(error) != str(self._problem):
                    log.warning("still waiting for the broker", extra={"error": str(error)})
                self._problem = error
                if isinstance(error, LoginError):
                    await asyncio.sleep(_LOGIN_RETRY_S)
            else:
                break
        await self._renew(None)
        self._started.set()

    async def watch(self) -> None:
        """See :class:`Sink`. Before the start nobody has been there who could come back."""
        await self._started.wait()
        await self._watch.run(there=True)

    def channel(self, partition: int) -> int:
        """The partition's leader: aiokafka keeps one request a node in flight."""
        if self._producer is None:
            return -1
        leader = self._producer.client.cluster.leader_for_partition(TopicPartition(self._topic, partition))
        return -1 if leader is None else int(leader)

    async def send(self, batches: Sequence[Batch]) -> None:
        """Send batches and return when all are acknowledged."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        timer = loop.call_later(_SLOW_S, self._report_away)
        try:
            await self._send_all(batches)
        finally:
            timer.cancel()
        if self._away:
            self._away = False
            log.info("the broker acknowledges again", extra={"after_s": round(loop.time() - began_s, 1)})

    def _report_away(self) -> None:
        if not self._away:
            self._away = True
            log.warning("the broker acknowledges nothing; keeping what comes", extra={"for_s": _SLOW_S})

    async def _send_all(self, batches: Sequence[Batch]) -> None:
        remaining = list(batches)
        backoff_s = _FIRST_BACKOFF_S
        while True:
            producer = self._producer
            if producer is not None:
                remaining, error = await self._send_once(producer, remaining)
                if not remaining:
                    return
                log.warning("batches not acknowledged; sending again", extra={"error": repr(error)})
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, _LAST_BACKOFF_S)
            await self._renew(producer)

    async def _send_once(
        self, producer: AIOKafkaProducer, batches: Sequence[Batch]
    ) -> tuple[list[Batch], BaseException | None]:
        results = await asyncio.gather(
            *(self._send_batch(producer, batch) for batch in batches), return_exceptions=True
        )
        failed: list[Batch] = []
        cause: BaseException | None = None
        for batch, result in zip(batches, results, strict=True):
            if result is None:
                continue
            if isinstance(result, (MessageSizeTooLargeError, RecordTooLargeError)):
                raise InvariantError(f"the broker refuses a batch for its size: {result!r}") from result
            if not isinstance(result, KafkaError):
                raise result
            failed.append(batch)
            cause = result
        return failed, cause

    async def _send_batch(self, producer: AIOKafkaProducer, batch: Batch) -> None:
        builder = producer.create_batch()
        for record in batch.records:
            if (
                builder.append(key=record.key, value=record.value, timestamp=None, headers=[("stamps", record.stamps)])
                is None
            ):
                raise InvariantError(f"a batch of {len(batch.records)} records is over the producer's size")
        acknowledged = await producer.send_batch(builder, self._topic, partition=batch.partition)
        await acknowledged

    async def _renew(self, broken: AIOKafkaProducer | None) -> None:
        """Replace the producer, unless another failure has done so already."""
        async with self._renewing:
            if self._producer is not broken:
                return
            if broken is not None:
                self._producer = None
                await self._stop(broken)
            self._producer = await self._connect()

    async def _connect(self) -> AIOKafkaProducer:
        backoff_s = _FIRST_BACKOFF_S
        while True:
            producer = kafka_client(
                AIOKafkaProducer,
                self._kafka,
                client_id=INGEST_CLIENT,
                enable_idempotence=True,
                acks="all",
                linger_ms=0,
                max_batch_size=MAX_BATCH_BYTES + 50_000,
                max_request_size=8 * (MAX_BATCH_BYTES + 50_000),
                request_timeout_ms=_REQUEST_TIMEOUT_MS,
                retry_backoff_ms=100,
            )
            try:
                await producer.start()
                await producer.partitions_for(self._topic)
            except KafkaError as error:
                await self._stop(producer)
                self._problem = await self._why(error)
                log.warning("broker not reachable; trying again", extra={"error": str(self._problem)})
                await asyncio.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, _LAST_BACKOFF_S)
            except BaseException:
                await self._stop(producer)
                raise
            else:
                self._problem = None
                return producer

    async def _why(self, error: KafkaError) -> UnavailableError:
        """What keeps the producer out: it doesn't tell itself."""
        try:
            await check_login(self._kafka)
        except UnavailableError as found:
            return found
        return UnavailableError(repr(error))

    async def _stop(self, producer: AIOKafkaProducer) -> None:
        # It flushes first, which never ends when the broker is away; what it would flush is sent again.
        await end_client(producer)

    async def close(self) -> None:
        """Let go of the connection."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await self._stop(producer)
