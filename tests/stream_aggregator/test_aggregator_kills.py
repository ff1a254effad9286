"""kill -9 under load, again and again: nothing lost, nothing doubled, counts exact."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from tests.stream_aggregation.aggregation_oracle import Trade, expected_candles
from tests.stream_aggregator.aggregator_process import AggregatorProcess, Appended

from chandlery.core.settings import AggregatorSettings, KafkaSettings
from chandlery.core.topics import partition_of, topics_of
from chandlery.core.wire import Opening, TradesRecord, encode
from chandlery.stream.aggregation import AggregationPlan, SymbolState
from chandlery.stream.topics import end_offsets, ensure_topics

SYMBOLS = ["BTC/USDT", "ETH/USDT", "SOL/USDT"]
INTERVALS = ["1s", "5s", "1m"]
LATENESS_MS = 2_000
SESSION = 7
START_MS = 1_723_075_198_123
KILLS = 22


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
                self.expected.count_dead(1)
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
    """Appends the markets' records at a steady pace until stopped."""

    def __init__(self, kafka: KafkaSettings, seed: int) -> None:
        self.markets = [Market(symbol, seed + number) for number, symbol in enumerate(SYMBOLS)]
        self._kafka = kafka
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        self._stopped.set()

    async def run(self) -> None:
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
                await asyncio.sleep(0.02)
        finally:
            await producer.stop()


@pytest.mark.broker
@pytest.mark.slow
async def test_kill_9_at_any_moment_loses_and_doubles_nothing(kafka_settings: KafkaSettings, tmp_path: Path) -> None:
    seed = 20_240_808
    chance = random.Random(seed)
    kafka = msgspec.structs.replace(kafka_settings, partitions=2)
    await ensure_topics(kafka)
    aggregator = AggregatorProcess(
        tmp_path,
        AggregatorSettings(
            kafka, INTERVALS, "", "", allowed_lateness_ms=LATENESS_MS, checkpoint_ms=chance.randint(100, 400)
        ),
    )
    load = Load(kafka, seed)
    appending = asyncio.create_task(load.run())
    ready = 0
    try:
        for number in range(KILLS):
            await aggregator.start()
            if number % 4:
                # Under load, somewhere between two checkpoints …
                before = (await aggregator.until(lambda status: status["ready"], "ready"))["records"]
                wanted = before + chance.randint(1, 150)
                await aggregator.until(lambda status, wanted=wanted: status["records"] >= wanted, "more records")  # type: ignore[misc]
                ready += 1
            else:
                # … or anywhere in its start and its recovery.
                await asyncio.sleep(chance.uniform(0.2, 3.0))
            await aggregator.kill()
        load.stop()
        await appending
        await aggregator.start()
        ends = await end_offsets(kafka.bootstrap, topics_of(kafka).trades)
        await aggregator.until_applied(ends)
        assert await aggregator.terminate() == 0, aggregator.log()
    finally:
        load.stop()
        await aggregator.kill()
        await asyncio.gather(appending, return_exceptions=True)

    appended = await Appended.read(kafka, SESSION)
    final = aggregator.final()
    for market in load.markets:
        status, reader = final["symbols"][market.symbol], appended.readers[market.symbol]
        counts = status["counts"]
        assert counts == msgspec.to_builtins(_named(market.expected.counts)), f"{market.symbol}: counts, seed {seed}"
        assert counts["received"] == market.sent + market.unreadable
        assert counts["received"] == sum(counts.values()) - counts["received"]
        assert status["seq"] == market.expected.seq
        assert len(reader.late) == counts["late"]
        in_time = set(market.trades.values()) - set(reader.late)
        assert len(in_time) == counts["counted"] + counts["open"]
        for interval in INTERVALS:
            have = {at: row for at, row in reader.rows(interval).items() if not row.filled}
            want = expected_candles(in_time, interval, market.expected.watermark_ms)
            assert have == {at: row for at, row in want.items() if not row.filled}, f"{market.symbol} {interval}"
            assert set(want) <= set(reader.rows(interval))
    assert len(appended.dead) == sum(market.unreadable for market in load.markets) == final["dead_letters"]
    assert final["healed"] == final["offset_gaps"] == 0
    assert ready >= KILLS // 2
    assert appended.repetitions, "no kill made anything be emitted again: they all missed"


def _named(struct: msgspec.Struct) -> dict[str, int]:
    return {name: getattr(struct, name) for name in struct.__struct_fields__}
