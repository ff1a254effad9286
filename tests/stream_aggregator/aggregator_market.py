"""A seeded market for the aggregator: out of order, doubled, late, unreadable at times; and what must come of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import Any

from aiokafka import AIOKafkaProducer
from tests.stream_aggregation.aggregation_oracle import Trade, expected_candles
from tests.stream_aggregator.aggregator_process import Appended

from chandlery.core.settings import AggregatorSettings, KafkaSettings
from chandlery.core.topics import partition_of, topics_of
from chandlery.core.wire import Opening, TradesRecord, encode
from chandlery.stream.aggregation import AggregationPlan, SymbolState

SYMBOLS = ["BTC/USDT", "ETH/USDT", "SOL/USDT"]
INTERVALS = ["1s", "5s", "1m"]
LATENESS_MS = 2_000
SESSION = 7
START_MS = 1_723_075_198_123


class Market:
    """An endless stream of records of one symbol: out of order, doubled, late, and now and then unreadable.

    Attributes:
        trades: every distinct trade sent. sent: trades in readable records. unreadable: records that aren't.
    """

    def __init__(self, symbol: str, seed: int) -> None:
        self.symbol = symbol
        self.trades: dict[int, Trade] = {}
        self.sent = 0
        self.unreadable = 0
        self.expected = SymbolState(symbol, AggregationPlan(INTERVALS, lateness_ms=LATENESS_MS))
        self._chance = random.Random(seed)
        self._time_ms = START_MS

    def records(self) -> Iterator[bytes]:
        opening = Opening(self.symbol, SESSION)
        self.expected.apply(opening)
        yield encode(opening)
        chance, next_id, held = self._chance, 100, list[Trade]()
        while True:
            if chance.random() < 0.01:
                self.unreadable += 1
                self.expected.count_unreadable()
                yield b'{"kind": "trades", "symbol": 5}'
                continue
            batch: list[Trade] = []
            for _ in range(chance.choice([0, 1, 3, 10])):
                self._time_ms += chance.choice([0, 1, 30, 200, 200, 900, 4_000])
                batch.append(Trade(next_id, self._time_ms, chance.randint(9_000, 11_000), chance.randint(1, 99)))
                next_id += 1
            newest_ms = self._time_ms
            held += [trade for trade in batch if chance.random() < 0.2]
            batch = [trade for trade in batch if trade not in held]
            # What was held back comes a few records later: within the lateness, or not.
            coming = [trade for trade in held if chance.random() < 0.3]
            held = [trade for trade in held if trade not in coming]
            batch += coming
            batch += [
                chance.choice(list(self.trades.values())) for _ in range(2) if self.trades and chance.random() < 0.1
            ]
            chance.shuffle(batch)
            yield encode(self._record(batch, newest_ms))

    def _record(self, batch: list[Trade], watermark_ms: int) -> TradesRecord:
        self.trades.update((trade.id, trade) for trade in batch)
        self.sent += len(batch)
        record = TradesRecord(
            self.symbol,
            SESSION,
            watermark_ms,
            2,
            3,
            [trade.id for trade in batch],
            [trade.time_ms for trade in batch],
            [trade.price for trade in batch],
            [trade.quantity for trade in batch],
        )
        self.expected.apply(record)
        return record


class Load:
    """Appends the markets' records at a steady pace, from ``async with`` on until :meth:`end`.

    Attributes:
        markets: one a symbol.
    """

    def __init__(self, kafka: KafkaSettings, seed: int, *, period_s: float = 0.02) -> None:
        self.markets = [Market(symbol, seed + number) for number, symbol in enumerate(SYMBOLS)]
        self._kafka = kafka
        self._period_s = period_s
        self._stopped = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Load:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopped.set()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def end(self) -> None:
        """Stop, once everything is acknowledged; raises what went wrong."""
        self._stopped.set()
        assert self._task is not None
        await self._task

    async def _run(self) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self._kafka.bootstrap, enable_idempotence=True)
        await producer.start()
        sources = [(market, market.records()) for market in self.markets]
        try:
            while not self._stopped.is_set():
                for market, records in sources:
                    await producer.send(
                        topics_of(self._kafka).trades,
                        next(records),
                        key=market.symbol.encode(),
                        partition=partition_of(market.symbol, self._kafka.partitions),
                    )
                await asyncio.sleep(self._period_s)
        finally:
            await producer.stop()


def aggregator_settings(kafka: KafkaSettings, checkpoint_ms: int = 200) -> AggregatorSettings:
    """Settings under which :class:`Market` knows what must come; addresses and folders are the process's."""
    return AggregatorSettings(kafka, INTERVALS, "", "", allowed_lateness_ms=LATENESS_MS, checkpoint_ms=checkpoint_ms)


def check_exact(load: Load, appended: Appended, symbols: dict[str, Any]) -> None:
    """Every candle there and right, every trade accounted for.

    Args:
        symbols: ``symbols`` of the aggregators' last statuses.
    """
    for market in load.markets:
        status, reader = symbols[market.symbol], appended.readers[market.symbol]
        counts = status["counts"]
        expected = market.expected.counts
        assert counts == {name: getattr(expected, name) for name in expected.__struct_fields__}, market.symbol
        assert counts["received"] == market.sent + market.unreadable
        assert counts["received"] == sum(counts[name] for name in ("counted", "open", "late", "duplicate", "dead"))
        assert counts["unreadable"] == market.unreadable
        assert status["seq"] == market.expected.seq
        assert len(reader.late) == counts["late"]
        in_time = set(market.trades.values()) - set(reader.late)
        assert len(in_time) == counts["counted"] + counts["open"]
        for interval in INTERVALS:
            have = {at: row for at, row in reader.rows(interval).items() if not row.filled}
            want = expected_candles(in_time, interval, market.expected.watermark_ms)
            assert have == {at: row for at, row in want.items() if not row.filled}, f"{market.symbol} {interval}"
            assert set(want) <= set(reader.rows(interval)), f"{market.symbol} {interval}: filled candles are missing"
    assert len(appended.dead) == sum(market.unreadable for market in load.markets)
