"""Flux's kustomize-controller syncs the GitOps example: applies it, waits for it, rolls changes out, prunes.

The controller is the real one, on a real API server, with the real operator; workers are simulated, as in
test_e2e_operator. The test stands for source-controller, which fetches commits and hands them over as archives.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.e2e.cluster.commands import ClusterError
from tests.e2e.flux.building import DEFINITIONS, build
from tests.e2e.flux.controller import kustomize_controller
from tests.e2e.flux.repository import Repository, served_repository
from tests.e2e.kubectl import Cluster, Namespace
from tests.e2e.operator_cases import quiet
from tests.support.needed import missing
from tests.support.operator_stage import Object, OperatorProcess, Stage, conditions_of
from tests.support.simulated_workers import active

from chandlery.core.assignment import TraderAssignment, TraderStatus
from chandlery.operator.kubernetes.api import GoneError, Kind
from chandlery.operator.kubernetes.kinds import CONFIG_MAP, MARKET_FEED, TRADER, TRADER_POOL

ROOT = Path(__file__).parents[2]
KUSTOMIZATION = Kind("kustomize.toolkit.fluxcd.io/v1", "kustomizations", "Kustomization")
SYNCED = (MARKET_FEED, TRADER_POOL, TRADER, CONFIG_MAP)
# Between looks at health the controller lets five seconds pass, and two such waits are the most of a step here.
STEP_S = 60.0


@pytest.fixture(scope="session")
def flux(control_plane: Cluster) -> Path:
    """The folder of Flux's program, which in CI must be had; its kinds are known to the cluster."""
    if control_plane.binaries is None:
        pytest.skip("a cluster that isn't this run's own may have a Flux of its own")
    try:
        folder = build()
    except ClusterError as error:
        missing(f"Flux's kustomize-controller can't be built here: {error}")
    control_plane.apply(folder / DEFINITIONS, "--server-side")
    control_plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    return folder


class Sync:
    """The example's Kustomization ``traders`` in the test's namespace, and the repository behind it."""

    def __init__(self, stage: Stage, namespace: Namespace, repository: Repository) -> None:
        self.stage = stage
        self.name = namespace.name
        self.repository = repository
        self._namespace = namespace
        self._requests = 0

    async def operator(self) -> OperatorProcess:
        """Start the operator, as the chart would: with a Kafka for all feeds."""
        own = ("--namespace", self.name, "--own-namespace", self.name)
        return await self.stage.operator(*own, "--kafka", "kafka.invalid:9092")

    async def push(self, message: str) -> str:
        """Commit and hand over; returns the revision."""
        return await asyncio.to_thread(self.repository.push, message)

    async def request(self) -> None:
        """Have the controller reconcile once more, and wait until it has."""
        self._requests += 1
        token = str(self._requests)
        annotations = {"metadata": {"annotations": {"reconcile.fluxcd.io/requestedAt": token}}}
        await self.stage.api.merge(KUSTOMIZATION, self.name, "traders", annotations)
        await self.until(lambda found: found["status"].get("lastHandledReconcileAt") == token)

    async def until(self, holds: Callable[[Object], bool]) -> Object:
        """Wait until something holds of the Kustomization, and return it."""
        found: Object = {}

        async def look() -> bool:
            found.update(await self.stage.api.get(KUSTOMIZATION, self.name, "traders"))
            return holds(found)

        try:
            await self.stage.until("", look, STEP_S)
        except AssertionError:
            raise AssertionError(yaml.safe_dump(found.get("status"))) from None
        return found

    async def until_ready(self, revision: str) -> None:
        """Wait until all of a revision is there and healthy, and see that it was not said too early.

        The API server numbers all writes in one order: what is said of the Traders comes before what is said of all.
        """
        found = await self.until(
            lambda found: ready(found)["status"] == "True" and found["status"].get("lastAppliedRevision") == revision
        )
        for trader in (await self.stage.api.list(TRADER, self.name)).items:
            assert ready(trader)["status"] == "True" or ready(trader)["reason"] == "Suspended"
            assert conditions_of(trader)["Reconciling"]["status"] == "False"
            assert trader["status"]["observedGeneration"] == trader["metadata"]["generation"]
            assert int(trader["metadata"]["resourceVersion"]) < int(found["metadata"]["resourceVersion"])

    async def until_checking(self, revision: str) -> None:
        """Wait until a revision is applied and its health is looked at."""
        await self.until(lambda found: f"Running health checks for revision {revision}" in str(found["status"]))

    async def until_not_ready(self, revision: str, reason: str) -> str:
        """Wait until a revision was tried and has failed for that reason; returns the message."""
        found = await self.until(
            lambda found: (
                (ready(found)["status"], ready(found)["reason"]) == ("False", reason)
                and found["status"].get("lastAttemptedRevision") == revision
            )
        )
        return str(ready(found)["message"])

    async def until_timed_out(self, revision: str) -> str:
        """Wait until a revision's health was looked at for all of the timeout, and never found; returns the message."""
        found: Object = {}

        def holds(now: Object) -> bool:
            found.update(now)
            assert (ready(now)["status"], now["status"].get("lastAppliedRevision")) != ("True", revision)
            tried = now["status"].get("lastAttemptedRevision") == revision
            return tried and (ready(now)["status"], ready(now)["reason"]) == ("False", "HealthCheckFailed")

        await self.until(holds)
        return str(ready(found)["message"])

    async def versions(self) -> dict[str, tuple[int, str]]:
        """Generation and resource version of everything that is synced; of a ConfigMap's name without the digest."""
        mine = "kustomize.toolkit.fluxcd.io/name=traders"
        found = {}
        for kind in SYNCED:
            for item in (await self.stage.api.list(kind, self.name, selector=mine)).items:
                meta = item["metadata"]
                name = meta["name"].rpartition("-")[0] if kind is CONFIG_MAP else meta["name"]
                found[f"{kind.name}/{name}"] = (meta.get("generation", 0), meta["resourceVersion"])
        return found

    async def trader(self, name: str) -> Object:
        return await self.stage.api.get(TRADER, self.name, name)

    async def give_up_after(self, seconds: int) -> None:
        """Have the Kustomization wait for health no longer than this, from its next look on."""
        await self.stage.api.merge(KUSTOMIZATION, self.name, "traders", {"spec": {"timeout": f"{seconds}s"}})

    def edit(self, pattern: str, by: str, file: str = "traders.yaml") -> None:
        """Replace the one place in a file of the base that the pattern fits."""
        path = self.repository.folder / "gitops" / "traders" / "base" / file
        text, count = re.subn(pattern, by, path.read_text(encoding="utf-8"))
        assert count == 1, f"{pattern} is {count} times in {file}"
        path.write_text(text, encoding="utf-8")


def ready(item: Object) -> Object:
    """The condition Ready; empty words where there is none yet."""
    return conditions_of(item).get("Ready", {"status": "", "reason": "", "message": ""})


@asynccontextmanager
async def syncing(
    flux: Path, namespace: Namespace, folder: Path, overlay: str, *, without: str = ""
) -> AsyncIterator[Sync]:
    """A stage without an operator, and Flux with an empty repository, whose work tree has the example.

    Args:
        without: a field of the Kustomization that is left out.
    """
    stage = Stage(namespace.cluster.kubeconfig, folder)
    try:
        await stage.start()
        with ExitStack() as stack:
            await asyncio.to_thread(namespace.apply, example(namespace.name, overlay, without))
            repository = stack.enter_context(served_repository(folder, namespace, "chandlery"))
            shutil.copytree(ROOT / "gitops", repository.folder / "gitops")
            await asyncio.to_thread(stack.enter_context, kustomize_controller(flux, namespace, folder))
            yield Sync(stage, namespace, repository)
    finally:
        await stage.stop()


def example(namespace: str, overlay: str, without: str = "") -> list[dict[str, Any]]:
    """What of ``gitops/flux`` the controller reads, in the test's namespace, for one overlay.

    What has failed is tried again after the example's minute, which no test waits for: none passes by a second try.
    """
    text = (ROOT / "gitops" / "flux" / "chandlery.yaml").read_text(encoding="utf-8")
    made = [one for one in yaml.safe_load_all(text) if one["kind"] in ("GitRepository", "Kustomization")]
    for one in made:
        one["metadata"]["namespace"] = namespace
    (spec,) = [one["spec"] for one in made if one["kind"] == "Kustomization"]
    spec.pop(without, None)
    folder, _, _ = spec["path"].rpartition("/")
    spec |= {
        "path": f"{folder}/{overlay}",
        "targetNamespace": namespace,
        # Simulated workers answer on loopback nodes alone.
        "patches": [
            {
                "target": {"kind": "TraderPool"},
                "patch": "- {op: add, path: /spec/podTemplate, value: {spec: {nodeSelector: {type: loopback}}}}",
            }
        ],
    }
    return made


async def test_the_example_is_applied_awaited_rolled_out_and_pruned(
    flux: Path, on_control_plane: Namespace, tmp_path: Path
) -> None:
    async with syncing(flux, on_control_plane, tmp_path, "staging") as sync:
        operator = await sync.operator()
        await sync.until_ready(await sync.push("first"))
        await sync.stage.until("nothing more to write", lambda: quiet(operator))
        first = await sync.versions()
        assert set(first) == {
            "MarketFeed/majors", "TraderPool/desk", "Trader/sma-btc", "Trader/breakout-majors", "ConfigMap/breakout",
        }  # fmt: skip
        for kind in SYNCED[:3]:
            for item in (await sync.stage.api.list(kind, sync.name)).items:
                assert ready(item)["status"] == "True"

        # Again, and with a commit that changes nothing: no write.
        await sync.request()
        await sync.until_ready(await sync.push("nothing"))
        assert await sync.versions() == first

        # A changed Trader rolls out, it alone.
        sync.edit("fast: 5", "fast: 6")
        await sync.until_ready(await sync.push("faster"))
        changed = await sync.trader("sma-btc")
        assert (changed["metadata"]["generation"], changed["status"]["runningGeneration"]) == (2, 2)
        assert changed["spec"]["strategy"]["parameters"] == {"fast": 6, "slow": 20}
        generations = {name: generation for name, (generation, _) in (await sync.versions()).items()}
        assert generations == {name: generation for name, (generation, _) in first.items()} | {"Trader/sma-btc": 2}

        # One that is no longer in the repository goes.
        sync.edit(r"---\n(?s:.*)name: breakout-majors(?s:.*)", "")
        await sync.until_ready(await sync.push("fewer"))
        with pytest.raises(GoneError):
            await sync.trader("breakout-majors")

        async def alone() -> bool:
            left = [trader for trader in sync.stage.workers.traders() if trader.startswith(sync.name)]
            return left == [f"{sync.name}/sma-btc"]

        await sync.stage.until("the worker has the one that is left", alone)


async def test_a_change_is_not_healthy_while_the_version_before_runs_on(
    flux: Path, on_control_plane: Namespace, tmp_path: Path
) -> None:
    waits = True

    def state_of(one: TraderAssignment) -> TraderStatus:
        status = active(one)
        if waits and one.mode == "standby":
            status.state, status.warm_have = "Ready", 10
        return status

    async with syncing(flux, on_control_plane, tmp_path, "staging") as sync:
        sync.stage.workers.state_of = state_of
        await sync.operator()
        await sync.until_ready(await sync.push("first"))
        await sync.give_up_after(15)
        sync.edit("fast: 5", "fast: 6")
        revision = await sync.push("faster")
        message = await sync.until_timed_out(revision)
        assert f"Trader/{sync.name}/sma-btc status: 'InProgress'" in message
        assert "breakout-majors" not in message
        changed = await sync.trader("sma-btc")
        conditions = conditions_of(changed)
        assert (changed["status"]["observedGeneration"], changed["status"]["runningGeneration"]) == (2, 1)
        assert (conditions["Ready"]["status"], conditions["Reconciling"]["reason"]) == ("True", "Warming")

        waits = False
        for pod in sync.stage.workers.pods.values():
            standing_by = [one for one in pod.assignment.traders if one.mode == "standby"] if pod.assignment else []
            pod.successors = {one.trader: active(one) for one in standing_by}
            pod.bump()
        await sync.stage.until_rolled_out(sync.name, "sma-btc")
        await sync.request()
        await sync.until_ready(revision)


async def test_what_is_wrong_with_one_trader_is_told_at_once_and_leaves_the_others_running(
    flux: Path, on_control_plane: Namespace, tmp_path: Path
) -> None:
    async with syncing(flux, on_control_plane, tmp_path, "staging") as sync:
        await sync.operator()
        await sync.until_ready(await sync.push("sound"))

        # What the API server refuses is in Flux's own words, and nothing of the commit is applied.
        sync.edit("fast: 5, slow: 20}\n  market:", "fast: 6, slow: 20}\n  market:")
        sync.edit(r"symbols: \[BTC/USDT, ETH/USDT\]", "symbols: BTC/USDT")
        message = await sync.until_not_ready(await sync.push("refused"), "ReconciliationFailed")
        assert "breakout-majors" in message
        assert "spec.market.symbols" in message
        assert (await sync.trader("sma-btc"))["metadata"]["generation"] == 1

        # What the operator finds stalls the Trader: Flux names it without waiting for its timeout.
        sync.edit("symbols: BTC/USDT", "symbols: [BTC/USDT, ETH/USDT]")
        sync.edit("fast: 6, slow: 20}", "quick: 6}")
        message = await sync.until_not_ready(await sync.push("stalled"), "HealthCheckFailed")
        assert f"Trader/{sync.name}/sma-btc status: 'Failed'" in message
        found = conditions_of(await sync.trader("sma-btc"))
        assert (found["Stalled"]["status"], found["Stalled"]["reason"]) == ("True", "BadParameter")
        assert "quick" in found["Stalled"]["message"]
        assert found["Ready"]["status"] == "True", "the version before runs on"
        assert ready(await sync.trader("breakout-majors"))["status"] == "True"

        sync.edit("quick: 6}", "fast: 7}")
        await sync.until_ready(await sync.push("mended"))


async def test_nothing_is_healthy_before_the_operator_has_looked_at_it(
    flux: Path, on_control_plane: Namespace, tmp_path: Path
) -> None:
    # By kstatus alone, as for who doesn't copy the example's expressions.
    async with syncing(flux, on_control_plane, tmp_path, "staging", without="healthCheckExprs") as sync:
        revision = await sync.push("first")
        await sync.until_checking(revision)
        await sync.operator()
        await sync.until_ready(revision)


async def test_a_suspended_trader_is_healthy(flux: Path, on_control_plane: Namespace, tmp_path: Path) -> None:
    async with syncing(flux, on_control_plane, tmp_path, "staging") as sync:
        await sync.operator()
        sync.edit(r"name: sma-btc\nspec:\n", "name: sma-btc\nspec:\n  suspend: true\n")
        await sync.until_ready(await sync.push("suspended"))
        assert ready(await sync.trader("sma-btc"))["reason"] == "Suspended"


async def test_in_production_a_change_waits_for_consent_and_flux_for_the_change(
    flux: Path, on_control_plane: Namespace, tmp_path: Path
) -> None:
    async with syncing(flux, on_control_plane, tmp_path, "production") as sync:
        await sync.operator()
        await sync.until_ready(await sync.push("first"))
        sync.edit("fast: 5", "fast: 6")
        revision = await sync.push("faster")
        await sync.until_checking(revision)
        await sync.stage.until_reason(sync.name, "sma-btc", "AwaitingApproval")
        assert (await sync.trader("sma-btc"))["status"]["runningGeneration"] == 1

        approval = {"chandlery.dev/approve-generation": "2"}
        await sync.stage.api.merge(TRADER, sync.name, "sma-btc", {"metadata": {"annotations": approval}})
        await sync.until_ready(revision)
        # Flux leaves the consent where it is.
        await sync.request()
        approved = await sync.trader("sma-btc")
        assert approved["metadata"]["annotations"] == approval
        assert (approved["metadata"]["generation"], approved["status"]["runningGeneration"]) == (2, 2)
