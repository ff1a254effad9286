"""Exchange frame → broker's acknowledgement of the signal, by stage: the whole of ``chandlery up``.

A synthetic market of 10 symbols with 100 trades a second each, a real broker, the real aggregator, one worker
with 20 traders that signal often (``sma-cross`` 2 over 3 at 1s; half on closed candles, half on every update).
The figures are the signals' own accounts. Those with a goal are of the steady state: of signals whose frame came at
least :data:`WARM_S` after every trader's first call, when the broker's compiler and the traders' first candles are
over with. ``whole_run`` has all of them, as the run's JSON summary gives them. Floor: a 1 KB record through three bare
aiokafka produce → consume hops on an idle broker of the same kind, in the same run of this module.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections import defaultdict
from typing import Any, Final

from benchmarks._accounts import AccountOf, Spell, accounts_within, feeds_of, newest_signals, share_of
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
from chandlery.core.clocks import now_ns
from chandlery.core.latency import STAGES

MARKETS: Final = 10
TRADERS: Final = 20
TRADES_PER_S: Final = 100
#: Left out of the steady state at the begin of a run.
WARM_S: Final = 10.0
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


def _rows(steady: list[AccountOf], summary: Summary, floor: list[int]) -> list[Row]:
    whole_ms = [each.frame_to_signal_us / 1_000 for each in steady if each.frame_to_signal_us is not None]
    decided_us = [each.visible_to_decided_us for each in steady if each.visible_to_decided_us is not None]
    stages_us: defaultdict[str, list[float]] = defaultdict(list)
    for each in steady:
        for name, duration_us, _, _ in each.stages:
            stages_us[name].append(duration_us)
    shares = (("p50", 0.5), ("p99", 0.99))
    goals = {"p50": GOAL_P50_MS, "p99": GOAL_P99_MS}
    rows = [
        Row(
            f"frame_to_signal/{name}",
            share_of(whole_ms, share),
            "ms",
            floor=percentile(floor, share) / 1e6,
            goal=goals[name],
            note=f"{len(whole_ms):,} signals of the steady state; floor: three hops, {len(floor)} records; "
            f"{health(summary)}",
        )
        for name, share in shares
    ]
    latency = summary.latency_us.frame_to_signal
    for name, _ in shares:
        note = f"{latency.count:,} signals, those of the start too"
        rows.append(Row(f"frame_to_signal/whole_run/{name}", value_of(latency, name) / 1_000, "ms", note=note))
    for name, share in shares:
        rows.append(Row(f"frame_to_signal/visible_to_decided/{name}", share_of(decided_us, share), "µs"))
    for stage in STAGES:
        for name, share in shares:
            rows.append(Row(f"frame_to_signal/{stage}/{name}", share_of(stages_us[stage], share), "µs"))
    return rows


def _run(steady_s: float) -> tuple[list[AccountOf], Summary, list[Row]]:
    """One run: accounts of the steady state, the summary, and the CPU of each kind of process meanwhile."""
    with state_folder() as folder:
        state = folder / "s"
        # It ends by SIGTERM when the steady state has lasted long enough; the limit is for a run that hangs.
        limit_s = 120 + steady_s
        process = start(write_manifests(folder / "m", manifests()), state, "--for", f"{limit_s:g}s", "--json")
        try:
            until(lambda: sum(calls > 0 for calls in calls_of(state).values()) >= TRADERS, 90, "calls", process, 0.1)
            time.sleep(WARM_S)
            begun_ns, before = now_ns(), census(process.pid)
            time.sleep(steady_s)
            ended_ns, after = now_ns(), census(process.pid)
            [feed] = feeds_of(state)
            signals = asyncio.run(newest_signals(feed))
            process.send_signal(signal.SIGTERM)
            summary = summary_of(process, state, 0.0)
        finally:
            stop(process)
    steady = accounts_within(signals, Spell(begun_ns, ended_ns))
    took_s = (ended_ns - begun_ns) / 1e9
    rows = []
    for kind, measured in after.items():
        used_s = sum(each.cpu_s for each in measured) - sum(each.cpu_s for each in before.get(kind, []))
        rows.append(Row(f"frame_to_signal/cpu/{kind}", used_s / took_s * 100, "% of a core"))
    rows.append(Row("frame_to_signal/cpu/sum", sum(row.value for row in rows), "% of a core"))
    return steady, summary, rows


def measure(quick: bool) -> list[Row]:
    """The run, then the floor."""
    # A thousand signals at most are remembered: 60 s bring about 550.
    steady_s, hops = (12.0, 300) if quick else (60.0, 2_000)
    say("chandlery up")
    steady, summary, cpu = _run(steady_s)
    say("floor: three hops")
    return _rows(steady, summary, asyncio.run(_floor(hops))) + cpu


if __name__ == "__main__":
    run(measure, __doc__)
