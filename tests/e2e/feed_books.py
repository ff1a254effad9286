"""A feed's books: its trades as they stand on their topic, against the candles that were made of them."""

from __future__ import annotations

import json
from typing import Any, Final

from tests.e2e.cluster.commands import ClusterError
from tests.e2e.desk import FEED, Desk, eventually

from chandlery.core.settings import KafkaSettings
from chandlery.core.topics import topics_of

# Prints, for each symbol and session: trades, first and last id, candles with when the broker had them, and the seconds
# whose candle has another number of trades than happened in them, or that have none.
_AUDITOR: Final = """
import asyncio, json, sys
from collections import Counter, defaultdict
from aiokafka import AIOKafkaConsumer
from chandlery.core.wire import TradesRecord, decode_candles, decode_input

async def records(bootstrap, topic):
    async with AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest") as consumer:
        ends = await consumer.end_offsets(consumer.assignment())
        while any([await consumer.position(partition) < end for partition, end in ends.items()]):
            for found in (await consumer.getmany(timeout_ms=1000)).values():
                for record in found:
                    yield record.timestamp, record.value

async def main(bootstrap, trades_topic, candles_topic):
    began, closed, appended = {}, defaultdict(dict), defaultdict(dict)
    async for at_ms, value in records(bootstrap, candles_topic):
        record = decode_candles(value)
        book = record.symbol, record.session
        began.setdefault(book, at_ms)
        for update in record.updates:
            if update.interval == "1s" and not update.backfill and update.state != "forming":
                closed[book][update.open_time_ms] = update.trades
                appended[book].setdefault(update.open_time_ms, at_ms)
    ids, happened = defaultdict(list), defaultdict(Counter)
    async for _, value in records(bootstrap, trades_topic):
        record = decode_input(value)
        if isinstance(record, TradesRecord):
            ids[record.symbol, record.session] += record.id
            happened[record.symbol, record.session].update(time_ms // 1000 * 1000 for time_ms in record.time_ms)
    for book, found in sorted(ids.items()):
        candles, counts = closed[book], happened[book]
        # The second of the first trade may have begun in history.
        seconds = range(min(counts) + 1000, max(candles, default=0) + 1000, 1000)
        wrong = {at: (candles.get(at), counts[at]) for at in seconds if candles.get(at) != counts[at]}
        print(json.dumps({
            "symbol": book[0], "session": book[1], "began_ms": began[book], "candles": sorted(appended[book].items()),
            "trades": len(found), "unique": len(set(found)), "first": min(found), "last": max(found), "wrong": wrong,
        }))

asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), 25))
"""


def books_of(desk: Desk) -> list[dict[str, Any]]:
    """By symbol and session, the older one first, how many trades there are, and what its candles of 1s make of them.

    ``candles`` are those closed of trades, each with the broker's time (ms) when it was appended, and ``began_ms`` is that
    of the session's first candle, of history too. ``wrong`` has those, from the second after the first trade's on, that count
    another number of trades than there are in theirs, or that are missing: open time → (counted, there).
    """
    topics = topics_of(KafkaSettings(bootstrap=desk.bootstrap, feed=f"{desk.namespace.name}.{FEED}"))
    found: list[str] = []

    def is_read() -> bool:
        arguments = (desk.bootstrap, topics.trades, topics.candles_fast)
        try:
            found[:] = desk.namespace.execute("reader", "python", "-c", _AUDITOR, *arguments).splitlines()
        except ClusterError:  # Kafka is slow to answer on a busy machine
            return False
        return True

    eventually("the feed's books", is_read)
    return [json.loads(line) for line in found]
