"""What telemetry costs on a tick: the feed's real router and segment, with the export of what is traced; real traders.

A pass takes the same records with telemetry or without; passes come in pairs, whose order alternates, so that what the
machine does meanwhile meets both sides. The receiver of traces is a process of its own.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Final, NamedTuple

from benchmarks._fleet import Fleet, memory_folder
from benchmarks._processes import cpu_ns
from benchmarks._trades import records, symbols
from chandlery.core.assignment import TraderAssignment
from chandlery.core.clocks import HEADER_NAME, HostClocks, Stamps, now_ns, wall_offset_ns
from chandlery.core.settings import FeedSettings, KafkaSettings, TelemetrySettings
from chandlery.core.topics import topics_of
from chandlery.core.wire import encode
from chandlery.stream.aggregation import AggregationPlan
from chandlery.stream.aggregator.partition import PartitionState
from chandlery.workers.feed.board import Receipt, SeriesBoard
from chandlery.workers.feed.router import Router
from chandlery.workers.feed.tracing import Tracing
from chandlery.workers.segment import SegmentWriter

KAFKA: Final = KafkaSettings("localhost:9092", "bench")
#: Nobody listens there: for what sends nothing.
NOWHERE: Final = "http://localhost:1"
_INTERVALS: Final = ["1s", "1m", "5m", "1h"]
_MARKETS: Final = 10
#: Trades of one market, µs of its time: a candle of 1s has 100, in 50 records.
_PER_TRADE_US: Final = 10_000
#: Of a trader's ticks: it sleeps in between, as in a market.
_PERIOD_S: Final = 0.001
#: After the last of them until it is called no more: a trader takes 0.1 ms.
_SETTLE_S: Final = 0.02
_DRAIN_S: Final = 60.0
#: Until every market has closed candles: 10 s of each.
_WARM_RECORDS: Final = 5_500
_QUIET: Final = """
from chandlery.workers.strategy import Strategy


class Quiet(Strategy):
    def on_candle(self, ctx, candles):
        candles.close[-20:].mean()
"""


class Raw(NamedTuple):
    """A consumed record, as the router sees it."""

    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


class Pass(NamedTuple):
    """One pass, µs a record: CPU of this process while records were taken in and afterwards until all traces had left,
    and the time that both took. traces: exported."""

    taking_us: float
    exporting_us: float
    whole_us: float
    traces: int


class Pair(NamedTuple):
    """Passes without telemetry and with it, one right after the other."""

    off: Pass
    on: Pass


def tracing_to(endpoint: str, share: float) -> tuple[Tracing, Receipt]:
    """The feed's tracing, with the rest of it left out."""
    receipt = Receipt()
    settings = FeedSettings("bench", KAFKA, "unix:/none", "", "", telemetry=TelemetrySettings(endpoint, "", share))
    return Tracing(settings, receipt, HostClocks(), {}), receipt


def candle_records(count: int) -> list[Raw]:
    """Candles of ten symbols in four intervals, as the aggregator's pure part emits them."""
    topics = topics_of(KAFKA)
    state = PartitionState(0, AggregationPlan(_INTERVALS), topics)
    made: list[Raw] = []
    for offset, record in enumerate(records(symbols(_MARKETS), 1 << 40, per_trade_us=_PER_TRADE_US, per_record=2)):
        now = now_ns()
        header = Stamps(0, now, now + wall_offset_ns(), now, now).pack(wall_offset_ns())
        for topic, key, value, _ in state.take(offset, record.symbol.encode(), encode(record)):
            made.append(Raw(topic, 0, len(made), key, value, [(HEADER_NAME, header)]))
        if len(made) >= count:
            break
    return made


@asynccontextmanager
async def receiver() -> AsyncIterator[str]:
    """An OTLP receiver in a process of its own, its endpoint."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.telemetry_cost", "--receiver", stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(await process.stdout.readline())}"
    finally:
        process.terminate()
        await process.wait()


class _Feed:
    """The parts of a feed that a tick goes through."""

    def __init__(self, path: str, tracing: Tracing | None, receipt: Receipt, trader: TraderAssignment) -> None:
        self.writer = SegmentWriter.create(path, rows=100, series=64, bells=4)
        self.counts: Counter[str] = Counter()
        self._live = topics_of(KAFKA).candles_live
        self._router = Router(self._live, self.counts, _refused)
        self._receipt = receipt
        self._board = SeriesBoard(self.writer, self._router, receipt, self.counts)
        for ref in self._board.want([trader], {trader.key: 0}):
            self._board.join(ref, self._board.tracks[ref])
        if tracing is not None:
            self.tell(tracing)

    def tell(self, tracing: Tracing | None) -> None:
        """From now on to this tracing, or to none."""
        self._router.told_below = 0
        if tracing is not None:
            self._router.tell, self._router.told_below = tracing.tick, tracing.ticks_below

    def take(self, record: Raw) -> None:
        """One record: a batch of its own, as in a quiet market; the traders are rung."""
        self._receipt.fed_ns = now_ns()
        if record.topic == self._live:
            self._router.live((record,))
        else:
            self._router.closed((record,))
        self._board.ring()

    def close(self) -> None:
        assert not self.counts["held"], self.counts
        self.writer.close()


def _refused(_record: object, reason: str) -> None:
    raise ValueError(reason)


def _trader(strategy: str = "x", **more: object) -> TraderAssignment:
    return TraderAssignment("b/t", "u", strategy, symbols(_MARKETS), "1s", **more)  # type: ignore[arg-type]


async def _pass(path: str, made: Sequence[Raw], tracing: Tracing, receipt: Receipt, *, on: bool) -> Pass:
    """Take all records in, and wait until what is told of them has left."""
    before = tracing.exported
    feed = _Feed(path, tracing if on else None, receipt, _trader())
    gc.collect()
    whole, begun = time.perf_counter_ns(), time.process_time_ns()
    for record in made:
        feed.take(record)
    taken = time.process_time_ns()
    if tracing.exported < tracing.built:
        await tracing.drain(_DRAIN_S)
    ended, whole = time.process_time_ns(), time.perf_counter_ns() - whole
    assert feed.counts["forming"] >= len(made) / 2, feed.counts
    assert tracing.exported == tracing.built, tracing.report()
    feed.close()
    each = 1_000 * len(made)
    return Pass((taken - begun) / each, (ended - taken) / each, whole / each, tracing.exported - before)


async def feed_pairs(size: int, pairs: int, share: float) -> list[Pair]:
    """Pairs of passes through the feed's part, of ``size`` records each.

    Args:
        share: of ticks that are traced where there is telemetry.
    """
    made = candle_records(size)
    found: list[Pair] = []
    async with receiver() as endpoint:
        tracing, receipt = tracing_to(endpoint, share)
        exporting = asyncio.create_task(tracing.run())
        with _folder() as folder:
            await _pass(f"{folder}/warm", made, tracing, receipt, on=True)
            for number in range(pairs):
                passes: dict[bool, Pass] = {}
                for on in (False, True) if number % 2 else (True, False):
                    passes[on] = await _pass(f"{folder}/{number}-{on}", made, tracing, receipt, on=on)
                found.append(Pair(passes[False], passes[True]))
        exporting.cancel()
        await asyncio.gather(exporting, return_exceptions=True)
    return found


def _median(pairs: Sequence[Pair], of: Callable[[Pair], float]) -> float:
    return statistics.median(of(pair) for pair in pairs)


def more_us(pairs: Sequence[Pair]) -> float:
    """CPU that a record takes more with telemetry, export included, µs."""
    return _median(
        pairs, lambda pair: pair.on.taking_us + pair.on.exporting_us - pair.off.taking_us - pair.off.exporting_us
    )


def exporting_us(pairs: Sequence[Pair]) -> float:
    """CPU of a record for the export of the share that is traced: spans made, encoded, posted, answered."""
    return _median(pairs, lambda pair: pair.on.exporting_us)


def off_us(pairs: Sequence[Pair]) -> float:
    """CPU of a record without telemetry, µs."""
    return _median(pairs, lambda pair: pair.off.taking_us)


def rate_ratio(pairs: Sequence[Pair]) -> float:
    """Records a second with telemetry by those without, each pair's by itself."""
    return _median(pairs, lambda pair: pair.off.whole_us / pair.on.whole_us)


def trader_pairs(ticks: int, pairs: int, share: float) -> list[tuple[float, float]]:
    """CPU of a real trader's process on a tick, µs: without telemetry in the feed, and with it and its export.

    It is called on every update, and never signals.
    """
    made = candle_records(_WARM_RECORDS + 2 * pairs * ticks)
    spec = _trader("Quiet", source=_QUIET, trigger="EveryUpdate", warmup=1)
    found: list[tuple[float, float]] = []
    with _folder() as folder, asyncio.Runner() as runner, ExitStack() as ending:
        receiving = receiver()
        tracing, receipt = tracing_to(runner.run(receiving.__aenter__()), share)
        ending.callback(lambda: runner.run(receiving.__aexit__(None, None, None)))
        exporting = runner.get_loop().create_task(tracing.run())
        feed = _Feed(f"{folder}/segment", None, receipt, spec)
        for record in made[:_WARM_RECORDS]:  # series that are there
            feed.take(record)
        at = _WARM_RECORDS
        with Fleet(folder, f"{folder}/segment", [spec]) as fleet:
            (pid,) = fleet.pids
            for number in range(pairs):
                used: dict[bool, float] = {}
                for on in (False, True) if number % 2 else (True, False):
                    feed.tell(tracing if on else None)
                    calls, before = fleet.counters("calls")[0], cpu_ns(pid)
                    runner.run(_paced(feed, made[at : at + ticks], tracing))
                    runner.run(_settled(lambda: fleet.counters("calls")[0], calls))
                    used[on] = (cpu_ns(pid) - before) / ticks / 1_000
                    at += ticks
                found.append((used[False], used[True]))
            assert not fleet.counters("signals")[0]
        assert tracing.exported == tracing.built > 0, tracing.report()
        exporting.cancel()
        runner.run(asyncio.wait([exporting]))
        feed.close()
    return found


async def _paced(feed: _Feed, made: Sequence[Raw], tracing: Tracing) -> None:
    """One record after the other, with time for the trader, and for the export, in between; all has left at the end."""
    for record in made:
        feed.take(record)
        await asyncio.sleep(_PERIOD_S)
    if tracing.exported < tracing.built:
        await tracing.drain(_DRAIN_S)


async def _settled(calls: Callable[[], int], before: int) -> None:
    """Until the trader has been called on ticks, and is no more: where others have the processor, several are one call."""
    async with asyncio.timeout(_DRAIN_S):
        seen = before
        while (now := calls()) == before or now != seen:
            seen = now
            await asyncio.sleep(_SETTLE_S)


@contextmanager
def _folder() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="chandlery-bench-", dir=memory_folder()) as folder:
        yield folder
