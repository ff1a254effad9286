"""A million series subscribed to and unsubscribed from: what a feed's memory does meanwhile."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Final

from benchmarks._soak import WARM_UP_CYCLES, Held, Soak
from benchmarks.harness import Row, run, say

CYCLES: Final = 1_000_000
QUICK_CYCLES: Final = 200_000
#: The cache of partitions (65,536 names, the same at any moment) is one dict of 5 MB, which moves now and then and may leave
#: its old place unused. Anything kept by name would be 60 bytes a cycle at least: 60 MB by the million.
RSS_GOAL_BYTES: Final = 8_000_000


async def soak(folder: Path, cycles: int) -> tuple[Held, Held, float]:
    """What is held after the warm-up and at the end, and CPU seconds between."""
    made = Soak(folder)
    try:
        await made.warm_up()
        before = made.held()
        begun_s = time.process_time()
        await made.run(cycles, lambda done: say(f"{done:,} cycles") if done % 160_000 == 0 else None)
        taken_s = time.process_time() - begun_s
        return before, made.held(), taken_s
    finally:
        await made.end()


def measure(quick: bool) -> list[Row]:
    """Growth of everything between warm-up and end."""
    cycles = QUICK_CYCLES if quick else CYCLES
    with tempfile.TemporaryDirectory(prefix="chandlery-soak-", dir="/dev/shm") as folder:
        before, after, taken_s = asyncio.run(soak(Path(folder), cycles))
    note = f"{cycles:,} cycles after {WARM_UP_CYCLES:,} of warm-up"
    return [
        Row(
            "segment_soak/rss_grown",
            after.rss_bytes - before.rss_bytes,
            "bytes",
            goal=RSS_GOAL_BYTES,
            note=f"{note}; {before.rss_bytes / 1e6:.1f} MB before",
        ),
        Row("segment_soak/objects_grown", after.objects - before.objects, "objects", goal=1_000, note=note),
        Row("segment_soak/mappings_grown", after.mappings - before.mappings, "mappings", goal=8, note=note),
        Row("segment_soak/descriptors_grown", after.descriptors - before.descriptors, "descriptors", goal=0, note=note),
        Row("segment_soak/file_grown", after.file_bytes - before.file_bytes, "bytes", goal=0, note=note),
        Row("segment_soak/cycle", taken_s / cycles * 1e6, "µs", note="CPU, candles and a reader's look included"),
    ]


if __name__ == "__main__":
    run(measure, __doc__)
