"""What a scrape of a worker's figures costs, and what scrapes cost the traders: ``chandlery up`` with 20 of them.

The market and the traders of ``frame_to_signal``. Spells without scrapes and with one every :data:`PERIOD_S` take turns;
an answer is given again for a second, so a shorter period would ask for less work, and this one walks through the second
in which candles close. *CPU* is that of the feed's process while it answers, less what it takes anyway in that time.
Floor: ``/healthz`` of the same process, which answers a constant. Peer of the signals: those without scrapes. The scrape
itself has no peer: no other system has these figures.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from aiohttp import ClientSession, ClientTimeout, UnixConnector
from tests.support.free_ports import free_ports

from benchmarks._accounts import Sides, accounts_since, feeds_of, in_turns, rows_of_sides
from benchmarks._census import pids
from benchmarks._processes import cpu_ns
from benchmarks._up import calls_of, start, state_folder, stop, until, write_manifests
from benchmarks.frame_to_signal import TRADERS, manifests
from benchmarks.harness import Row, percentile, run, say
from chandlery.core.clocks import now_ns
from chandlery.core.settings import FeedSettings

PERIOD_S: Final = 1.05
#: What Prometheus asks for: OpenMetrics, with exemplars.
ACCEPT: Final = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
_COMPONENT: Final = "worker"
#: Processes of a run that have figures: ingest, aggregator, feed.
_PORTS: Final = 4
#: Neither the broker's compiler nor the traders' first candles are in the figures.
_WARM_S: Final = 6.0
_FLOORS: Final = 50
_FLOOR_PERIOD_S: Final = 0.02


class Asked(NamedTuple):
    """One request: how long it took and the CPU of the process meanwhile, ns; the body's length, bytes."""

    wall_ns: int
    cpu_ns: int
    size_bytes: int


class Measured(NamedTuple):
    """Scrapes, requests of the floor, what the process takes of a core anyway (0 … 1), and the signals meanwhile."""

    scrapes: list[Asked]
    floors: list[Asked]
    idle_share: float
    sides: Sides


class _Group(msgspec.Struct):
    targets: list[str]
    labels: dict[str, str]


def address_of(targets: bytes, component: str) -> str:
    """``host:port`` of the one process of this kind, from the file by which Prometheus finds them.

    Raises:
        LookupError: there isn't exactly one.
    """
    groups = msgspec.json.decode(targets, type=list[_Group])
    found = [each for one in groups for each in one.targets if one.labels["app_kubernetes_io_component"] == component]
    if len(found) != 1:
        raise LookupError(f"{len(found)} processes of kind {component}, where one was to be measured")
    return found[0]


async def ask(session: ClientSession, url: str, pid: int) -> Asked:
    """Ask once.

    Raises:
        RuntimeError: answered otherwise than by 200.
    """
    used_ns, begun_ns = cpu_ns(pid), time.perf_counter_ns()
    async with session.get(url, headers={"Accept": ACCEPT}) as answer:
        body = await answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{url}: {answer.status} {body[:200]!r}")
    return Asked(time.perf_counter_ns() - begun_ns, cpu_ns(pid) - used_ns, len(body))


async def _asked_for(session: ClientSession, url: str, pid: int, seconds: float, period_s: float) -> list[Asked]:
    """Ask once a period."""
    asked: list[Asked] = []
    begun_s = time.monotonic()
    for number in range(int(seconds / period_s)):
        await asyncio.sleep(max(0.0, begun_s + number * period_s - time.monotonic()))
        asked.append(await ask(session, url, pid))
    await asyncio.sleep(max(0.0, begun_s + seconds - time.monotonic()))
    return asked


async def _measure(address: str, feed: FeedSettings, pid: int, pairs: int, spell_s: float) -> Measured:
    sides = Sides([], [])
    scrapes: list[Asked] = []
    idle: list[float] = []
    timeout = ClientTimeout(total=30)
    url = f"http://{address}/metrics"
    async with ClientSession(timeout=timeout) as session:
        await ask(session, url, pid)  # the first one loads what makes the text
        for number, scraped in enumerate(in_turns(pairs)):
            say(f"spell {number + 1} of {2 * pairs}: {'with' if scraped else 'without'} scrapes")
            begun_ns, used_ns = now_ns(), cpu_ns(pid)
            if scraped:
                scrapes += await _asked_for(session, url, pid, spell_s, PERIOD_S)
            else:
                await asyncio.sleep(spell_s)
                idle.append((cpu_ns(pid) - used_ns) / (now_ns() - begun_ns))
            sides[scraped].extend(await accounts_since(feed, begun_ns))
    socket = feed.listen.removeprefix("unix:")
    async with ClientSession(connector=UnixConnector(socket), timeout=timeout) as session:
        floors = await _asked_for(session, "http://localhost/healthz", pid, _FLOORS * _FLOOR_PERIOD_S, _FLOOR_PERIOD_S)
    return Measured(scrapes, floors, statistics.fmean(idle), sides)


def cpu_ms(asked: list[Asked], idle_share: float) -> float:
    """CPU of one request, the mean, less what the process takes anyway, ms."""
    return statistics.fmean(each.cpu_ns - idle_share * each.wall_ns for each in asked) / 1e6


def rows_of(measured: Measured) -> list[Row]:
    """What one scrape costs, and the signals beside scrapes."""
    scrapes, floors, idle_share, sides = measured
    walls, floor_walls = ([each.wall_ns / 1e6 for each in asked] for asked in (scrapes, floors))
    note = f"{len(scrapes)} scrapes of a worker with {TRADERS} Traders; floor: {len(floors)} of /healthz"
    size = statistics.fmean(each.size_bytes for each in scrapes)
    return [
        Row(
            "scrapes/cpu",
            cpu_ms(scrapes, idle_share),
            "ms",
            floor=cpu_ms(floors, idle_share),
            note=f"mean, of the feed's process less the {idle_share:.1%} of a core that it takes anyway; {note}",
        ),
        Row("scrapes/wall/p50", percentile(walls, 0.5), "ms", floor=percentile(floor_walls, 0.5), note=note),
        Row("scrapes/wall/p99", percentile(walls, 0.99), "ms", floor=percentile(floor_walls, 0.99), note=note),
        Row("scrapes/size", size / 1e3, "kB", note="OpenMetrics, not compressed, mean"),
        *rows_of_sides("scrapes", sides, f"a scrape every {PERIOD_S} s"),
    ]


def _has_started(state: Path) -> bool:
    return sum(calls > 0 for calls in calls_of(state).values()) >= TRADERS


def measure(quick: bool) -> list[Row]:
    """Spells in turns over one run."""
    # A thousand signals at most are remembered, and a spell brings about 9 a second.
    pairs, spell_s = (2, 4.0) if quick else (6, 15.0)
    limit_s = 120 + _WARM_S + 2 * pairs * (spell_s + 1)
    with state_folder() as folder:
        state = folder / "s"
        say("chandlery up")
        options = ("--for", f"{limit_s:g}s", "--json", "--metrics-port", str(free_ports(_PORTS)))
        process = start(write_manifests(folder / "m", manifests()), state, *options)
        try:
            until(lambda: _has_started(state), 90, "calls", process, 0.1)
            time.sleep(_WARM_S)
            address = address_of((state / "prometheus-targets.json").read_bytes(), _COMPONENT)
            [feed], [pid] = feeds_of(state), pids(process.pid, "feed")
            measured = asyncio.run(_measure(address, feed, pid, pairs, spell_s))
        finally:
            stop(process)
    return rows_of(measured)


if __name__ == "__main__":
    run(measure, __doc__)
