"""Apply → READY of one Trader on a real kubelet: a worker with room, whose series is already in the segment.

Everything is real: API server, kubelet, containers, Kafka, ingest, aggregator, feed, supervisor, the trader's process.
The operator runs beside the cluster. Needs root (a node tier of this benchmark's own).
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
from typing import Final

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
            await _prepare(api, operator)
            return await _apply_traders(api, traders)
        finally:
            operator.kill()
            await api.close()


async def _prepare(api: KubeApi, operator: OperatorProcess) -> None:
    """A feed, a pool with one worker, and a Trader that has brought the series into its segment."""
    await operator.start()
    kafka = {"bootstrapServers": f"kafka.{_SPACE}.svc:9092"}
    await api.create(MARKET_FEED, feed(_SPACE, kafka=kafka))
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
    delays: list[float] = []
    for number in range(traders):
        name = f"t{number:03d}"
        made = await api.create(TRADER, trader(_SPACE, name))
        began = time.monotonic()
        delays.append(await _until_ready(api, name, made["metadata"]["resourceVersion"], began))
        with contextlib.suppress(ChandleryError):
            await api.delete(TRADER, _SPACE, name)
        await asyncio.sleep(0.2)  # its process ends before the next begins
    say(json.dumps([round(delay * 1000) for delay in delays]))
    note = f"{traders} Traders, one after the other; created (answered) → Ready seen by a watch; real pods"
    return [
        Row("operator_ready/p50", percentile(delays, 0.5) * 1000, "ms", note=note),
        Row("operator_ready/p99", percentile(delays, 0.99) * 1000, "ms", goal=1000, note=note),
    ]


async def _until_ready(api: KubeApi, name: str, version: str, began: float) -> float:
    async for _, item in api.watch(TRADER, _SPACE, version, silence_s=_PATIENCE_S):
        ready = conditions_of(item).get("Ready", {})
        if item["metadata"].get("name") == name and ready.get("status") == "True":
            return time.monotonic() - began
    raise RuntimeError(f"{name} did not become Ready while the watch lasted")


if __name__ == "__main__":
    run(measure, __doc__)
