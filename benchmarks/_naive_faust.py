"""The peer of the aggregator: a Faust agent as its documentation shows them, a Table write per trade.

``python -m benchmarks._naive_faust BOOTSTRAP TOPIC PARTITIONS TRADES``: builds 1s, 1m, 5m and 1h from a trades
topic without regard for lateness, repetition or sessions; prints trades and CPU seconds from the first tenth on.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from typing import Any

import faust

from chandlery.core.wire import TradesRecord, decode_input

_LENGTHS_MS = {"1s": 1_000, "1m": 60_000, "5m": 300_000, "1h": 3_600_000}
_DEADLINE_S = 90.0


def _add(candles: dict[str, list[int]], time_ms: int, price: int, quantity: int) -> dict[str, list[int]]:
    for name, length_ms in _LENGTHS_MS.items():
        opened = time_ms - time_ms % length_ms
        candle = candles.get(name)
        if candle is None or candle[0] != opened:
            candles[name] = [opened, price, price, price, price, quantity, 1]
        else:
            candle[2] = max(candle[2], price)
            candle[3] = min(candle[3], price)
            candle[4] = price
            candle[5] += quantity
            candle[6] += 1
    return candles


async def main() -> None:
    """Run until so many trades are in the table."""
    bootstrap, source, partitions, wanted = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    logging.disable(logging.ERROR)
    app: Any = faust.App(
        "chandlery-bench-naive",
        broker=f"kafka://{bootstrap}",
        store="memory://",
        web_enabled=False,
        topic_partitions=partitions,
        topic_disable_leader=True,
        stream_wait_empty=False,
        consumer_auto_offset_reset="earliest",
    )
    trades = app.topic(source, partitions=partitions, key_type=bytes, value_type=bytes, value_serializer="raw")
    table = app.Table("candles", default=dict, partitions=partitions)
    done = asyncio.Event()
    count, begun_at, begun_cpu_s = 0, 0, 0.0

    @app.agent(trades)
    async def aggregate(stream: Any) -> None:
        nonlocal count, begun_at, begun_cpu_s
        async for value in stream:
            record = decode_input(value)
            if not isinstance(record, TradesRecord):
                continue
            for time_ms, price, quantity in zip(record.time_ms, record.price, record.quantity, strict=True):
                table[record.symbol] = _add(table[record.symbol], time_ms, price, quantity)
                count += 1
            if begun_cpu_s == 0.0 and count >= wanted // 10:
                begun_at, begun_cpu_s = count, time.process_time()
            if count >= wanted:
                done.set()

    await app.start()
    await asyncio.wait_for(done.wait(), _DEADLINE_S)
    print(count - begun_at, time.process_time() - begun_cpu_s, flush=True)
    # What is measured is over; an orderly end would wait for a send queue of thousands.
    import os

    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())
