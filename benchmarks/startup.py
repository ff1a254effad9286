"""A later ``chandlery up``: from the command's start to the first candle in a trader and the first signal that a person sees.

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
from chandlery.cli.instance import current_view
from chandlery.core.errors import UnavailableError
from chandlery.stream.broker import EmbeddedBroker

GOAL_S: Final = 15.0
GOAL_SIGNAL_S: Final = 30.0
_QUICKSTART: Final = Path(__file__).resolve().parent.parent / "examples" / "quickstart"
_DEADLINE_S: Final = 120.0


class Start(NamedTuple):
    """One start, s from the command."""

    segment_s: float
    candle_s: float
    signal_s: float


def signal_shown(state: Path, since_ms: int) -> bool:
    """Whether the instance shows a signal on a candle from then on: one of the run before may be published late."""
    try:
        return any(row.open_time_ms >= since_ms for row in current_view(state).signals)
    except UnavailableError:
        return False


def one_start(state: Path) -> Start:
    """Start, wait for the first call of any trader and for the first signal shown, stop."""
    calls_before = calls_of(state)
    segments_before = set(segments_of(state))
    begun_s, begun_ms = time.monotonic(), time.time_ns() // 1_000_000
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
        candle_s = time.monotonic() - begun_s
        until(lambda: signal_shown(state, begun_ms), _DEADLINE_S, "a signal", process, 0.1)
        return Start(segment_s, candle_s, time.monotonic() - begun_s)
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
    signal = statistics.median(each.signal_s for each in starts)
    slowest_signal = max(each.signal_s for each in starts)
    slowest = max(each.candle_s for each in starts)
    note = f"median of {count}, the slowest {slowest:.1f} s; floor: the broker's own start"
    return [
        Row("startup/first_candle", candle, "s", floor=floor, goal=GOAL_S, note=note),
        Row(
            "startup/first_signal",
            signal,
            "s",
            goal=GOAL_SIGNAL_S,
            note=f"median of {count}, the slowest {slowest_signal:.1f} s; acknowledged by the broker and in the view",
        ),
        Row("startup/segment", segment, "s", note="the feed has made its segment"),
    ]


if __name__ == "__main__":
    run(measure, __doc__)
