"""Steps of a segment's growth: how long the longest and the last one take, by the number of series."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.harness import Row, run, say
from chandlery.workers.segment import SegmentWriter, _native

#: Series and rows of the file that grows into one for twice as many: a pool's usual most, and what few would have.
SIZES: Final = ((64, 1_000), (512, 1_000), (8_192, 100))
QUICK_SIZES: Final = SIZES[:2]
#: Candles between two steps: one is a lot, 32 more than can be copied, as in catch-up.
WRITTEN: Final = 1
IN_CATCH_UP: Final = 32
_STAMPS: Final = (0,) * 8


class Steps(NamedTuple):
    """CPU milliseconds of each step and of freeing the old file, and how long the whole growth took by the clock."""

    cpu_ms: list[float]
    freeing_ms: float
    took_ms: float


def grow(folder: Path, series: int, rows: int, written: int) -> Steps:
    """Grow a full segment, with candles of so many series written between the steps."""
    with SegmentWriter.create(str(folder / "segment"), rows=rows, series=series, bells=320) as writer:
        places = [writer.add_series(f"S{number}/USDT", "1m") for number in range(series)]
        cpu_ms: list[float] = []
        left: list[_native.Mapping] = []
        begun_s, steps, candle = time.monotonic(), writer.grow(2 * series, left=left), 0
        while True:
            at_ns = time.thread_time_ns()
            going = next(steps, steps) is not steps
            cpu_ms.append((time.thread_time_ns() - at_ns) / 1e6)
            if not going:
                took_ms, at_ns = (time.monotonic() - begun_s) * 1e3, time.thread_time_ns()
                left.clear()
                return Steps(cpu_ms, (time.thread_time_ns() - at_ns) / 1e6, took_ms)
            candle += 1
            for number in range(written):
                place = places[(candle * written + number) % series]
                writer.append(place, candle * 60_000, 1.0, 2.0, 0.5, 1.0, 3.0, 4, _STAMPS)


def measure(quick: bool) -> list[Row]:
    """The longest step but for the last; the last, in which the file is replaced; and what is left to do after it."""
    rows: list[Row] = []
    sizes = QUICK_SIZES if quick else SIZES
    for series, kept, written in (*((*size, WRITTEN) for size in sizes), (*SIZES[1], IN_CATCH_UP)):
        with tempfile.TemporaryDirectory(prefix="chandlery-growth-", dir="/dev/shm") as folder:
            steps = grow(Path(folder), series, kept, written)
        name = f"{series}_in_catch_up" if written == IN_CATCH_UP else f"{series}"
        say(f"{name} grown")
        note = f"CPU; {series:,} series of {kept:,} rows, {len(steps.cpu_ms)} steps, {steps.took_ms:.0f} ms in all"
        rows += [
            Row(f"segment_growth/longest_step_{name}", max(steps.cpu_ms[:-1]), "ms", note=note),
            Row(f"segment_growth/last_step_{name}", steps.cpu_ms[-1], "ms", note=note),
            Row(f"segment_growth/freeing_{name}", steps.freeing_ms, "ms", note=f"{note}; in a thread of the feed"),
        ]
    return rows


if __name__ == "__main__":
    run(measure, __doc__)
