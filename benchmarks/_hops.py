"""The floor of frame → signal: three bare produce → consume hops, each in a process of its own.

``python -m benchmarks._hops BOOTSTRAP SOURCE TARGET``: relays records of SOURCE to TARGET until it is killed.
"""

from __future__ import annotations

import asyncio
import struct
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from chandlery.core.clocks import now_ns
from chandlery.core.settings import KafkaSettings
from chandlery.core.topics import topics_of
from chandlery.stream.topics import ensure_topics

RECORD_BYTES: Final = 1_024
_STAMP: Final = struct.Struct("<q")
_WARM: Final = 50


@asynccontextmanager
async def _clients(bootstrap: str, source: str) -> AsyncIterator[tuple[AIOKafkaConsumer, AIOKafkaProducer]]:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, fetch_max_wait_ms=100)
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, linger_ms=0)
    await consumer.start()
    await producer.start()
    try:
        place = TopicPartition(source, 0)
        consumer.assign([place])
        await consumer.seek_to_end(place)
        yield consumer, producer
    finally:
        await producer.stop()
        await consumer.stop()


async def relay(bootstrap: str, source: str, target: str) -> None:
    """Hand on every record at once."""
    async with _clients(bootstrap, source) as (consumer, producer):
        print("up", flush=True)
        while True:
            for records in (await consumer.getmany(timeout_ms=100)).values():
                for record in records:
                    await producer.send(target, record.value, partition=0)


@asynccontextmanager
async def _relay_process(bootstrap: str, source: str, target: str) -> AsyncIterator[None]:
    words = [sys.executable, "-m", "benchmarks._hops", bootstrap, source, target]
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        await process.stdout.readline()
        yield
    finally:
        process.kill()
        await process.wait()


async def three_hops(bootstrap: str, records: int, per_s: float) -> list[int]:
    """Nanoseconds from before the first produce to after the third consume, of each 1 KB record."""
    kafka = KafkaSettings(bootstrap=bootstrap, feed="hops", partitions=1)
    await ensure_topics(kafka)
    topics = topics_of(kafka)
    first, second, third = topics.trades, topics.candles, topics.signals
    samples: list[int] = []
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(_relay_process(bootstrap, first, second))
        await stack.enter_async_context(_relay_process(bootstrap, second, third))
        consumer, producer = await stack.enter_async_context(_clients(bootstrap, third))

        async def take() -> None:
            while len(samples) < records + _WARM:
                for batch in (await consumer.getmany(timeout_ms=100)).values():
                    arrived_ns = now_ns()
                    samples.extend(arrived_ns - _STAMP.unpack_from(record.value)[0] for record in batch)

        taking = asyncio.create_task(take())
        due_s = time.monotonic()
        for _ in range(records + _WARM):
            due_s += 1 / per_s
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            await producer.send(first, _STAMP.pack(now_ns()) + bytes(RECORD_BYTES - _STAMP.size), partition=0)
        await asyncio.wait_for(taking, 30)
    return samples[_WARM:]


if __name__ == "__main__":
    asyncio.run(relay(*sys.argv[1:4]))
