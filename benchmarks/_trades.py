"""Seeded trades records: what ingest appends, at any density, without ingest."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Final

from aiokafka import AIOKafkaProducer

from chandlery.core.clocks import HEADER_NAME, Stamps, now_ns, wall_offset_ns
from chandlery.core.settings import KafkaSettings
from chandlery.core.topics import partition_of, topics_of
from chandlery.core.wire import TradesRecord, encode

PER_RECORD: Final = 100
START_MS: Final = 1_700_000_000_000
#: Batches that are under way together; more would only wait in the client.
_BATCH_BYTES: Final = 500_000


def symbols(count: int) -> list[str]:
    """Names of that many made-up markets."""
    return [f"C{number:03d}/USDT" for number in range(count)]


def records(
    markets: list[str], each: int, *, per_trade_us: int, per_record: int = PER_RECORD, seed: int = 7
) -> Iterator[TradesRecord]:
    """Records of all markets in turn.

    Args:
        each: records a market. per_trade_us: exchange time from one trade of a market to its next, µs.
    """
    chance = random.Random(seed)
    price = {market: 6_000_000 + 1_000 * number for number, market in enumerate(markets)}
    for index in range(each):
        for market in markets:
            first = index * per_record
            times = [START_MS + (first + at) * per_trade_us // 1_000 for at in range(per_record)]
            prices = []
            for _ in range(per_record):
                price[market] = max(1, price[market] + chance.randint(-30, 30))
                prices.append(price[market])
            yield TradesRecord(
                symbol=market,
                session=1,
                watermark_ms=times[-1],
                price_scale=2,
                quantity_scale=5,
                id=list(range(first, first + per_record)),
                time_ms=times,
                price=prices,
                quantity=[chance.randint(1, 500_000) for _ in range(per_record)],
                buyer_maker=[chance.randint(0, 1) for _ in range(per_record)],
            )


async def append(kafka: KafkaSettings, made: Iterator[TradesRecord]) -> int:
    """Append records to the trades topic; how many there were."""
    topic = topics_of(kafka).trades
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, acks="all", max_batch_size=_BATCH_BYTES)
    await producer.start()
    offset = wall_offset_ns()
    count = 0
    try:
        for record in made:
            header = Stamps(exchange_ns=1, received_ns=now_ns()).pack(offset)
            await producer.send(
                topic,
                encode(record),
                key=record.symbol.encode(),
                partition=partition_of(record.symbol, kafka.partitions),
                headers=[(HEADER_NAME, header)],
            )
            count += 1
    finally:
        await producer.stop()
    return count
