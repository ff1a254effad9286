"""The console in Debian's Chromium: an hour of switching views, simulated fast, over a lively API with 20 Traders.

Somebody who looks at another view every ten seconds switches 360 times an hour; here each view is left as soon as it
shows its data. The heap is weighed after forced collections, on a view whose size doesn't depend on what came.
``growth`` is from the fifth round over all views to the last: by then code is compiled and caches are full.
Needs Chromium (``apt-get install chromium``).
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

from tests.console_web import browsing
from tests.console_web.browsing import VIEWS, Sight
from tests.console_web.heap import Weight, weigh

from benchmarks.harness import Row, percentile, run, say

ROOT: Final = Path(__file__).resolve().parent.parent
WARM_ROUNDS: Final = 5
#: 9 views: 40 rounds are the 360 switches of an hour.
ROUNDS: Final = 40
QUICK_ROUNDS: Final = 12


class Looked(NamedTuple):
    """What an hour of looking left: weights after the warm rounds and at the end, times from click to data, ms."""

    warm: Weight
    end: Weight
    shown_ms: list[float]


@asynccontextmanager
async def _demo() -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.console_api.demo", "--port", "0", cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.terminate()
        await process.wait()


async def _round(sight: Sight) -> list[float]:
    shown_ms = []
    for view in VIEWS:
        begun = time.perf_counter()
        await sight.show(view)
        shown_ms.append((time.perf_counter() - begun) * 1_000)
    return shown_ms


async def _look(rounds: int) -> Looked:
    async with _demo() as address, browsing.browser() as browser, browsing.sight(browser, address) as sight:
        await sight.open()
        shown_ms: list[float] = []
        for number in range(1, rounds + 1):
            shown_ms += await _round(sight)
            if number == WARM_ROUNDS:
                warm = await weigh(sight)
                shown_ms.clear()
            if number % 10 == 0:
                say(f"round {number} of {rounds}")
        return Looked(warm, await weigh(sight), shown_ms)


def measure(quick: bool) -> list[Row]:
    """An hour of looking; ``quick``: its first 18 minutes."""
    rounds = QUICK_ROUNDS if quick else ROUNDS
    looked = asyncio.run(_look(rounds))
    switches = (rounds - WARM_ROUNDS) * len(VIEWS)
    note = f"{switches} switches over {len(VIEWS)} views after {WARM_ROUNDS * len(VIEWS)} to warm up"
    grown_mb = (looked.end.heap_bytes - looked.warm.heap_bytes) / 1e6
    times = f"from the click to the view's data, through the driver; {len(looked.shown_ms)} samples"
    return [
        Row("console_heap/heap", looked.end.heap_bytes / 1e6, "MB", note="JavaScript's heap at the end"),
        Row("console_heap/growth", grown_mb, "MB", goal=1.0, note=note),
        Row("console_heap/nodes_grown", looked.end.nodes - looked.warm.nodes, "nodes", goal=0.0, note=note),
        Row(
            "console_heap/listeners_grown",
            looked.end.listeners - looked.warm.listeners,
            "listeners",
            goal=0.0,
            note=note,
        ),
        Row("console_heap/view_shown/p50", percentile(looked.shown_ms, 0.5), "ms", note=times),
        Row("console_heap/view_shown/p99", percentile(looked.shown_ms, 0.99), "ms", note=times),
    ]


if __name__ == "__main__":
    run(measure, __doc__)
