"""The floor of the feed: an aiokafka ``getmany`` loop that looks at nothing, configured as the feed's.

``python -m benchmarks._bare_getmany BOOTSTRAP SPANS [once]``: SPANS is JSON, a list of [topic, partition, first,
end]. Consumes them twice, first to warm up; prints wall and CPU seconds of the second time. With ``once`` they may
lie in the future, and are consumed as they come.
"""

from __future__ import annotations

import asyncio
import sys
import time

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from chandlery.core.settings import KafkaSettings
from chandlery.workers.feed.clients import candle_consumer, quieten_client

Span = tuple[str, int, int, int]


async def consume(consumer: AIOKafkaConsumer, spans: list[Span]) -> None:
    """Take in all records of the spans, from a new assignment on: nothing of it has been fetched before."""
    wanted = sum(end - first for _, _, first, end in spans)
    consumer.assign([TopicPartition(topic, partition) for topic, partition, _, _ in spans])
    for topic, partition, first, _ in spans:
        consumer.seek(TopicPartition(topic, partition), first)
    taken = 0
    while taken < wanted:
        for records in (await consumer.getmany(timeout_ms=100)).values():
            taken += len(records)


async def main() -> None:
    """Consume the spans."""
    quieten_client()
    spans = msgspec.json.decode(sys.argv[2], type=list[Span])
    consumer = candle_consumer(KafkaSettings(bootstrap=sys.argv[1], feed="bench"))
    await consumer.start()
    if sys.argv[3:] != ["once"]:
        await consume(consumer, spans)
    begun_s, begun_cpu_s = time.monotonic(), time.process_time()
    await consume(consumer, spans)
    print(time.monotonic() - begun_s, time.process_time() - begun_cpu_s, flush=True)
    await consumer.stop()


if __name__ == "__main__":
    asyncio.run(main())
