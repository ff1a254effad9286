"""What tests of the operator on a real API server share: a stage with the chart's rights, and a first Trader on it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import yaml
from tests.e2e.desk import CHART
from tests.e2e.kubectl import Cluster, Namespace
from tests.support.operator_stage import OperatorProcess, Stage, feed, pool, trader
from tests.support.simulated_workers import SimulatedWorkers

from chandlery.core.telemetry.exposition import FRESH_S
from chandlery.operator.kubernetes.api import Kind
from chandlery.operator.kubernetes.kinds import EVENT, MARKET_FEED, TRADER, TRADER_POOL

_RELEASE: Final = "chandlery"  # names the key Secret as an operator without arguments does
#: What :func:`running_bystander` makes.
BYSTANDERS: Final = ((MARKET_FEED, "other"), (TRADER_POOL, "others"), (TRADER, "bystander"))
_DENIED: Final = re.compile(r'forbidden: User \\*"system:serviceaccount.{0,200}')


class ChartAccount:
    """The ServiceAccount that the chart makes for an operator, with the rights that the chart gives it.

    Args:
        folder: for kubeconfigs.
    """

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self._cluster = cluster
        self._folder = folder
        self._made: dict[tuple[str, ...], Path] = {}
        self._clusterwide: list[str] = []

    def kubeconfig(self, arguments: tuple[str, ...]) -> Path:
        """A kubeconfig for an operator with these arguments; its ``--own-namespace`` is where the chart is installed."""
        scope = tuple(arguments[at + 1] for at, one in enumerate(arguments) if one == "--namespace")
        own = arguments[arguments.index("--own-namespace") + 1]
        if (own, *scope) not in self._made:
            self._made[own, *scope] = self._make(own, scope)
        return self._made[own, *scope]

    def _make(self, own: str, scope: tuple[str, ...]) -> Path:
        names = ("rbac", "serviceaccount", *(() if scope else ("admission",)))
        shown = [word for name in names for word in ("--show-only", f"templates/{name}.yaml")]
        values = json.dumps({"operator": {"namespaces": list(scope)}, "rbac": {"aggregate": False}})
        rights = self._cluster.run(
            "helm", "template", _RELEASE, str(CHART), "--namespace", own, *shown, "--values", "-", stdin=values
        )
        self._cluster.apply(rights)
        if not scope:
            self._clusterwide.append(rights)
        token = self._cluster.kubectl(
            "create", "token", f"{_RELEASE}-operator", "--namespace", own, "--duration=2h"
        ).strip()
        config = yaml.safe_load(self._cluster.kubectl("config", "view", "--raw", "--flatten"))
        config["users"] = [{"name": entry["name"], "user": {"token": token}} for entry in config["users"]]
        path = self._folder / f"account-{len(self._made)}.kubeconfig"
        path.write_text(yaml.safe_dump(config))
        return path

    def remove(self) -> None:
        """Take back what holds in the whole cluster; the rest goes with its namespace."""
        for rights in self._clusterwide:
            self._cluster.kubectl("delete", "--ignore-not-found", "-f", "-", stdin=rights)


@asynccontextmanager
async def staged(
    namespace: Namespace, folder: Path, workers: SimulatedWorkers | None = None, *, restarts: bool = False
) -> AsyncIterator[tuple[Stage, str]]:
    """A stage whose operators have the chart's rights and no more, and the name of the test's namespace.

    A right that was missing fails the test, whatever else it holds.

    Args:
        restarts: the API server is killed. One that comes up knows no roles for a moment, and refuses everything.
    """
    account = ChartAccount(namespace.cluster, folder)
    stage = Stage(namespace.cluster.kubeconfig, folder, workers, account=account.kubeconfig)
    try:
        await stage.start()
        yield stage, namespace.name
        denied = {found for log in stage.logs() for found in _DENIED.findall(log)}
        assert restarts or not denied, f"the chart's rights don't suffice: {sorted(denied)}"
    finally:
        await stage.stop()
        await asyncio.to_thread(account.remove)


def scope(name: str) -> tuple[str, ...]:
    """Arguments of an operator that looks after one namespace alone."""
    return ("--namespace", name, "--own-namespace", name)


async def running_one(stage: Stage, name: str, *, workers: int = 1, room: int = 20, **spec: Any) -> None:
    """A feed, a pool and one Running Trader ``one``."""
    await stage.apply(feed(name), pool(name, workers=workers, room=room, **spec), trader(name, "one"))
    await stage.until_reason(name, "one", "Running")


async def placed(stage: Stage, trader: str) -> list[tuple[str, int]]:
    """Where a Trader runs: address of the pod, and its generation there."""
    return stage.workers.traders().get(trader, [])


async def quiet(operator: OperatorProcess) -> bool:
    """Whether every worker has acknowledged and nothing is under way but what waits for a far time."""
    before = await operator.metrics()
    await asyncio.sleep(FRESH_S + 0.1)  # who asks earlier gets the same answer
    after = await operator.metrics()
    keys = ("reconciles_total", "status_writes_total", "child_writes_total")
    still = all(before[f"chandlery_operator_{key}"] == after[f"chandlery_operator_{key}"] for key in keys)
    return still and after["chandlery_operator_assignments_pending"] == 0


async def told(stage: Stage, namespace: str, name: str) -> list[str]:
    """Reasons of all events on a resource."""
    return [
        item["reason"] for item in (await stage.api.list(EVENT, namespace)).items if item["regarding"]["name"] == name
    ]


async def until_told_once(stage: Stage, namespace: str, name: str, reason: str) -> None:
    """Wait for an event on a resource, and see that there is one alone."""

    async def is_told() -> bool:
        return reason in await told(stage, namespace, name)

    await stage.until(f"an event {reason} on {name}", is_told)
    assert (await told(stage, namespace, name)).count(reason) == 1


@asynccontextmanager
async def untouched(
    stage: Stage, operator: OperatorProcess, namespace: str, *bystanders: tuple[Kind, str]
) -> AsyncIterator[None]:
    """See that of these resources nothing is said meanwhile: no write, no other reason, no event.

    Args:
        bystanders: what nothing is wrong with; waited for until each is Running.
    """
    for kind, name in bystanders:
        await stage.until_reason(namespace, name, "Running", kind)
    await stage.until("nothing under way before", lambda: quiet(operator))
    before = {each: await _seen(stage, namespace, *each) for each in bystanders}
    yield
    for each, then in before.items():
        assert await _seen(stage, namespace, *each) == then, f"{each[0].name} {each[1]} is none of it"


async def _seen(stage: Stage, namespace: str, kind: Kind, name: str) -> tuple[str, tuple[str, str], list[str]]:
    """Version, Ready with its reason, and the reasons of all events."""
    item = await stage.api.get(kind, namespace, name)
    ready = await stage.ready(namespace, name, kind)
    assert ready[0] == "True", f"{kind.name} {name}: {ready[1]}"
    return item["metadata"]["resourceVersion"], ready, await told(stage, namespace, name)


async def running_bystander(stage: Stage, namespace: str) -> None:
    """A feed ``other`` with a pool ``others`` and one Running Trader ``bystander``, beside whatever goes wrong."""
    await stage.apply(
        feed(namespace, "other"),
        pool(namespace, "others", feed={"name": "other"}),
        trader(namespace, "bystander", in_pool="others"),
    )
    for kind, name in BYSTANDERS:
        await stage.until_reason(namespace, name, "Running", kind)
