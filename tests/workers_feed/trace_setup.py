"""Signals that have come all the way, and traces of them that are sent."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tests.workers_feed.feed_setup import feed_settings, signal

from chandlery.core.clocks import now_ns, wall_offset_ns
from chandlery.core.latency import account
from chandlery.core.settings import FeedSettings, KafkaSettings, TelemetrySettings
from chandlery.core.signals import Completion, Signal, SignalStamps, completed
from chandlery.workers.feed.tracing import Tracing


def stamped(number: int, name: str = "a") -> Signal:
    """A signal that has come all the way just now."""
    at, offset = now_ns() - 10_000_000, wall_offset_ns()
    placed = [at + offset - 3_000_000, at, at + offset + 1_000_000, *[at + part * 1_000_000 for part in range(2, 9)]]
    stamps = SignalStamps(*placed)
    stamps.wall_offset_ns = offset
    return signal(name, number, stamps=stamps)


def traced(tmp_path: Path, kafka: KafkaSettings, endpoint: str, protocol: Any = "", **more: Any) -> FeedSettings:
    return feed_settings(tmp_path, kafka, telemetry=TelemetrySettings(endpoint, protocol, **more))


def tell(made: Tracing, signals: list[Signal]) -> None:
    """The broker has acknowledged these."""
    for one in signals:
        completion = Completion(one.id, one.trader, now_ns(), wall_offset_ns())
        stamps = completed(one.stamps, completion)
        made.completed(one, completion, stamps, account(stamps))


async def exported(made: Tracing, signals: list[Signal]) -> int:
    """Send the traces of acknowledged signals; how many the receiver took."""
    tell(made, signals)
    running = asyncio.create_task(made.run())
    await made.drain(30.0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    made.end()
    return made.exported
