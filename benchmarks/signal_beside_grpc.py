"""Signals while their traces go to a slow collector over gRPC, beside signals without traces: turns of one run.

``chandlery up`` with the market of ``frame_to_signal`` and two pools of its 20 traders each: the feed of one exports every
signal's trace over gRPC to a collector that answers after :data:`DELAY_S`, the other exports nothing. Both workers are
there all the time; spells in which the traders of one run and those of the other are suspended take turns. The collector
is a process of its own. Peer: the signals without traces. No other system's: what is asked is what telemetry costs here.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

import yaml

from benchmarks import frame_to_signal
from benchmarks._accounts import Sides, accounts_since, feeds_of, in_turns, rows_of_sides
from benchmarks._slow_collector import slow_collector
from benchmarks._up import resource, start, state_folder, stop, until
from benchmarks.harness import Row, run, say
from chandlery.cli.endpoint import Endpoint
from chandlery.cli.instance import current_view
from chandlery.core.assignment import decode_status
from chandlery.core.clocks import now_ns
from chandlery.core.errors import UnavailableError
from chandlery.core.settings import FeedSettings

#: Half of what a request may take by default: slow, and no failure.
DELAY_S: Final = 5.0
PLAIN: Final = "plain"
TRACED: Final = "traced"
#: By whether traces are exported.
ARMS: Final = (PLAIN, TRACED)
#: Of each spell: the traders' first calls.
_SETTLE_S: Final = 3.0
_DEADLINE_S: Final = 90.0


def market(endpoint: str) -> list[dict[str, Any]]:
    """The MarketFeed and both pools."""
    feed, pool = frame_to_signal.manifests()[:2]
    telemetry = {PLAIN: {}, TRACED: {"telemetry": {"otlpEndpoint": endpoint, "otlpProtocol": "grpc"}}}
    return [feed, *(resource("TraderPool", arm, pool["spec"] | telemetry[arm]) for arm in ARMS)]


def traders(arm: str, *, suspended: bool) -> list[dict[str, Any]]:
    """The 20 traders of one pool."""
    made = frame_to_signal.manifests()[2:]
    assert len(made) == frame_to_signal.TRADERS
    spec = {"pool": {"name": arm}, "suspend": suspended}
    return [resource("Trader", f"{arm}-{number:02d}", one["spec"] | spec) for number, one in enumerate(made)]


def write(folder: Path, name: str, manifests: list[dict[str, Any]]) -> None:
    """A file of the manifests' folder, whole at once."""
    beside = folder / f".{name}.new"
    beside.write_text(yaml.safe_dump_all(manifests, sort_keys=False), encoding="utf-8")
    os.replace(beside, folder / f"{name}.yaml")


def _runs(state: Path, arm: str) -> bool:
    """Whether the traders of this pool decide, and no others."""
    try:
        rows = current_view(state).traders
    except UnavailableError:
        return False
    states = {(row.trader.split("/")[1].split("-")[0] == arm, row.state) for row in rows}
    return states == {(True, "Active"), (False, "Suspended")}


def _take_turns(manifests: Path, state: Path, process: subprocess.Popen[bytes], pairs: int, spell_s: float) -> Sides:
    sides = Sides([], [])
    for number, traced in enumerate(in_turns(pairs)):
        arm, other = ARMS[traced], ARMS[not traced]
        say(f"spell {number + 1} of {2 * pairs}: {arm}")
        write(manifests, other, traders(other, suspended=True))
        write(manifests, arm, traders(arm, suspended=False))
        until(partial(_runs, state, arm), _DEADLINE_S, f"the traders of {arm} alone", process, 0.1)
        time.sleep(_SETTLE_S)
        begun_ns = now_ns()
        time.sleep(spell_s)
        sides[traced].extend(asyncio.run(accounts_since(_feed_of(state, traced=traced), begun_ns)))
    return sides


def _feed_of(state: Path, *, traced: bool) -> FeedSettings:
    [feed] = [each for each in feeds_of(state) if bool(each.telemetry.otlp_endpoint) == traced]
    return feed


async def _traces(feed: FeedSettings) -> dict[str, Any]:
    async with Endpoint(Path(feed.listen.removeprefix("unix:")), timeout_s=10.0) as endpoint:
        traces: dict[str, Any] = decode_status(await endpoint.get("/v1/status")).feed["traces"]
    return traces


def rows_of(sides: Sides, traces: dict[str, Any]) -> list[Row]:
    """The signals of both sides, and what became of the traces.

    Raises:
        RuntimeError: the collector took no trace, so that nothing was measured.
    """
    if not traces["exported"]:
        raise RuntimeError(f"the collector took no trace: {traces}")
    note = f"of {traces['built']} built, {traces['waiting']} waiting, dropped {traces['dropped']}"
    what = f"a gRPC collector that answers after {DELAY_S:g} s"
    return [
        *rows_of_sides("signal_beside_grpc", sides, what),
        Row("signal_beside_grpc/exported", traces["exported"], "traces", note=note),
    ]


def measure(quick: bool) -> list[Row]:
    """Spells in turns over one run."""
    pairs, spell_s = (1, 5.0) if quick else (4, 20.0)
    limit_s = 2 * _DEADLINE_S + 2 * pairs * (_DEADLINE_S + spell_s)
    with state_folder() as folder, slow_collector(DELAY_S) as endpoint:
        manifests, state = folder / "m", folder / "s"
        manifests.mkdir()
        write(manifests, "market", market(endpoint))
        first, second = ARMS
        write(manifests, first, traders(first, suspended=False))
        write(manifests, second, traders(second, suspended=True))
        say("chandlery up with two pools")
        process = start(manifests, state, "--for", f"{limit_s:g}s", "--json")
        try:
            until(lambda: _runs(state, first), _DEADLINE_S, "the first pool's traders", process, 0.1)
            sides = _take_turns(manifests, state, process, pairs, spell_s)
            traces = asyncio.run(_traces(_feed_of(state, traced=True)))
        finally:
            stop(process)
    return rows_of(sides, traces)


if __name__ == "__main__":
    run(measure, __doc__)
