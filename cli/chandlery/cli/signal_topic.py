"""Reading the ``signals`` topic: signals with their completions joined, of the past or as they come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Final, Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from chandlery.cli.collecting import Collected
from chandlery.core.errors import UnavailableError
from chandlery.core.kafka_ending import end_client
from chandlery.core.kafka_login import kafka_client
from chandlery.core.settings import KafkaSettings
from chandlery.stream.topics import end_offsets

#: An answer of a broker on this machine takes milliseconds; 10 s is aiokafka's own retry loop three times over.
_ANSWER_S: Final = 10.0
Offsets = Mapping[int, int]


class _Record(Protocol):
    """What of aiokafka's ConsumerRecord is used."""

    offset: int
    value: bytes | None


class SignalTopic:
    """A reader of one ``signals`` topic, without a group: it leaves no trace at the broker."""

    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        self._kafka = kafka
        self._bootstrap = kafka.bootstrap
        self._topic = topic
        self._consumer: AIOKafkaConsumer | None = None
        self._partitions: list[TopicPartition] = []

    async def __aenter__(self) -> SignalTopic:
        numbers = await end_offsets(self._kafka, self._topic)
        consumer = kafka_client(
            AIOKafkaConsumer, self._kafka, group_id=None, enable_auto_commit=False, fetch_max_wait_ms=100
        )
        try:
            async with asyncio.timeout(_ANSWER_S):
                await consumer.start()
        except (KafkaError, OSError, TimeoutError) as error:
            await end_client(consumer)
            raise UnavailableError(f"Kafka at {self._bootstrap} doesn't answer: {error!r}") from error
        self._partitions = [TopicPartition(self._topic, number) for number in sorted(numbers)]
        consumer.assign(self._partitions)
        self._consumer = consumer
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._consumer is not None:
            await end_client(self._consumer)
            self._consumer = None

    async def ends(self) -> dict[int, int]:
        """Offset after the newest record, by partition."""
        ends = await self._asked("end_offsets", self._partitions)
        return {partition.partition: offset for partition, offset in ends.items()}

    async def collect(self, since: Offsets | None = None) -> Collected:
        """Everything from ``since`` (None: the oldest kept) to what is there now.

        Raises:
            UnavailableError: Kafka doesn't answer, or no longer.
        """
        collected = Collected()
        begins = await self._asked("beginning_offsets", self._partitions)
        ends = await self.ends()
        waiting: dict[TopicPartition, int] = {}
        for partition in self._partitions:
            begin = max(begins[partition], (since or {}).get(partition.partition, 0))
            if begin < ends[partition.partition]:
                waiting[partition] = ends[partition.partition]
                self._ready().seek(partition, begin)
        heard_s = time.monotonic()
        while waiting:
            batches = await self._next(list(waiting))
            if batches:
                heard_s = time.monotonic()
            elif time.monotonic() - heard_s > _ANSWER_S:
                raise UnavailableError(f"Kafka at {self._bootstrap} no longer answers: not all signals could be read")
            for partition, records in batches.items():
                for record in records:
                    if record.offset < waiting[partition]:
                        collected.add(record.value)
            for partition in list(waiting):
                # The position passes control records too, which no batch shows.
                if await self._ready().position(partition) >= waiting[partition]:
                    del waiting[partition]
        return collected

    async def follow(self, since: Offsets) -> AsyncIterator[list[bytes | None]]:
        """Values of the records from ``since`` on as they come, for ever; those of a partition in their order."""
        for number, offset in since.items():
            self._ready().seek(TopicPartition(self._topic, number), offset)
        while True:
            batches = await self._next(self._partitions)
            if batches:
                yield [record.value for records in batches.values() for record in records]

    async def offsets_at(self, append_ms: int) -> dict[int, int]:
        """Offset of the first record appended then or later, by partition; the end where there is none."""
        ends = await self.ends()
        async with self._answering():
            found = await self._ready().offsets_for_times(dict.fromkeys(self._partitions, max(0, append_ms)))
        return ends | {partition.partition: at.offset for partition, at in found.items() if at is not None}

    async def _asked(self, method: str, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        async with self._answering():
            answer: dict[TopicPartition, int] = await getattr(self._ready(), method)(partitions)
        return answer

    @asynccontextmanager
    async def _answering(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(_ANSWER_S):
                yield
        except (KafkaError, OSError, TimeoutError) as error:
            raise UnavailableError(f"Kafka at {self._bootstrap} doesn't answer: {error!r}") from error

    async def _next(self, partitions: list[TopicPartition]) -> dict[TopicPartition, list[_Record]]:
        try:
            batches: dict[TopicPartition, list[_Record]] = await self._ready().getmany(*partitions, timeout_ms=500)
        except (KafkaError, OSError) as error:
            raise UnavailableError(f"Kafka at {self._bootstrap} doesn't answer: {error!r}") from error
        return batches

    def _ready(self) -> AIOKafkaConsumer:
        assert self._consumer is not None, "use it in `async with`"
        return self._consumer
