"""What telemetry costs: on a tick without a signal, on a signal, and in memory.

Tick: live candle records through the feed's real router into a real segment, in one process, with one tick in a hundred
traced and with telemetry off, in turns; the difference of the medians. A trader has nothing of telemetry in its process
at all: its side of a tick is the same either way. Signal: what stands in its way (the header, the queue), and what is
done beside it after the acknowledgement: spans made, encoded and posted to a receiver, CPU of this process; the
receiver is another one. Peer: OpenTelemetry's SDK encoding the same spans, where opentelemetry-sdk and
opentelemetry-exporter-otlp-proto-common are installed. Memory: PSS of an interpreter with the feed's modules, more
for each way out.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from aiohttp import web

from benchmarks._fleet import memory_folder
from benchmarks._trades import records, symbols
from benchmarks.harness import Row, run, say
from chandlery.core.assignment import TraderAssignment
from chandlery.core.clocks import HEADER_NAME, HostClocks, Stamps, now_ns, wall_offset_ns
from chandlery.core.latency import account
from chandlery.core.settings import FeedSettings, KafkaSettings, TelemetrySettings
from chandlery.core.signals import Completion, Signal, SignalStamps, completed, signal_id
from chandlery.core.topics import topics_of
from chandlery.core.wire import encode
from chandlery.stream.aggregation import AggregationPlan
from chandlery.stream.aggregator.partition import PartitionState
from chandlery.workers.feed.board import Receipt, SeriesBoard
from chandlery.workers.feed.router import Router
from chandlery.workers.feed.tracing import Tracing
from chandlery.workers.segment import SegmentWriter

KAFKA: Final = KafkaSettings("localhost:9092", "bench")
SHARE: Final = 0.01
_INTERVALS: Final = ["1s", "1m", "5m", "1h"]
_MARKETS: Final = 10


class _Raw(NamedTuple):
    """A consumed record, as the router sees it."""

    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


def tracing_to(endpoint: str, share: float) -> tuple[Tracing, Receipt]:
    """The feed's tracing, with the rest of it left out."""
    receipt = Receipt()
    settings = FeedSettings("bench", KAFKA, "unix:/none", "", "", telemetry=TelemetrySettings(endpoint, "", share))
    return Tracing(settings, receipt, HostClocks(), {}), receipt


def candle_records(count: int) -> list[_Raw]:
    """Candles of ten symbols in four intervals, as the aggregator's pure part emits them."""
    topics = topics_of(KAFKA)
    state = PartitionState(0, AggregationPlan(_INTERVALS), topics)
    made: list[_Raw] = []
    for offset, record in enumerate(records(symbols(_MARKETS), 1 << 40, per_trade_us=10_000, per_record=2)):
        now = now_ns()
        header = Stamps(0, now, now, now, now).pack(wall_offset_ns())
        for topic, key, value, _ in state.take(offset, record.symbol.encode(), encode(record)):
            made.append(_Raw(topic, 0, len(made), key, value, [(HEADER_NAME, header)]))
        if len(made) >= count:
            break
    return made


def tick_us(folder: str, size: int, rounds: int) -> tuple[float, float]:
    """µs of a record without and with telemetry; every record is a batch of its own, as in a quiet market."""
    batches, live = candle_records(size), topics_of(KAFKA).candles_live
    off: list[float] = []
    on: list[float] = []
    for number in range(2 * rounds):
        traced = bool(number % 2)
        writer = SegmentWriter.create(f"{folder}/segment-{number}", rows=100, series=64, bells=4)
        counts: Counter[str] = Counter()
        router = Router(topics_of(KAFKA).candles_live, counts, _refused)
        tracing, receipt = tracing_to("http://localhost:1", SHARE)
        board = SeriesBoard(writer, router, receipt, counts)
        trader = TraderAssignment("b/t", "u", "x", symbols(_MARKETS), "1s")
        for ref in board.want([trader], {trader.key: 0}):
            board.join(ref, board.tracks[ref])
        if traced:
            router.tell, router.told_below = tracing.tick, tracing.ticks_below
        gc.collect()
        begun = time.process_time_ns()
        for batch in batches:
            receipt.fed_ns = now_ns()
            if batch.topic == live:
                router.live((batch,))
            else:
                router.closed((batch,))
        (on if traced else off).append((time.process_time_ns() - begun) / len(batches) / 1_000)
        assert bool(tracing.built) == traced
        assert counts["forming"] >= len(batches) / 2, counts
        assert not counts["held"], counts
        writer.close()
    return statistics.median(off), statistics.median(on)


def _refused(_record: object, reason: str) -> None:
    raise ValueError(reason)


def a_signal(number: int) -> tuple[Signal, Completion]:
    """An acknowledged signal with every stamp."""
    at, offset = now_ns(), wall_offset_ns()
    placed = [
        at + offset,
        at - 10_000_000,
        at + offset - 9_000_000,
        *[at - part * 1_000_000 for part in range(8, 1, -1)],
    ]
    stamps = SignalStamps(*placed)
    stamps.wall_offset_ns = offset
    identity = signal_id(
        trader="b/t", uid="u", code="c", symbol="BTC/USDT", interval="1m", open_time_ms=number, rule="cross", ordinal=0
    )
    signal = Signal(
        identity, "b/t", "sma-cross", "c", "cross", 0, "buy", "BTC/USDT", "1m", number, 0, "61000.5", 0.5,
        "fast average crossed above", strategy_ns=200_000, stamps=stamps,
    )  # fmt: skip
    return signal, Completion(identity, "b/t", at, offset)


def in_the_way_us(rounds: int) -> float:
    """µs a signal that telemetry takes before the signal is done with: header, completion, queue."""
    tracing, _ = tracing_to("http://localhost:1", 0.0)
    made = [a_signal(number) for number in range(1_000)]
    told = [account(completed(signal.stamps, completion)) for signal, completion in made]
    samples = []
    for _ in range(rounds):
        begun = time.process_time_ns()
        for (signal, completion), one in zip(made, told, strict=True):
            tracing.traceparent(signal)
            tracing.completed(signal, tracing.complete(completion), signal.stamps, one)
        samples.append((time.process_time_ns() - begun) / len(made) / 1_000)
    return statistics.median(samples)


async def beside_us(signals: int) -> float:
    """CPU µs a signal of making, encoding and posting its trace; the receiver is another process."""
    receiver = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.telemetry_cost", "--receiver", stdout=subprocess.PIPE
    )
    assert receiver.stdout is not None
    try:
        port = int(await receiver.stdout.readline())
        tracing, _ = tracing_to(f"http://127.0.0.1:{port}", 0.0)
        sending = asyncio.create_task(tracing.run())
        for warm in (True, False):
            for number in range(signals):
                signal, completion = a_signal(number)
                stamps = completed(signal.stamps, completion)
                tracing.completed(signal, completion, stamps, account(stamps))
            begun = time.process_time_ns()
            await tracing.drain(60.0)
            if not warm:
                used_us = (time.process_time_ns() - begun) / signals / 1_000
        assert tracing.exported == 2 * signals, tracing.report()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        return used_us
    finally:
        receiver.terminate()
        await receiver.wait()


def receive() -> None:
    """Be the receiver: take everything, on a port told on stdout."""

    async def take(request: web.Request) -> web.Response:
        await request.read()
        return web.Response()

    async def serve() -> None:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_post("/v1/traces", take)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        print(runner.addresses[0][1], flush=True)
        await asyncio.Event().wait()

    asyncio.run(serve())


def sdk_us(rounds: int) -> float | None:
    """CPU µs of OpenTelemetry's SDK for the spans of one signal, made and encoded; None where it isn't installed."""
    try:
        from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import SpanContext, TraceFlags
    except ImportError:
        return None
    from chandlery.core.telemetry import signal_spans

    signal, completion = a_signal(0)
    stamps = completed(signal.stamps, completion)
    spans = signal_spans(signal, stamps, account(stamps), topics_of(KAFKA), partition=0)
    resource = Resource({"service.name": "chandlery-feed"})

    def once() -> None:
        made: list[Any] = []
        for span in spans:
            context = SpanContext(
                int.from_bytes(span.trace_id), int.from_bytes(span.span_id), is_remote=False, trace_flags=TraceFlags(1)
            )
            made.append(
                ReadableSpan(
                    span.name, context, None, resource, span.attributes, start_time=span.start_ns, end_time=span.end_ns
                )
            )
        encode_spans(made).SerializeToString()

    return _median_us(once, rounds)


def _median_us(work: Callable[[], None], rounds: int) -> float:
    samples = []
    for _ in range(rounds):
        begun = time.process_time_ns()
        for _ in range(20):
            work()
        samples.append((time.process_time_ns() - begun) / 20_000)
    return statistics.median(samples)


_WAYS: Final = {
    "off": "",
    "metrics": "import chandlery.workers.feed.metrics",
    "http": "from chandlery.core.telemetry import trace_export as t\n"
    "from chandlery.workers.feed.otlp import exporter_to\n"
    "exporter_to(t(TelemetrySettings('http://localhost:1'), {}))",
    "grpc": "from chandlery.core.telemetry import trace_export as t\n"
    "from chandlery.workers.feed.otlp import exporter_to\n"
    "exporter_to(t(TelemetrySettings('http://localhost:1', 'grpc'), {}))",
}


def memory_mb(way: str) -> float:
    """PSS, MB, of an interpreter that has loaded the feed and one way out."""
    # Read without the module that would bring Prometheus' client along.
    text = f"""
import chandlery.workers.feed.service
from chandlery.core.settings import TelemetrySettings
{_WAYS[way]}
for line in open("/proc/self/smaps_rollup"):
    if line.startswith("Pss:"):
        print(int(line.split()[1]) * 1024)
"""
    done = subprocess.run([sys.executable, "-c", text], stdout=subprocess.PIPE, check=True)
    return int(done.stdout) / 1e6


def measure(quick: bool) -> list[Row]:
    """Ticks, signals, memory."""
    logging.disable(logging.INFO)  # the line in the log is there with telemetry or without
    say("ticks")
    with tempfile.TemporaryDirectory(prefix="chandlery-bench-", dir=memory_folder()) as folder:
        off_us, on_us = tick_us(folder, 5_000 if quick else 20_000, 5 if quick else 15)
    say("signals")
    way_us = in_the_way_us(5 if quick else 25)
    beside = asyncio.run(beside_us(500 if quick else 3_000))
    peer = sdk_us(10 if quick else 50)
    say("memory")
    memory = {way: statistics.median(memory_mb(way) for _ in range(1 if quick else 5)) for way in _WAYS}
    return [
        Row(
            "telemetry_cost/tick", on_us - off_us, "µs", goal=1.0,
            note=f"a live record takes the feed {off_us:.1f} µs of CPU without; with {SHARE:.0%} of ticks traced. "
            "Traders have nothing of it",
        ),
        Row("telemetry_cost/feed_ratio", off_us / on_us, "of off", goal=0.97, direction="at least"),
        Row("telemetry_cost/signal_in_the_way", way_us, "µs", note="header, completion, queue"),
        Row(
            "telemetry_cost/signal_beside", beside, "µs", peer=peer, goal=150.0,
            note="CPU, after the acknowledgement: spans, encoding, HTTP; peer: OpenTelemetry's SDK, made and encoded only",
        ),
        *[
            Row(f"telemetry_cost/memory_{way}", memory[way] - memory["off"], "MB", note="PSS more of a feed")
            for way in _WAYS
            if way != "off"
        ],
    ]  # fmt: skip


if __name__ == "__main__":
    if "--receiver" in itertools.islice(sys.argv, 1, None):
        receive()
    else:
        run(measure, __doc__)
