"""The aggregator's rate: trades a second of one core, into 1s, 1m, 5m and 1h, 10 symbols, 100 trades a record.

``pure``: decode, aggregate, encode, in this process. ``process``: the real one (Faust, a broker of this
benchmark's own, idempotent producer, checkpoints), by its own CPU time, so that it is a core's rate however
busy the machine is; the broker's and the benchmark's CPU aren't in it.

The exchange's clock moves by 1 ms a trade (every tenth record closes candles), in ``busy`` by 10 ms a trade
(every record closes one). Floor: a bare aiokafka ``getmany`` loop that only decodes the same records. Peer: a
Faust agent with a Table write per trade, on fewer records of the same topic.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks._processes import DEADLINE_S, Child, broker, child
from benchmarks._trades import PER_RECORD, append, records, symbols
from benchmarks.harness import Row, run, say
from chandlery.core.settings import AggregatorSettings, KafkaSettings
from chandlery.core.topics import topics_of
from chandlery.core.wire import decode_input, encode
from chandlery.stream.aggregation import AggregationPlan
from chandlery.stream.aggregator.partition import PartitionState
from chandlery.stream.topics import ensure_topics

INTERVALS: Final = ["1s", "1m", "5m", "1h"]
MARKETS: Final = 10
GOAL: Final = 100_000.0
_MODULE: Final = "chandlery.stream.aggregator"


def pure_rate(each: int, per_trade_us: int) -> float:
    """Trades a CPU second of :meth:`PartitionState.take`, JSON in and out included."""
    kafka = KafkaSettings(bootstrap="", feed="bench")
    markets = symbols(MARKETS)
    made = [
        (record.symbol.encode(), encode(record)) for record in records(markets, each + 2, per_trade_us=per_trade_us)
    ]
    state = PartitionState(0, AggregationPlan(INTERVALS), topics_of(kafka))
    warm = 2 * MARKETS
    for offset, (key, value) in enumerate(made[:warm]):
        state.take(offset, key, value)
    begun_s = time.process_time()
    for offset, (key, value) in enumerate(made[warm:], warm):
        state.take(offset, key, value)
    return (len(made) - warm) * PER_RECORD / (time.process_time() - begun_s)


async def decode_rate(kafka: KafkaSettings, count: int) -> float:
    """The floor: trades a CPU second of fetching and decoding."""
    topic = topics_of(kafka).trades
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, enable_auto_commit=False)
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in range(kafka.partitions)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        begun_s, taken = time.process_time(), 0
        while taken < count:
            for batch in (await consumer.getmany(timeout_ms=1_000)).values():
                for record in batch:
                    decode_input(record.value)
                taken += len(batch)
        return taken * PER_RECORD / (time.process_time() - begun_s)
    finally:
        await consumer.stop()


async def process_rate(kafka: KafkaSettings, count: int, folder: Path) -> tuple[float, float]:
    """The real process: trades a CPU second, and trades a second of wall time, from the first tenth on."""
    socket = str(folder / "aggregator.sock")
    settings = AggregatorSettings(
        kafka=kafka, intervals=INTERVALS, status_listen=f"unix:{socket}", data_dir=str(folder / "data")
    )
    with child(_MODULE, settings, socket, folder) as aggregator:
        first = await aggregator.until(lambda status: status["records"] >= count // 10, "the first tenth", 0.05)
        begun = _Moment(aggregator)
        await aggregator.until(lambda status: status["records"] >= count, "all records", 0.1)
        ended = _Moment(aggregator)
    trades = (count - first["records"]) * PER_RECORD
    return trades / (ended.cpu_s - begun.cpu_s), trades / (ended.wall_s - begun.wall_s)


class _Moment:
    def __init__(self, process: Child) -> None:
        self.cpu_s = process.cpu_s()
        self.wall_s = time.monotonic()


async def naive_rate(kafka: KafkaSettings, trades: int) -> float:
    """The peer: trades a CPU second of the naive agent."""
    words = [kafka.bootstrap, topics_of(kafka).trades, str(kafka.partitions), str(trades)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks._naive_faust", *words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), DEADLINE_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    done, cpu_s = output.split()
    return int(done) / float(cpu_s)


async def _measure(quick: bool) -> list[Row]:
    # Each market's records; a record is 100 trades.
    each, busy_each, naive_trades = (700, 150, 6_000) if quick else (4_000, 1_000, 30_000)
    rows = []
    say("pure")
    pure = pure_rate(each // 2, 1_000)
    pure_busy = pure_rate(busy_each, 10_000)
    with tempfile.TemporaryDirectory(prefix="chandlery-bench-") as folder:
        async with broker() as kafka_process:
            kafka = KafkaSettings(bootstrap=kafka_process.bootstrap, feed="dense")
            busy = KafkaSettings(bootstrap=kafka_process.bootstrap, feed="busy")
            rates: dict[str, tuple[float, float]] = {}
            for settings, records_each, per_trade_us in ((kafka, each, 1_000), (busy, busy_each, 10_000)):
                await ensure_topics(settings)
                say(f"{settings.feed}: appending {records_each * MARKETS * PER_RECORD:,} trades")
                count = await append(settings, records(symbols(MARKETS), records_each, per_trade_us=per_trade_us))
                say(f"{settings.feed}: the real aggregator")
                place = Path(folder) / settings.feed
                place.mkdir()
                rates[settings.feed] = await process_rate(settings, count, place)
            say("floor and peer")
            floor = await decode_rate(kafka, each * MARKETS)
            peer = await naive_rate(kafka, naive_trades)
    counted = f"{each * MARKETS * PER_RECORD * 9 // 10:,} trades; floor: getmany and decode alone, the same records"
    of_peer = f"peer: Faust with a Table write per trade, {naive_trades:,} trades"
    rows = [
        Row("aggregation/process", rates["dense"][0], "trades/s/core", peer, floor, GOAL, "at least"),
        Row("aggregation/process_busy", rates["busy"][0], "trades/s/core", peer, floor, GOAL, "at least"),
        Row("aggregation/pure", pure, "trades/s/core", None, floor),
        Row("aggregation/pure_busy", pure_busy, "trades/s/core", None, floor),
        Row("aggregation/process_wall", rates["dense"][1], "trades/s"),
    ]
    rows[0].note = f"{counted}; {of_peer}"
    rows[1].note = f"every record closes a 1s candle; {busy_each * MARKETS * PER_RECORD * 9 // 10:,} trades"
    rows[2].note = "decode, aggregate, encode; no Kafka, no Faust"
    rows[4].note = "wall clock, broker on the same cores"
    return rows


def measure(quick: bool) -> list[Row]:
    """Pure and real, floor and peer."""
    return asyncio.run(_measure(quick))


if __name__ == "__main__":
    run(measure, __doc__)
