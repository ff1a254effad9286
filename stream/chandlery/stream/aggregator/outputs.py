"""The aggregator's own producer: no record is handed over without somebody waiting for its acknowledgement.

Faust's own send queue is not used: it logs a failed send and goes on, and at 1,000 records a second it falls
behind its input.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from chandlery.core.errors import UnavailableError
from chandlery.core.kafka_ending import end_client
from chandlery.core.kafka_login import kafka_client
from chandlery.core.settings import KafkaSettings
from chandlery.core.topics import AGGREGATOR_CLIENT
from chandlery.core.wire import MAX_RECORD_BYTES

# A broker killed and restarted is back within 4–5 s, a cluster elects new leaders within 20 s: what isn't
# acknowledged after 40 s won't be, and a restarted process tries it again from its checkpoint.
_REQUEST_TIMEOUT_MS: Final = 40_000
# Records that wait for their partition's one batch in flight are sent together, up to this much.
_MAX_BATCH_BYTES: Final = 262_144

Header = tuple[str, bytes]


class Producer(Protocol):
    """What is used of aiokafka's producer."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def send(
        self, topic: str, *, value: bytes, key: bytes, partition: int, headers: list[Header] | None
    ) -> asyncio.Future[object]: ...


class Outputs:
    """Appends records and knows which aren't acknowledged yet.

    Attributes:
        failed: set when an append has failed for good; :meth:`check` raises then.
        appended: records handed over.
    """

    def __init__(self, producer: Producer) -> None:
        """Use a producer; :meth:`to` makes the one for Kafka."""
        self.failed = asyncio.Event()
        self.appended = 0
        self._error: BaseException | None = None
        self._pending: set[asyncio.Future[object]] = set()
        self._producer = producer

    @classmethod
    def to(cls, kafka: KafkaSettings) -> Outputs:
        """Outputs to Kafka."""
        return cls(
            kafka_client(
                AIOKafkaProducer,
                kafka,
                client_id=AGGREGATOR_CLIENT,
                enable_idempotence=True,
                acks="all",
                linger_ms=0,
                max_batch_size=_MAX_BATCH_BYTES,
                max_request_size=2 * MAX_RECORD_BYTES,
                request_timeout_ms=_REQUEST_TIMEOUT_MS,
            )
        )

    async def start(self) -> None:
        """Connect.

        Raises:
            UnavailableError: no broker answers.
        """
        try:
            await self._producer.start()
        except KafkaError as error:
            raise UnavailableError(f"Kafka doesn't answer: {error}") from error

    async def stop(self, within_s: float) -> None:
        """Disconnect; what isn't acknowledged yet is sent first, if there was no failure."""
        if self._error is not None:
            # It would wait for batches that can't go any more; the process ends, and its connections with it.
            return
        await end_client(self._producer, within_s=within_s)

    async def append(
        self, topic: str, partition: int, key: bytes, value: bytes, headers: list[Header] | None = None
    ) -> asyncio.Future[object]:
        """Hand one record over; waits only while the buffer is full.

        Returns:
            A future that is done when the record is acknowledged.

        Raises:
            UnavailableError: the record, or one before it, could not be appended.
        """
        self.check()
        try:
            future = await self._producer.send(topic, value=value, key=key, partition=partition, headers=headers)
        except KafkaError as error:
            raise self._fail(error) from error
        self.appended += 1
        self._pending.add(future)
        future.add_done_callback(self._done)
        return future

    def pending(self) -> list[asyncio.Future[object]]:
        """The futures of what is not acknowledged yet."""
        return list(self._pending)

    async def acknowledged(self, futures: list[asyncio.Future[object]]) -> None:
        """Wait until all of ``futures`` are acknowledged.

        Raises:
            UnavailableError: one never will be.
        """
        waiting = [future for future in futures if not future.done()]
        if waiting:
            # Not gather: cut short, it would cancel the futures, which counts as records that Kafka didn't take.
            await asyncio.wait(waiting)
        for future in futures:
            # The callback of one that has just failed may still be to come.
            self._done(future)
        self.check()

    def check(self) -> None:
        """Raise if an append has failed.

        Raises:
            UnavailableError: with the first failure as its cause.
        """
        if self._error is not None:
            raise UnavailableError(f"Kafka didn't take a record: {self._error!r}") from self._error

    def _done(self, future: asyncio.Future[object]) -> None:
        self._pending.discard(future)
        if future.cancelled():
            self._fail(asyncio.CancelledError("the producer was stopped"))
        elif (error := future.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> UnavailableError:
        if self._error is None:
            self._error = error
        self.failed.set()
        return UnavailableError(f"Kafka didn't take a record: {error!r}")
