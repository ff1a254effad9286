"""Adds, edits and deletes of manifests under a running ``chandlery up``: from the file's write until they are applied.

The quickstart's manifests and one Trader more, that comes, is edited and goes again and again. *Added*: its process starts.
*Changed*: the process of the new version starts. *Deleted*: it is no longer among the Traders. Each as the instance's view
says it, asked every 20 ms. Floor: watchfiles alone tells of a file's write.

*New symbol*: a Trader on a symbol that no Trader has asked for yet, each time another one, until it is Active: ingest has
taken the symbol up, its history has been made and aggregated, the feed has read it, and the Trader is warm. No goal is set
for it. No other system takes manifests like these, so there is no peer.
"""

from __future__ import annotations

import shutil
import statistics
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Final

import watchfiles
import yaml

from benchmarks._up import resource, start, state_folder, stop, until
from benchmarks.harness import Row, percentile, run, say
from chandlery.cli.instance import current_view
from chandlery.console.model import TraderRow
from chandlery.core.errors import UnavailableError

GOAL_S: Final = 1.0
NAME: Final = "edited"
_QUICKSTART: Final = Path(__file__).resolve().parent.parent / "examples" / "quickstart"
_DEADLINE_S: Final = 60.0


def manifest(fast: int, symbol: str = "BTC/USDT") -> str:
    """The Trader that is edited; ``fast`` tells its versions apart."""
    spec = {
        "pool": {"name": "quants"},
        "strategy": {"name": "sma-cross", "parameters": {"fast": fast, "slow": 30}},
        "market": {"symbols": [symbol], "interval": "1s"},
    }
    return yaml.safe_dump(resource("Trader", NAME, spec), sort_keys=False)


def new_symbol(number: int) -> str:
    """A symbol that no Trader of the quickstart has."""
    return f"NEW{number:02d}/USDT"


def rows_in_view(state: Path) -> dict[str, TraderRow]:
    """The instance's Traders; none while it isn't there."""
    try:
        return {row.trader: row for row in current_view(state).traders}
    except UnavailableError:
        return {}


def is_running(state: Path) -> bool:
    """Whether its start is over: manifests are followed from then on."""
    try:
        return current_view(state).phase == "running"
    except UnavailableError:
        return False


def bare_notice(folder: Path, writes: int) -> float:
    """Seconds from a file's write until watchfiles alone tells of it, the median."""
    told: SimpleQueue[float] = SimpleQueue()
    watching, ended = threading.Event(), threading.Event()

    def watch() -> None:
        for changes in watchfiles.watch(folder, stop_event=ended, rust_timeout=100, yield_on_timeout=True):
            watching.set()
            if changes:
                told.put(time.monotonic())

    watcher = threading.Thread(target=watch, name="floor")
    watcher.start()
    taken: list[float] = []
    try:
        watching.wait(_DEADLINE_S)
        for number in range(writes):
            begun_s = time.monotonic()
            (folder / f"file-{number}.yaml").write_text("x", encoding="utf-8")
            taken.append(told.get(timeout=_DEADLINE_S) - begun_s)
    finally:
        ended.set()
        watcher.join()
    return statistics.median(taken)


def measure(quick: bool) -> list[Row]:
    """Rounds of all four over one instance."""
    rounds = 5 if quick else 20
    taken: dict[str, list[float]] = {"added": [], "changed": [], "deleted": [], "new_symbol": []}
    with state_folder() as folder:
        manifests, state = folder / "m", folder / "s"
        shutil.copytree(_QUICKSTART, manifests)
        say("chandlery up on the quickstart")
        process = start(manifests, state)

        def applied(what: str, do: Callable[[], object], holds: Callable[[TraderRow | None], bool]) -> None:
            begun_s = time.monotonic()
            do()
            until(lambda: holds(rows_in_view(state).get(f"default/{NAME}")), _DEADLINE_S, what, process)
            taken[what].append(time.monotonic() - begun_s)

        try:
            until(lambda: is_running(state), 2 * _DEADLINE_S, "the quickstart running", process, 0.25)
            file = manifests / "edited.yaml"
            for number in range(rounds):
                say(f"round {number + 1} of {rounds}")
                applied(
                    "added", lambda: file.write_text(manifest(5), encoding="utf-8"), lambda row: bool(row and row.pid)
                )
                before = rows_in_view(state)[f"default/{NAME}"]

                def is_new(row: TraderRow | None, before: TraderRow = before) -> bool:
                    return row is not None and row.pid not in (0, before.pid) and row.generation != before.generation

                applied("changed", lambda: file.write_text(manifest(6), encoding="utf-8"), is_new)
                applied("deleted", file.unlink, lambda row: row is None)
                unheard_of = manifest(5, new_symbol(number))
                applied("new_symbol", partial(file.write_text, unheard_of, encoding="utf-8"), is_active)
                file.unlink()
                gone = "the Trader on a new symbol gone"
                until(lambda: f"default/{NAME}" not in rows_in_view(state), _DEADLINE_S, gone, process)
        finally:
            stop(process)
        bare = folder / "bare"
        bare.mkdir()
        floor = bare_notice(bare, rounds)
    return rows_of(taken, floor)


def is_active(row: TraderRow | None) -> bool:
    """Whether it decides."""
    return row is not None and row.state == "Active"


def rows_of(taken: dict[str, list[float]], floor: float) -> list[Row]:
    """The median of each, s; of the Trader on a new symbol, which has no goal, the slowest too."""
    rows = []
    for what, samples in taken.items():
        note = f"p50 of {len(samples)}, the slowest {max(samples):.2f} s; floor: watchfiles alone tells of a write"
        goal = None if what == "new_symbol" else GOAL_S
        rows.append(Row(f"edits/{what}", percentile(samples, 0.5), "s", floor=floor, goal=goal, note=note))
    slowest = max(taken["new_symbol"])
    rows.append(Row("edits/new_symbol_max", slowest, "s", floor=floor, note="until the Trader is Active"))
    return rows


if __name__ == "__main__":
    run(measure, __doc__)
