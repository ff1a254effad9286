"""The feed's rate: records a second into the segment, against a bare aiokafka ``getmany`` loop.

The records are those of the real aggregator's pure part for 10 symbols into 1s, 1m, 5m and 1h, two trades a
record (what 100 trades a second and symbol come to), stamps included, in ``candles-live``, ``candles-fast`` and
``candles``. The feed is the real process with 20 Traders on all 40 series, half of them rung on every update. It
is stopped (SIGSTOP) while a backlog is appended, then let go: the time is from there until the segment shows the
last candle of every symbol. The bare loop then consumes the same records twice, with the same client settings; the
second time counts. Figures are medians over the rounds. In a backlog the newest forming record of a symbol replaces
the older ones of its batch; ``cpu_live`` is at 1,000 records a second, where nearly every record is taken in.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from aiokafka import AIOKafkaProducer

from benchmarks._bare_getmany import Span
from benchmarks._fleet import memory_folder
from benchmarks._processes import DEADLINE_S, Child, broker, child
from benchmarks._trades import records, symbols
from benchmarks.harness import Row, run, say
from chandlery.core.assignment import Assignment, SeriesRef, TraderAssignment, content_hash
from chandlery.core.clocks import HEADER_NAME, Stamps, now_ns, wall_offset_ns
from chandlery.core.settings import FeedSettings, KafkaSettings
from chandlery.core.topics import partition_of, topics_of
from chandlery.core.wire import TradesRecord, decode_candles, encode
from chandlery.stream.aggregation import AggregationPlan
from chandlery.stream.aggregator.partition import Outgoing, PartitionState
from chandlery.stream.topics import end_offsets, ensure_topics
from chandlery.workers.segment import SegmentReader

INTERVALS: Final = ["1s", "1m", "5m", "1h"]
MARKETS: Final = 10
TRADERS: Final = 20
GOAL: Final = 0.8
LIVE_PER_S: Final = 1_000
_MODULE: Final = "chandlery.workers.feed"

#: Open time and number of trades of the forming 1s candle, by symbol: what the segment shows in the end.
Newest = dict[str, tuple[int, int]]


class Round(NamedTuple):
    """One backlog, consumed by the feed and by the bare loop; seconds."""

    records: int
    feed_s: float
    feed_cpu_s: float
    bare_s: float
    bare_cpu_s: float


class CandleSource:
    """What the aggregator appends for an endless synthetic market."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka: Final = kafka
        self._topics: Final = topics_of(kafka)
        self._state: Final = PartitionState(0, AggregationPlan(INTERVALS), self._topics)
        self._trades: Final[Iterator[TradesRecord]] = records(
            symbols(MARKETS), 1 << 40, per_trade_us=10_000, per_record=2
        )
        self._offset = 0

    def make(self, trades_records: int) -> list[Outgoing]:
        """The outputs of so many more trades records."""
        made: list[Outgoing] = []
        for record in itertools.islice(self._trades, trades_records):
            made += self._state.take(self._offset, record.symbol.encode(), encode(record))
            self._offset += 1
        return made

    async def append(self, made: list[Outgoing], per_s: float = math.inf) -> Newest:
        """Append outputs, at most ``per_s`` a second; what they come to."""
        newest: Newest = {}
        due_s = time.monotonic()
        producer = AIOKafkaProducer(bootstrap_servers=self._kafka.bootstrap, acks="all", max_batch_size=262_144)
        await producer.start()
        wall_offset = wall_offset_ns()
        try:
            for topic, key, value, _ in made:
                due_s += 1 / per_s
                if due_s > time.monotonic():
                    await asyncio.sleep(due_s - time.monotonic())
                now = now_ns()
                header = Stamps(now, now, now, now, now).pack(wall_offset)
                partition = partition_of(key.decode(), self._kafka.partitions)
                await producer.send(topic, value, key=key, partition=partition, headers=[(HEADER_NAME, header)])
                if topic == self._topics.candles_live:
                    newest[key.decode()] = _forming(value)
        finally:
            await producer.stop()
        return newest


def _forming(value: bytes) -> tuple[int, int]:
    update = next(update for update in decode_candles(value).updates if update.interval == INTERVALS[0])
    return update.open_time_ms, update.trades


def _assignment() -> Assignment:
    names = symbols(MARKETS)
    traders = [
        TraderAssignment(
            trader=f"bench/trader-{index}",
            uid=str(index),
            strategy="sma-cross",
            symbols=[names[index % MARKETS]],
            interval=INTERVALS[index // MARKETS % 2],
            informative=[SeriesRef(names[index % MARKETS], interval) for interval in INTERVALS],
            trigger="EveryUpdate" if index % 2 else "CandleClose",
        )
        for index in range(TRADERS)
    ]
    return Assignment("bench", 1, content_hash(traders), traders)


async def _ends(kafka: KafkaSettings) -> dict[tuple[str, int], int]:
    topics = topics_of(kafka)
    return {
        (topic, partition): end
        for topic in (topics.candles_live, topics.candles_fast, topics.candles)
        for partition, end in (await end_offsets(kafka, topic)).items()
    }


async def _await_newest(segment: str, newest: Newest) -> None:
    deadline = time.monotonic() + DEADLINE_S
    with SegmentReader.open(segment) as reader:
        for symbol, wanted in newest.items():
            series = reader.series(symbol, INTERVALS[0])
            assert series is not None, f"the feed has no series {symbol}"
            while (row := series.forming()) is None or (row.open_time_ms, row.trades) != wanted:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{symbol}: the segment has {row}, {wanted} is the newest")
                await asyncio.sleep(0.001)


async def _bare(kafka: KafkaSettings, spans: list[Span], *options: str) -> tuple[float, float]:
    words = ["-m", "benchmarks._bare_getmany", kafka.bootstrap, msgspec.json.encode(spans).decode(), *options]
    process = await asyncio.create_subprocess_exec(sys.executable, *words, stdout=subprocess.PIPE)
    output, _ = await asyncio.wait_for(process.communicate(), DEADLINE_S)
    wall_s, cpu_s = output.split()
    return float(wall_s), float(cpu_s)


async def _round(kafka: KafkaSettings, feed: Child, segment: str, source: CandleSource, size: int) -> Round:
    before = await _ends(kafka)
    os.kill(feed.pid, signal.SIGSTOP)
    try:
        made = source.make(size)
        newest = await source.append(made)
        begun_cpu_s, begun_s = feed.cpu_s(), time.monotonic()
    finally:
        os.kill(feed.pid, signal.SIGCONT)
    await _await_newest(segment, newest)
    feed_s, feed_cpu_s = time.monotonic() - begun_s, feed.cpu_s() - begun_cpu_s
    after = await _ends(kafka)
    spans = [(*place, before[place], after[place]) for place in after if after[place] > before[place]]
    bare_s, bare_cpu_s = await _bare(kafka, spans)
    return Round(len(made), feed_s, feed_cpu_s, bare_s, bare_cpu_s)


async def _live(
    kafka: KafkaSettings, feed: Child, segment: str, source: CandleSource, size: int
) -> tuple[float, float]:
    """CPU µs a record at LIVE_PER_S: of the feed, and of the bare loop beside it."""
    before = await _ends(kafka)
    made = source.make(size)
    count: Counter[tuple[str, int]] = Counter()
    for topic, key, _, _ in made:
        count[topic, partition_of(key.decode(), kafka.partitions)] += 1
    spans = [(*place, before[place], before[place] + number) for place, number in count.items()]
    bare = asyncio.create_task(_bare(kafka, spans, "once"))
    begun_s = feed.cpu_s()
    newest = await source.append(made, LIVE_PER_S)
    await _await_newest(segment, newest)
    feed_s = feed.cpu_s() - begun_s
    _, bare_s = await bare
    return feed_s / len(made) * 1e6, bare_s / len(made) * 1e6


async def _rounds(quick: bool) -> tuple[list[Round], tuple[float, float]]:
    rounds, size = (3, 50_000) if quick else (7, 120_000)
    with (
        tempfile.TemporaryDirectory(prefix="chandlery-bench-") as folder,
        tempfile.TemporaryDirectory(prefix="chandlery-bench-", dir=memory_folder()) as memory,
    ):
        async with broker() as kafka_process:
            kafka = KafkaSettings(bootstrap=kafka_process.bootstrap, feed="bench")
            await ensure_topics(kafka)
            socket = f"{folder}/feed.sock"
            settings = FeedSettings("bench", kafka, f"unix:{socket}", shm_dir=memory, rings_dir=f"{folder}/rings")
            with child(_MODULE, settings, socket, Path(folder)) as feed:
                await feed.until(lambda status: status["feed"]["broker_connected"], "feed up", 0.1)
                taken = await feed.put("/v1/assignment", msgspec.json.encode(_assignment()))
                assert taken == 200, f"the feed answers {taken} to the assignment"
                series = MARKETS * len(INTERVALS)
                await feed.until(
                    lambda status: status["feed"]["series"] == series and not status["feed"]["catching_up"], "series"
                )
                source = CandleSource(kafka)
                await _await_newest(f"{memory}/segment", await source.append(source.make(2_000)))
                done = []
                for number in range(rounds):
                    say(f"round {number + 1} of {rounds}")
                    done.append(await _round(kafka, feed, f"{memory}/segment", source, size))
                say(f"{LIVE_PER_S:,} records a second")
                return done, await _live(kafka, feed, f"{memory}/segment", source, 4_000 if quick else 20_000)


def measure(quick: bool) -> list[Row]:
    """Rates, their ratio, CPU a record."""
    rounds, (live_us, bare_live_us) = asyncio.run(_rounds(quick))
    feed = statistics.median(each.records / each.feed_s for each in rounds)
    bare = statistics.median(each.records / each.bare_s for each in rounds)
    ratio = statistics.median(each.bare_s / each.feed_s for each in rounds)
    feed_cpu_us = statistics.median(each.feed_cpu_s / each.records * 1e6 for each in rounds)
    bare_cpu_us = statistics.median(each.bare_cpu_s / each.records * 1e6 for each in rounds)
    counts = f"median of {len(rounds)} backlogs of {rounds[0].records:,} records; floor: a bare getmany loop"
    return [
        Row("feed_rate/ratio", ratio, "of bare", goal=GOAL, direction="at least", note=f"wall clock; {counts}"),
        Row("feed_rate/records", feed, "records/s", floor=bare, note=counts),
        Row("feed_rate/cpu", feed_cpu_us, "µs/record", floor=bare_cpu_us, note="CPU of the feed process a record"),
        Row(
            "feed_rate/cpu_live",
            live_us,
            "µs/record",
            floor=bare_live_us,
            note=f"at {LIVE_PER_S:,} records a second, where no record is replaced by a newer one of its batch",
        ),
        Row("feed_rate/ratio_cpu", bare_cpu_us / feed_cpu_us, "of bare", note="bare CPU over the feed's, a record"),
    ]


if __name__ == "__main__":
    run(measure, __doc__)
