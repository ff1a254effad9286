"""The operator with 1,000 Traders over 50 workers on a real API server: how long until all are acknowledged, what it
costs, and that nothing is written while nothing changes.

The API server, controllers and scheduler are real; nodes and pods are kwok's (pods run in name only), and the workers'
endpoints are simulated: they speak the pod's API and acknowledge at once. What is measured is the operator's part.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from pathlib import Path
from typing import Final

import psutil
from tests.support.operator_stage import NAMESPACE, Object, OperatorProcess, Stage, conditions_of, feed, pool, trader

from benchmarks._control_plane import control_plane
from benchmarks.harness import Row, percentile, run, say
from chandlery.core.errors import ChandleryError
from chandlery.operator.kubernetes.api import StaleError
from chandlery.operator.kubernetes.kinds import TRADER, TRADER_POOL

_POOLS: Final = 10
_ROOM: Final = 20
_SPACE: Final = "operator-scale"
_CREATORS: Final = 8
#: A tenth of what is promised, for everything that goes wrong on a busy machine.
_PATIENCE_S: Final = 120.0


def measure(quick: bool) -> list[Row]:
    """All rows. ``quick``: a tenth of the Traders and workers, and a short steady state."""
    with control_plane("chandlery-scale-") as kubeconfig:
        return asyncio.run(_measure(kubeconfig, 100 if quick else 1000, 10 if quick else 300))


async def _measure(kubeconfig: Path, traders: int, steady_s: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(kubeconfig, Path(folder))
        try:
            await stage.start()
            with contextlib.suppress(ChandleryError):
                await stage.api.create(NAMESPACE, {"metadata": {"name": _SPACE}})
            return await _with_traders(stage, traders, steady_s)
        finally:
            await stage.api.delete(NAMESPACE, "", _SPACE)
            await stage.stop()


async def _with_traders(stage: Stage, traders: int, steady_s: int) -> list[Row]:
    workers = max(1, traders // _ROOM // _POOLS)
    await stage.apply(feed(_SPACE, symbols=["BTC/USDT"], intervals=["1s"]))
    await stage.apply(*(pool(_SPACE, f"p{n}", workers=workers, room=_ROOM) for n in range(_POOLS)))
    operator = await stage.operator()
    say(f"waiting for {workers * _POOLS} workers")
    for number in range(_POOLS):
        await stage.until_reason(_SPACE, f"p{number}", "Running", TRADER_POOL)
    before, process = await operator.metrics(), psutil.Process(operator.process.pid if operator.process else 0)
    cpu_before = process.cpu_times()
    ready: dict[str, float] = {}
    created: dict[str, float] = {}
    page = await stage.api.list(TRADER, _SPACE)
    watch = asyncio.create_task(_watch_ready(stage, page.version, ready))
    say(f"creating {traders} Traders")
    began = time.monotonic()
    await asyncio.gather(*(_create(stage, range(first, traders, _CREATORS), created) for first in range(_CREATORS)))
    created_s = time.monotonic() - began

    async def all_ready() -> bool:
        if watch.done():
            watch.result()
        return len(ready) == traders

    await stage.until("all Traders Ready", all_ready, _PATIENCE_S)
    ready_s = time.monotonic() - began
    cpu = process.cpu_times()
    after = await operator.metrics()
    delays = [ready[name] - created[name] for name in ready]
    writes = _writes(after) - _writes(before)
    say(f"all Ready after {ready_s:.1f} s; steady for {steady_s} s")
    rows = [
        Row("operator_scale/all_acknowledged", ready_s, "s", floor=created_s, goal=12.0,
            note=f"{traders} Traders over {workers * _POOLS} workers (kwok pods, simulated endpoints); floor: creating them"),
        Row("operator_scale/apply_to_ready_p50", percentile(delays, 0.5) * 1000, "ms"),
        Row("operator_scale/apply_to_ready_p99", percentile(delays, 0.99) * 1000, "ms",
            note="created (answered) → Ready seen by a watch, while all are being created"),
        Row("operator_scale/operator_cpu", cpu.user + cpu.system - cpu_before.user - cpu_before.system, "s", goal=6.0),
        Row("operator_scale/operator_memory", process.memory_info().rss / 1e6, "MB", goal=160.0),
        Row("operator_scale/writes_per_trader", writes / traders, "writes", goal=2.0,
            note="every write to the API server: statuses, assignments, children, events"),
    ]  # fmt: skip
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)
    return [*rows, *await _steady(stage, operator, process, steady_s)]


async def _steady(stage: Stage, operator: OperatorProcess, process: psutil.Process, period_s: int) -> list[Row]:
    """Nothing changes but counters: nothing may be written."""
    await asyncio.sleep(3.0)  # pools' last statuses
    before, versions = await operator.metrics(), await _versions(stage)
    cpu_before = process.cpu_times()
    ends = time.monotonic() + period_s
    while time.monotonic() < ends:
        for worker in stage.workers.pods.values():
            for state in worker.states.values():
                state.calls += 1
                state.signals += 1
            worker.bump()
        await asyncio.sleep(1.0)
    cpu, after = process.cpu_times(), await operator.metrics()
    changed = sum(1 for name, version in (await _versions(stage)).items() if versions.get(name) != version)
    return [
        Row("operator_scale/steady_writes", _writes(after) - _writes(before), "writes", goal=0,
            note=f"{period_s} s with counters changing every second"),
        Row("operator_scale/steady_changed_versions", changed, "resources", goal=0),
        Row("operator_scale/steady_cpu", 60 / period_s * (cpu.user + cpu.system - cpu_before.user - cpu_before.system), "s/min"),
    ]  # fmt: skip


async def _create(stage: Stage, numbers: range, created: dict[str, float]) -> None:
    for number in numbers:
        name = f"t{number:04d}"
        await stage.api.create(TRADER, trader(_SPACE, name, in_pool=f"p{number % _POOLS}"))
        created[name] = time.monotonic()


async def _watch_ready(stage: Stage, version: str, ready: dict[str, float]) -> None:
    while True:
        with contextlib.suppress(StaleError):
            async for what, item in stage.api.watch(TRADER, _SPACE, version, silence_s=_PATIENCE_S):
                if what == "MODIFIED":
                    _note_ready(item, ready)
        # The API server ends the watch of a client that falls behind: what it hadn't told yet is in a list.
        page = await stage.api.list(TRADER, _SPACE)
        version = page.version
        for item in page.items:
            _note_ready(item, ready)


def _note_ready(item: Object, ready: dict[str, float]) -> None:
    if conditions_of(item).get("Ready", {}).get("status") == "True":
        ready.setdefault(item["metadata"]["name"], time.monotonic())


async def _versions(stage: Stage) -> dict[str, str]:
    page = await stage.api.list(TRADER, _SPACE, metadata_only=True)
    return {item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in page.items}


def _writes(metrics: dict[str, float]) -> float:
    prefix = "chandlery_operator_api_requests_total{"
    return sum(value for name, value in metrics.items() if name.startswith(prefix) and 'method="GET"' not in name)


if __name__ == "__main__":
    run(measure, __doc__)
