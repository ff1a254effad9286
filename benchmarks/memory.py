"""RSS and PSS of every process with 20 traders and 100 symbols: a real ``chandlery up``.

Each trader decides on five of the 100 symbols at 1s; history of 500 candles a series, so that every window is
full. Processes are counted when every trader has been called five times, the traders' fork server apart. PSS
counts a shared page by its share, so the sum of PSS is what the machine gives. Floor: an empty interpreter. Peer of a
trader: a bare Python process that has imported numpy, the least that a strategy in a process of its own takes. Both beside
all of them, so that they share as many pages.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from typing import Any, Final, Literal, NamedTuple

from benchmarks._census import Measured, census
from benchmarks._trades import symbols
from benchmarks._up import (
    calls_of,
    health,
    resource,
    segments_of,
    start,
    state_folder,
    stop,
    summary_of,
    synthetic_market,
    until,
    write_manifests,
)
from benchmarks.harness import Row, run, say
from chandlery.cli.runtime.procfs import Memory, memory_of

MARKETS: Final = 100
TRADERS: Final = 20
GOAL_TRADER_MB: Final = 10.0
GOAL_WORKER_MB: Final = 200.0
#: With the fork server, which the goal's words don't name: it is the twenty traders' shared part.
WORKER_KINDS: Final = ("feed", "supervisor", "nursery", "trader")
_MB: Final = 1e6
_STRATEGIES: Final[tuple[tuple[str, dict[str, int]], ...]] = (
    ("sma-cross", {"fast": 4, "slow": 12}),
    ("rsi-reversion", {"period": 7}),
    ("bollinger-breakout", {"period": 15}),
    ("donchian-breakout", {"period": 10}),
    ("macd", {"fast": 5, "slow": 13, "signal": 4}),
)


def manifests() -> list[dict[str, Any]]:
    """100 symbols, 20 traders on five of them each, every shipped strategy four times."""
    names = symbols(MARKETS)
    made = synthetic_market(names, trades_per_second=2, history=500)
    for index in range(TRADERS):
        strategy, parameters = _STRATEGIES[index % len(_STRATEGIES)]
        made.append(
            resource(
                "Trader",
                f"trader-{index:02d}",
                {
                    "pool": {"name": "desk"},
                    "strategy": {"name": strategy, "parameters": parameters},
                    "market": {"symbols": names[index * 5 : index * 5 + 5], "interval": "1s", "warmup": 500},
                },
            )
        )
    return made


def _mb(measured: list[Measured], what: Literal["rss", "pss"]) -> float:
    return sum(each.memory.pss if what == "pss" else each.memory.rss for each in measured) / _MB


class Bare(NamedTuple):
    """Processes that do nothing: an interpreter alone, and one that has imported numpy."""

    empty: Memory
    numpy: Memory


def bare_processes() -> Bare:
    """Both, measured one after the other.

    Raises:
        ChildProcessError: one can't be started, or its memory can't be read.
    """
    return Bare(_bare("sys"), _bare("sys, numpy"))


def _bare(modules: str) -> Memory:
    words = [sys.executable, "-c", f"import {modules}; print(flush=True); sys.stdin.read()"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        ready = process.stdout.readline()
        memory = memory_of(process.pid)
        process.communicate()
    if not ready or memory is None:
        raise ChildProcessError(f"a bare Python process with {modules} ended with {process.returncode}")
    return memory


def rows_of(found: dict[str, list[Measured]], bare: Bare, segment_bytes: int, note: str) -> list[Row]:
    """PSS and RSS of every kind of process, and what the goals are about."""
    traders = [each.memory for each in found["trader"]]
    worker = [each for kind in WORKER_KINDS for each in found[kind]]
    floors = {"pss": bare.empty.pss / _MB, "rss": bare.empty.rss / _MB}
    peers = {"pss": bare.numpy.pss / _MB, "rss": bare.numpy.rss / _MB}
    rows = [
        Row(
            "memory/trader_pss",
            statistics.fmean(each.pss for each in traders) / _MB,
            "MB",
            peer=peers["pss"],
            floor=floors["pss"],
            goal=GOAL_TRADER_MB,
            note=f"mean of {len(traders)}, the largest {max(each.pss for each in traders) / _MB:.1f} MB; peer: Python "
            f"with numpy; floor: an empty interpreter; {note}",
        ),
        Row(
            "memory/trader_rss",
            statistics.fmean(each.rss for each in traders) / _MB,
            "MB",
            peer=peers["rss"],
            floor=floors["rss"],
            note=f"mean, the largest {max(each.rss for each in traders) / _MB:.1f} MB",
        ),
        Row(
            "memory/worker_pss",
            _mb(worker, "pss"),
            "MB",
            goal=GOAL_WORKER_MB,
            note=f"feed + supervisor + fork server + {len(traders)} traders",
        ),
        Row(
            "memory/worker_rss", _mb(worker, "rss"), "MB", note="the same: what they share is in it as often as mapped"
        ),
    ]
    kinds: tuple[Literal["pss", "rss"], ...] = ("pss", "rss")
    for kind, measured in found.items():
        for what in kinds if kind != "trader" else ():
            floor = None if kind == "kafka" else floors[what]  # a JVM
            note = f"{len(measured)} processes" if len(measured) > 1 else ""
            rows.append(Row(f"memory/{kind}_{what}", _mb(measured, what), "MB", floor=floor, note=note))
    for name, of, told in (("empty", floors, "an interpreter alone"), ("bare", peers, "Python with numpy")):
        rows += [Row(f"memory/{name}_{what}", of[what], "MB", note=f"{told}, beside them") for what in kinds]
    rows.append(Row("memory/segment", segment_bytes / _MB, "MB", note="the file, reserved as a whole"))
    return rows


def measure(quick: bool) -> list[Row]:
    """One run; a census before its end."""
    run_s = 10.0 if quick else 40.0
    with state_folder() as folder:
        say("chandlery up with 100 symbols")
        process = start(write_manifests(folder / "m", manifests()), folder / "s", "--for", f"{run_s:g}s", "--json")
        try:
            until(lambda: len(census(process.pid).get("trader", [])) >= TRADERS, 90, "20 traders", process, 0.25)
            state = folder / "s"
            until(
                lambda: sum(calls > 5 for calls in calls_of(state).values()) >= TRADERS,
                60,
                "each trader called five times",
                process,
                0.25,
            )
            found = census(process.pid)
            bare = bare_processes()
            segment_bytes = sum(path.stat().st_size for path in segments_of(state))
            summary = summary_of(process, folder / "s", run_s)
        finally:
            stop(process)
    return rows_of(found, bare, segment_bytes, health(summary))


if __name__ == "__main__":
    run(measure, __doc__)
