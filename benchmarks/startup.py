"""A later ``chandlery up``: from the command's start to the first candle in a trader, on a warm machine.

The quickstart's manifests over one state folder. The first run, which makes topics, caches and state, is left
out. ``segment`` is when the feed has made its segment (the broker serves by then). Floor: the embedded broker's
own start over data that it has started with before.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks._up import calls_of, segments_of, start, state_folder, stop, until
from benchmarks.harness import Row, run, say
from chandlery.stream.broker import EmbeddedBroker

GOAL_S: Final = 15.0
_QUICKSTART: Final = Path(__file__).resolve().parent.parent / "examples" / "quickstart"
_DEADLINE_S: Final = 120.0


class Start(NamedTuple):
    """One start, s from the command."""

    segment_s: float
    candle_s: float


def one_start(state: Path) -> Start:
    """Start, wait for the first call of any trader, stop."""
    calls_before = calls_of(state)
    segments_before = set(segments_of(state))
    begun_s = time.monotonic()
    process = start(_QUICKSTART, state)
    try:
        until(
            lambda: any(path.exists() for path in set(segments_of(state)) - segments_before),
            _DEADLINE_S,
            "a segment",
            process,
        )
        segment_s = time.monotonic() - begun_s
        until(
            lambda: any(calls > calls_before.get(trader, 0) for trader, calls in calls_of(state).items()),
            _DEADLINE_S,
            "a trader called",
            process,
        )
        return Start(segment_s, time.monotonic() - begun_s)
    finally:
        stop(process)


async def broker_starts(count: int) -> list[float]:
    """Seconds of later starts of the broker alone."""
    taken: list[float] = []
    with tempfile.TemporaryDirectory(prefix="chandlery-bench-") as folder:
        broker = EmbeddedBroker(Path(folder) / "broker")
        try:
            for _ in range(count + 1):
                begun_s = time.monotonic()
                await broker.start()
                taken.append(time.monotonic() - begun_s)
                await broker.stop()
        finally:
            broker.kill()
    return taken[1:]


def measure(quick: bool) -> list[Row]:
    """Some starts over the same folder; medians."""
    count = 1 if quick else 5
    with state_folder() as folder:
        say("the first run, which doesn't count")
        one_start(folder / "s")
        starts = []
        for number in range(count):
            say(f"start {number + 1} of {count}")
            starts.append(one_start(folder / "s"))
    say("floor: the broker alone")
    floor = statistics.median(asyncio.run(broker_starts(count)))
    candle = statistics.median(each.candle_s for each in starts)
    segment = statistics.median(each.segment_s for each in starts)
    slowest = max(each.candle_s for each in starts)
    note = f"median of {count}, the slowest {slowest:.1f} s; floor: the broker's own start"
    return [
        Row("startup/first_candle", candle, "s", floor=floor, goal=GOAL_S, note=note),
        Row("startup/segment", segment, "s", note="the feed has made its segment"),
    ]


if __name__ == "__main__":
    run(measure, __doc__)
