"""Apply → READY of one Trader on a real kubelet: a worker with room, whose series is already in the segment.

Everything is real: API server, kubelet, containers, Kafka, ingest, aggregator, feed, supervisor, the trader's process.
The operator runs beside the cluster. Needs root (a node tier of this benchmark's own).

``new_series``: beside every fourth of them a Trader on a symbol that the market has and no Trader of the pool has asked for
yet, each time another one, so that its worker takes the series into the segment and reads its history. Peer: those whose
series is there, of the same minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from images.making import make_images
from tests.e2e.kubectl import Cluster
from tests.support.operator_stage import (
    ROOT,
    OperatorProcess,
    conditions_of,
    feed,
    kafka_pod,
    pool,
    trader,
)

from benchmarks.harness import Row, percentile, run, say
from chandlery.core.errors import ChandleryError
from chandlery.core.kube_credentials import from_kubeconfig
from chandlery.operator.kubernetes.api import KubeApi
from chandlery.operator.kubernetes.kinds import MARKET_FEED, TRADER, TRADER_POOL

_SPACE: Final = "default"
_ROLES: Final = ("workers", "stream", "kafka")
#: Kafka, Faust and the images' first start on 2 busy cores.
_PATIENCE_S: Final = 240.0
#: One Trader on a new series after so many on the one that is there.
NEW_AFTER: Final = 4
#: The market has all symbols from its start on; with one trade a second each, those that wait cost it little.
_TRADES_PER_S: Final = 1


def measure(quick: bool) -> list[Row]:
    """All rows; ``quick``: 20 Traders instead of 200."""
    with _cluster() as (cluster, images):
        return asyncio.run(_measure(cluster, images, 20 if quick else 200))


@contextmanager
def _cluster() -> Iterator[tuple[Cluster, dict[str, str]]]:
    from tests.e2e.cluster.lifecycle import Wanted, down, load, up

    made = make_images(list(_ROLES), ROOT / "build" / "images", say)
    folder = Path(tempfile.mkdtemp(prefix="chandlery-ready-"))
    plan = up(folder, Wanted("node", dns=True, tied=True), say)
    try:
        load(plan, [image.archive for image in made])
        yield Cluster(plan.kubeconfig, plan.binaries), dict(zip(_ROLES, (image.name for image in made), strict=True))
    finally:
        down(folder)
        shutil.rmtree(folder, ignore_errors=True)


async def _measure(cluster: Cluster, images: dict[str, str], traders: int) -> list[Row]:
    cluster.apply(ROOT / "charts" / "chandlery" / "crds", "--server-side")
    cluster.apply(
        [{**one, "metadata": {**one["metadata"], "namespace": _SPACE}} for one in kafka_pod(images["kafka"], _SPACE)]
    )
    api = KubeApi(from_kubeconfig(cluster.kubeconfig))
    with tempfile.TemporaryDirectory() as folder:
        arguments = (
            "--worker-image", images["workers"], "--stream-image", images["stream"], "--image-pull-policy", "IfNotPresent",
        )  # fmt: skip
        operator = OperatorProcess(cluster.kubeconfig, Path(folder) / "operator.log", 8080, arguments)
        try:
            await _prepare(api, operator, traders)
            return await _apply_traders(api, traders)
        finally:
            operator.kill()
            await api.close()


async def _prepare(api: KubeApi, operator: OperatorProcess, traders: int) -> None:
    """A feed of all symbols, a pool with one worker, and a Trader that has brought the series into its segment."""
    await operator.start()
    await api.create(MARKET_FEED, market(traders))
    await api.create(TRADER_POOL, pool(_SPACE, podTemplate={}))
    await api.create(TRADER, trader(_SPACE, "first"))
    say("waiting for the first Trader to be warm")
    deadline = time.monotonic() + _PATIENCE_S
    while conditions_of(await api.get(TRADER, _SPACE, "first")).get("Warm", {}).get("status") != "True":
        if time.monotonic() > deadline:
            raise RuntimeError(f"not warm: {operator.log.read_text()[-2000:]}")
        await asyncio.sleep(0.2)


async def _apply_traders(api: KubeApi, traders: int) -> list[Row]:
    """One after the other, each deleted again: there is always room, and nothing else to do."""
    there: list[float] = []
    new: list[float] = []
    warm: list[float] = []
    for number in range(traders):
        [ready] = await _apply(api, trader(_SPACE, f"t{number:03d}"), "Ready")
        there.append(ready)
        if number % NEW_AFTER == NEW_AFTER - 1:
            made = trader(_SPACE, f"n{number:03d}", market={"symbols": [new_symbol(len(new))], "interval": "1s"})
            ready, filled = await _apply(api, made, "Ready", "Warm")
            new.append(ready)
            warm.append(filled)
    say(json.dumps({"there": _whole_ms(there), "new": _whole_ms(new), "new, warm": _whole_ms(warm)}))
    return rows_of(there, new, warm)


def market(traders: int) -> dict[str, Any]:
    """The MarketFeed: the symbol that is there, and one for each Trader on a new series."""
    symbols = ["BTC/USDT", *(new_symbol(number) for number in range(traders // NEW_AFTER))]
    kafka = {"bootstrapServers": f"kafka.{_SPACE}.svc:9092"}
    source = {"synthetic": {"tradesPerSecond": _TRADES_PER_S}}
    return feed(_SPACE, kafka=kafka, source=source, symbols=symbols)


def new_symbol(number: int) -> str:
    """A symbol that no Trader has asked for."""
    return f"N{number:03d}/USDT"


def rows_of(there: list[float], new: list[float], warm: list[float]) -> list[Row]:
    """The rows of the delays, s: series in the segment; new ones until Ready; new ones until their history is read."""
    how = "one after the other; created (answered) → Ready seen by a watch; real pods"
    rows = []
    for name, share, goal in (("p50", 0.5, None), ("p99", 0.99, 1000)):
        here_ms = percentile(there, share) * 1000
        note = f"{len(there)} Traders, {how}"
        rows.append(Row(f"operator_ready/{name}", here_ms, "ms", goal=goal, note=note))
        for what, samples, until in (("new_series", new, ""), ("new_series_warm", warm, "; here until Warm is True")):
            rows.append(
                Row(
                    f"operator_ready/{what}/{name}",
                    percentile(samples, share) * 1000,
                    "ms",
                    peer=here_ms,
                    note=f"{len(samples)} Traders on series that the worker hadn't, {how}{until}; the slowest "
                    f"{max(samples) * 1000:.0f} ms; peer: series that it had",
                )
            )
    return rows


async def _apply(api: KubeApi, manifest: dict[str, Any], *conditions: str) -> list[float]:
    """Create a Trader, wait for its conditions, delete it; s until each was seen."""
    name = manifest["metadata"]["name"]
    made = await api.create(TRADER, manifest)
    began = time.monotonic()
    taken = await _until(api, name, made["metadata"]["resourceVersion"], began, conditions)
    with contextlib.suppress(ChandleryError):
        await api.delete(TRADER, _SPACE, name)
    await asyncio.sleep(0.2)  # its process ends before the next begins
    return taken


async def _until(api: KubeApi, name: str, version: str, began: float, wanted: tuple[str, ...]) -> list[float]:
    seen: dict[str, float] = {}
    async for _, item in api.watch(TRADER, _SPACE, version, silence_s=_PATIENCE_S):
        if item["metadata"].get("name") != name:
            continue
        for condition in wanted:
            if conditions_of(item).get(condition, {}).get("status") == "True":
                seen.setdefault(condition, time.monotonic() - began)
        if len(seen) == len(wanted):
            return [seen[condition] for condition in wanted]
    raise RuntimeError(f"{name}: of {wanted} only {sorted(seen)} while the watch lasted")


def _whole_ms(delays: list[float]) -> list[int]:
    return [round(delay * 1000) for delay in delays]


if __name__ == "__main__":
    run(measure, __doc__)
