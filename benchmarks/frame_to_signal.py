"""Exchange frame → broker's acknowledgement of the signal, by stage: the whole of ``chandlery up``.

A synthetic market of 10 symbols with 100 trades a second each, a real broker, the real aggregator, one worker
with 20 traders that signal often (``sma-cross`` 2 over 3 at 1s; half on closed candles, half on every update).
The figures are the signals' own accounts as the run's JSON summary gives them. Floor: a 1 KB record through
three bare aiokafka produce → consume hops on an idle broker of the same kind, in the same run of this module.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from benchmarks._census import census
from benchmarks._hops import three_hops
from benchmarks._processes import broker
from benchmarks._trades import symbols
from benchmarks._up import (
    calls_of,
    health,
    resource,
    start,
    state_folder,
    stop,
    summary_of,
    synthetic_market,
    until,
    value_of,
    write_manifests,
)
from benchmarks.harness import Row, percentile, run, say
from chandlery.console.summary import Summary
from chandlery.core.latency import STAGES

MARKETS: Final = 10
TRADERS: Final = 20
TRADES_PER_S: Final = 100
GOAL_P50_MS: Final = 8.0
GOAL_P99_MS: Final = 25.0


def manifests() -> list[dict[str, Any]]:
    """The market, the pool, and 20 traders: two on each symbol."""
    names = symbols(MARKETS)
    made = synthetic_market(names, TRADES_PER_S, history=100)
    for index in range(TRADERS):
        market = {"symbols": [names[index % MARKETS]], "interval": "1s"}
        made.append(
            resource(
                "Trader",
                f"trader-{index:02d}",
                {
                    "pool": {"name": "desk"},
                    "strategy": {"name": "sma-cross", "parameters": {"fast": 2, "slow": 3}},
                    "market": market,
                    "trigger": "EveryUpdate" if index >= MARKETS else "CandleClose",
                },
            )
        )
    return made


async def _floor(records: int) -> list[int]:
    async with broker() as kafka:
        return await three_hops(kafka.bootstrap, records, 100.0)


def _rows(summary: Summary, floor: list[int]) -> list[Row]:
    latency = summary.latency_us
    rows = []
    for name, goal, share in (("p50", GOAL_P50_MS, 0.5), ("p99", GOAL_P99_MS, 0.99)):
        rows.append(
            Row(
                f"frame_to_signal/{name}",
                value_of(latency.frame_to_signal, name) / 1_000,
                "ms",
                floor=percentile(floor, share) / 1e6,
                goal=goal,
                note=f"{latency.frame_to_signal.count:,} signals; floor: three hops, {len(floor)} records; "
                f"{health(summary)}",
            )
        )
    for name in ("p50", "p99"):
        rows.append(Row(f"frame_to_signal/visible_to_decided/{name}", value_of(latency.visible_to_decided, name), "µs"))
    for stage in STAGES:
        for name in ("p50", "p99"):
            if stage in latency.stages:
                rows.append(Row(f"frame_to_signal/{stage}/{name}", value_of(latency.stages[stage], name), "µs"))
    return rows


def _run(run_s: float) -> tuple[Summary, list[Row]]:
    """One run: its summary, and the CPU of each kind of process over most of it."""
    with state_folder() as folder:
        state = folder / "s"
        process = start(write_manifests(folder / "m", manifests()), state, "--for", f"{run_s:g}s", "--json")
        try:
            until(lambda: sum(calls > 0 for calls in calls_of(state).values()) >= TRADERS, 90, "calls", process, 0.1)
            begun_s, before = time.monotonic(), census(process.pid)
            time.sleep(run_s / 2)
            took_s, after = time.monotonic() - begun_s, census(process.pid)
            summary = summary_of(process, state, run_s)
        finally:
            stop(process)
    rows = []
    for kind, measured in after.items():
        used_s = sum(each.cpu_s for each in measured) - sum(each.cpu_s for each in before.get(kind, []))
        rows.append(Row(f"frame_to_signal/cpu/{kind}", used_s / took_s * 100, "% of a core"))
    rows.append(Row("frame_to_signal/cpu/sum", sum(row.value for row in rows), "% of a core"))
    return summary, rows


def measure(quick: bool) -> list[Row]:
    """The run, then the floor."""
    run_s, hops = (12.0, 300) if quick else (60.0, 2_000)
    say("chandlery up")
    summary, cpu = _run(run_s)
    say("floor: three hops")
    return _rows(summary, asyncio.run(_floor(hops))) + cpu


if __name__ == "__main__":
    run(measure, __doc__)
