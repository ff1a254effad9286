"""One comparison from start to end: a whole ``chandlery up`` of its own, whose traders change from step to step."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chandlery.cli.comparing.asked import Asked
from chandlery.cli.comparing.figures import Observed, advice_of, measured, side_by_side, sizes_of
from chandlery.cli.comparing.market import POOLS, WINDOW, Step, manifests, steps_of
from chandlery.cli.comparing.result import Comparison, Conditions, Machine, Measured, SideBySide
from chandlery.cli.comparing.taken import Look, Processes, children_of, elsewhere_percent, pss_bytes
from chandlery.cli.endings import INTERRUPTED
from chandlery.cli.runtime.counting import summarise
from chandlery.cli.runtime.desired import read_first
from chandlery.cli.runtime.ending import end_in_order
from chandlery.cli.runtime.importer import look
from chandlery.cli.runtime.local import LocalRuntime
from chandlery.cli.runtime.options import UpOptions
from chandlery.cli.runtime.recent import RecentSignals
from chandlery.cli.runtime.say import Say
from chandlery.cli.runtime.statedir import write_atomically
from chandlery.cli.runtime.version import own_version
from chandlery.cli.runtime.viewing import Viewer
from chandlery.cli.runtime.workergroup import WorkerGroup
from chandlery.console.summary import Summary
from chandlery.core.errors import MachineError, UnavailableError
from chandlery.core.signals import Signal
from chandlery.core.transports import Transport

#: The folder with what all traders run.
STRATEGIES: Final = Path(__file__).parent / "strategies"
#: The broker's compiler and everybody's first candles: left out of the first measurement, and of each one after it.
_FIRST_WARM_S: Final = 6.0
_WARM_S: Final = 2.0
#: A hundred processes at 0.2 s each on a busy machine, and a manifest's second; three times that.
_ACTIVE_S: Final = 60.0
_POLL_S: Final = 0.1
#: What a step takes beside its measurement, and start and end beside all steps: as seen on two cores.
_STEP_S, _AROUND_S = 5.0, 20.0


def expected_s(asked: Asked) -> float:
    """About how long all of it takes."""
    return _AROUND_S + len(steps_of(asked)) * (asked.seconds + _STEP_S)


@dataclass(frozen=True)
class _Ended:
    observed: Sequence[Observed]
    signals: Sequence[Signal]
    summary: Summary


async def compare(asked: Asked, say: Say, interrupted: asyncio.Event) -> Comparison | int:
    """Run and measure; the state folder is a temporary one, gone when this returns.

    Returns:
        What was found; or the exit code, where it was interrupted.

    Raises:
        ChandleryError: it can't start, or traders don't come up.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix="chandlery-perf-"))
    except OSError as error:
        raise MachineError(f"no temporary folder can be made: {error}; set TMPDIR to one with room") from error
    try:
        ended = await _run(asked, folder, say, interrupted)
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    return INTERRUPTED if ended is None else _found(asked, ended)


async def _run(asked: Asked, folder: Path, say: Say, interrupted: asyncio.Event) -> _Ended | None:
    manifest = folder / "manifests" / "all.yaml"
    manifest.parent.mkdir()
    write_atomically(manifest, manifests(asked, steps_of(asked)[0]).encode())
    options = UpOptions(manifests=(str(manifest.parent),), state=folder / "state", strategies=STRATEGIES)
    seen = look(options.strategies)
    wanted, catalogue = await read_first(options.manifests, options.strategies, say)
    # How far the start is, is not how far the comparison is.
    runtime = LocalRuntime(options, wanted, catalogue, lambda line, fraction=None: say(line), seen=seen)
    viewer = Viewer(runtime, RecentSignals())
    work = asyncio.create_task(_work(runtime, viewer, asked, manifest, say), name="compare")
    asked_to_end = asyncio.create_task(interrupted.wait())
    try:
        await asyncio.wait({work, asked_to_end}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return work.result()
        say("ending at once")
        return None
    finally:
        for task in (work, asked_to_end):
            task.cancel()
        await asyncio.gather(work, asked_to_end, return_exceptions=True)


async def _work(runtime: LocalRuntime, viewer: Viewer, asked: Asked, manifest: Path, say: Say) -> _Ended:
    try:
        observed, seconds = await _measure(runtime, viewer, asked, manifest, say)
        evidence = await end_in_order(runtime, viewer, seconds, say)
    except BaseException:
        # An interrupt too: nothing here is worth an orderly end.
        await runtime.abort()
        raise
    return _Ended(observed, list(evidence.signals.signals.values()), summarise(evidence))


async def _measure(
    runtime: LocalRuntime, viewer: Viewer, asked: Asked, manifest: Path, say: Say
) -> tuple[list[Observed], float]:
    steps = steps_of(asked)
    await runtime.start(viewer.view, viewer.written, viewer.wrong)
    began_s = time.monotonic()
    observed: list[Observed] = []
    for number, step in enumerate(steps):
        done = number / len(steps)
        say(f"{step.words}: starting", done)
        if number:
            write_atomically(manifest, manifests(asked, step).encode())
        await _until_active(runtime, step)
        await asyncio.sleep(_WARM_S if number else _FIRST_WARM_S)
        observed.append(await _observe(runtime, step, asked.seconds, say, done, 1 / len(steps)))
    return observed, time.monotonic() - began_s


async def _until_active(runtime: LocalRuntime, step: Step) -> None:
    """Wait until exactly the step's traders are there, each of them deciding.

    Raises:
        UnavailableError: they aren't in time.
    """
    wanted = {f"default/{name}" for group in step.groups for name in group.names}
    deadline_s = time.monotonic() + _ACTIVE_S
    while True:
        told = {
            name: status
            for group in runtime.workers.values()
            if group.watch.status is not None
            for name, status in group.watch.status.traders.items()
        }
        if told.keys() == wanted and all(one.state == "Active" for one in told.values()):
            return
        if time.monotonic() > deadline_s:
            active = sum(told[name].state == "Active" for name in wanted & told.keys())
            why = next((one.message or one.reason for one in told.values() if one.message or one.reason), "")
            raise UnavailableError(
                f"{step.words}: {active} of {len(wanted)} traders decide after {_ACTIVE_S:.0f} s{why and ': '}{why}; "
                "try fewer with --traders, on a machine that has nothing else to do"
            )
        await asyncio.sleep(_POLL_S)


async def _observe(runtime: LocalRuntime, step: Step, seconds: int, say: Say, done: float, share: float) -> Observed:
    (pool,) = {group.pool for group in step.groups}
    processes = processes_of(runtime.workers[("default", POOLS[pool]), f"{POOLS[pool]}-0"])
    pids = [*processes.all(), *others_of(runtime)]
    before = Look.at(pids)
    for second in range(seconds):
        say(f"{step.words}: measuring", done + share * second / seconds)
        await asyncio.sleep(1.0)
    after = Look.at(pids)
    return Observed(step, processes, before, after, await asyncio.to_thread(pss_bytes, processes))


def others_of(runtime: LocalRuntime) -> set[int]:
    """The run's processes beside its workers' traders."""
    found = {os.getpid(), runtime.broker.pid, *(child.pid for child in runtime.children())}
    return {pid for pid in found if pid}


def processes_of(worker: WorkerGroup) -> Processes:
    """The worker's processes as they are now."""
    status = worker.watch.status
    traders = {name: one.pid for name, one in status.traders.items() if one.pid} if status is not None else {}
    # The fork server is the supervisor's only child; the traders are its.
    servers = [pid for pid in children_of(worker.supervisor.pid) if pid not in traders.values()]
    return Processes(worker.feed.pid, (worker.supervisor.pid, *servers), traders)


def _found(asked: Asked, ended: _Ended) -> Comparison:
    alone: dict[tuple[int, Transport], Measured] = {}
    both: SideBySide | None = None
    for observed in ended.observed:
        if observed.step.is_side_by_side:
            both = side_by_side(observed, ended.signals)
        else:
            alone[observed.step.size, observed.step.groups[0].transport] = measured(observed, ended.signals)
    sizes = sizes_of(alone)
    return Comparison(
        version=own_version(),
        machine=machine(),
        conditions=Conditions(list(asked.traders), asked.seconds, asked.rate, asked.symbols, asked.trigger, WINDOW),
        sizes=sizes,
        side_by_side=both,
        advice=advice_of(sizes),
        problems=[*problems_of(alone, both), *ended.summary.problems],
        notes=notes_of(ended.observed),
    )


def problems_of(alone: dict[tuple[int, Transport], Measured], both: SideBySide | None) -> list[str]:
    """What makes figures doubtful, a sentence each."""
    problems = []
    for (size, transport), figures in alone.items():
        if not figures.visible_to_decided_us.count:
            problems.append(
                f"{size} traders on {transport} decided nothing while they were measured: use more --seconds"
            )
        elif figures.missed:
            problems.append(
                f"{size} traders on {transport} left out {figures.missed} of {figures.candles * size} decisions: "
                "the machine did not keep up"
            )
    if both is not None and not both.decisions:
        problems.append("side by side nothing was decided by both: use more --seconds")
    elif both is not None and both.different:
        problems.append(f"side by side {both.different} of {both.decisions} decisions differ between the transports")
    return problems


#: A tenth of a core is what a machine does by itself.
_QUIET_PERCENT: Final = 25.0


def notes_of(observed: Sequence[Observed]) -> list[str]:
    """What else a reader must know, a sentence each."""
    most = max((elsewhere_percent(one.before, one.after) for one in observed), default=0.0)
    if most < _QUIET_PERCENT:
        return []
    return [f"other programs took up to {most:.0f} % of a core meanwhile: latencies are those of a busy machine"]


def machine() -> Machine:
    """This machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(len(os.sched_getaffinity(0)), memory, platform.release(), platform.python_version())
