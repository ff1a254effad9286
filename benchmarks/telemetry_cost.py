"""What telemetry costs: on a tick without a signal, on a signal, and in memory.

Tick: live candle records through the feed's real router into a real segment, in one process, with one tick in a hundred
traced and exported, with the default (no ticks), and with telemetry off, in pairs that alternate; the median of the pairs'
differences, and of their rates' ratios. In a trader: CPU of a real trader's process that is called on every update, while
the feed traces and exports, and while it doesn't. Signal: what stands in its way (the header, the queue), and what is
done beside it after the acknowledgement: spans made, encoded and posted to a receiver, CPU of this process; the
receiver is another one. Peer: OpenTelemetry's SDK encoding the same spans, where opentelemetry-sdk and
opentelemetry-exporter-otlp-proto-common are installed. Memory: PSS of an interpreter with the feed's modules, more
for each way out.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web

from benchmarks._telemetry_ticks import (
    KAFKA,
    NOWHERE,
    exporting_us,
    feed_pairs,
    more_us,
    off_us,
    rate_ratio,
    receiver,
    tracing_to,
    trader_pairs,
)
from benchmarks.harness import Row, run, say
from chandlery.core.clocks import now_ns, wall_offset_ns
from chandlery.core.latency import account
from chandlery.core.signals import Completion, Signal, SignalStamps, completed, signal_id
from chandlery.core.topics import topics_of

#: Of ticks: where a pool asks for some, and the default.
SHARE: Final = 0.01
NONE: Final = 0.0


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
    tracing, _ = tracing_to(NOWHERE, 0.0)
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
    async with receiver() as endpoint:
        tracing, _ = tracing_to(endpoint, 0.0)
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
    # Many short passes: what the machine does meanwhile meets both sides of a pair.
    size, pairs = (3_000, 24) if quick else (10_000, 60)
    say("ticks in the feed")
    some = asyncio.run(feed_pairs(size, pairs, SHARE))
    none = asyncio.run(feed_pairs(size, pairs, NONE))
    say("ticks in a trader")
    traders = trader_pairs(100, 50 if quick else 300, SHARE)
    say("signals")
    way_us = in_the_way_us(5 if quick else 25)
    beside = asyncio.run(beside_us(500 if quick else 3_000))
    peer = sdk_us(10 if quick else 50)
    say("memory")
    memory = {way: statistics.median(memory_mb(way) for _ in range(1 if quick else 5)) for way in _WAYS}
    return [
        Row(
            "telemetry_cost/tick", more_us(some), "µs", goal=1.0,
            note=f"CPU more in the feed a live record, {SHARE:.0%} of ticks traced and exported; without telemetry "
            f"{off_us(some):.1f} µs; {sum(pair.on.traces for pair in some)} traces",
        ),
        Row(
            "telemetry_cost/tick_export", exporting_us(some), "µs",
            note=f"of that the export: {exporting_us(some) / SHARE:.0f} µs a trace",
        ),
        Row(
            "telemetry_cost/tick_default", more_us(none), "µs", goal=1.0,
            note="the same with traces of signals alone, the default",
        ),
        Row(
            "telemetry_cost/tick_in_trader", statistics.median(on - off for off, on in traders), "µs", goal=1.0,
            note=f"CPU more of a real trader's process a tick; without {statistics.median(off for off, _ in traders):.0f} µs. "
            "It has no telemetry in it: the difference is what the machine does",
        ),
        Row(
            "telemetry_cost/feed_ratio", rate_ratio(none), "of off", goal=0.97, direction="at least",
            note="records a second, router and segment alone: median of the pairs' ratios",
        ),
        Row(
            "telemetry_cost/feed_ratio_ticks", rate_ratio(some), "of off", goal=0.97, direction="at least",
            note=f"the same with {SHARE:.0%} of ticks traced and exported",
        ),
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
