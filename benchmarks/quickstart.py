"""The run of ``make up``: ``chandlery up`` on the quickstart with its console, and what its own summary says of it.

*Settled* are the signals of frames that came 5 s or more after the first one's, as the summary has it; *whole run* all of
them. Both over a state folder that is used for the first time, as with a person's first look. Floor: a 1 KB record through
three bare aiokafka produce → consume hops on an idle broker of the same kind. Peer: none, since no other system has the
same way from an exchange's frame to a published signal.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from benchmarks._hops import three_hops
from benchmarks._processes import broker
from benchmarks._up import health, start, state_folder, stop, summary_of, value_of
from benchmarks.harness import Row, percentile, run, say
from chandlery.console.summary import SETTLING_S, Summary

QUICKSTART: Final = Path(__file__).resolve().parent.parent / "examples" / "quickstart"
#: Records a second through the hops: the quickstart has some signals a second.
_HOPS_PER_S: Final = 100.0


def rows_of(summary: Summary, floor_ns: list[int]) -> list[Row]:
    """Percentiles of the run's own summary, ms."""
    latency = summary.latency_us
    parts = {
        "settled": (latency.settled, f"signals of frames from {SETTLING_S} s on"),
        "whole_run": (latency.frame_to_signal, "signals, those of the start too"),
        "visible_to_decided": (latency.visible_to_decided, "signals, those of the start too"),
    }
    rows = []
    for name, (quantiles, what) in parts.items():
        for label, share in (("p50", 0.5), ("p99", 0.99)):
            floor = None if name == "visible_to_decided" else percentile(floor_ns, share) / 1e6
            note = f"{quantiles.count} {what}" + (f"; {health(summary)}" if name == "settled" else "")
            rows.append(
                Row(f"quickstart/{name}/{label}", value_of(quantiles, label) / 1e3, "ms", floor=floor, note=note)
            )
    return rows


async def _floor(records: int) -> list[int]:
    async with broker() as kafka:
        return await three_hops(kafka.bootstrap, records, _HOPS_PER_S)


def measure(quick: bool) -> list[Row]:
    """One run, then the floor."""
    # The quickstart has 2 to 4 signals a second: a p99 wants minutes.
    run_s, hops = (12.0, 200) if quick else (180.0, 2_000)
    with state_folder() as folder:
        say("chandlery up on the quickstart, with its console")
        options = ("--for", f"{run_s:g}s", "--json")
        process = start(QUICKSTART, folder / "s", *options, console="127.0.0.1:0")
        try:
            summary = summary_of(process, folder / "s", run_s)
        finally:
            stop(process)
    say("floor: three hops")
    return rows_of(summary, asyncio.run(_floor(hops)))


if __name__ == "__main__":
    run(measure, __doc__)
