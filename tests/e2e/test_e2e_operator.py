"""The operator on a real API server: kwok's pods, simulated workers behind them, real faults between them.

Every test has a namespace of its own and an operator that looks after that one alone.
"""

from __future__ import annotations

import asyncio
import base64
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.e2e.kubectl import Namespace
from tests.support.operator_stage import NAMESPACE, Object, Stage, conditions_of, feed, pool, trader
from tests.support.simulated_workers import SimulatedWorkers

from chandlery.core.errors import UnavailableError
from chandlery.operator.cache import Cache
from chandlery.operator.kubernetes.kinds import (
    CONFIG_MAP,
    EVENT,
    MARKET_FEED,
    SECRET,
    STATEFUL_SET,
    TRADER,
    TRADER_POOL,
)
from chandlery.operator.watching import Sweeper, prime


@asynccontextmanager
async def staged(
    namespace: Namespace, folder: Path, workers: SimulatedWorkers | None = None
) -> AsyncIterator[tuple[Stage, str]]:
    """A stage, and the name of the test's namespace."""
    stage = Stage(namespace.cluster.kubeconfig, folder, workers)
    try:
        await stage.start()
        yield stage, namespace.name
    finally:
        await stage.stop()


def scope(name: str) -> tuple[str, ...]:
    return ("--namespace", name, "--own-namespace", name)


async def running_one(stage: Stage, name: str, *, workers: int = 1, room: int = 20, **spec: Any) -> None:
    """A feed, a pool and one Running Trader ``one``."""
    await stage.apply(feed(name), pool(name, workers=workers, room=room, **spec), trader(name, "one"))
    await stage.until_reason(name, "one", "Running")


async def placed(stage: Stage, trader: str) -> list[tuple[str, int]]:
    return stage.workers.traders().get(trader, [])


async def test_an_applied_trader_runs_and_every_status_says_so(on_control_plane: Namespace, tmp_path: Path) -> None:
    async with staged(on_control_plane, tmp_path) as (stage, ns):
        await stage.operator(*scope(ns))
        await running_one(stage, ns)
        await stage.until_reason(ns, "quants", "Running", TRADER_POOL)
        await stage.until_reason(ns, "market", "Running", MARKET_FEED)
        one = await stage.api.get(TRADER, ns, "one")
        assert {name: found["status"] for name, found in conditions_of(one).items()} == {
            "Ready": "True", "Reconciling": "False", "Stalled": "False", "AssignmentApplied": "True", "Warm": "True",
        }  # fmt: skip
        status = one["status"]
        assert (status["observedGeneration"], status["runningGeneration"], status["pod"]) == (1, 1, "quants-0-0")
        market = (await stage.api.get(MARKET_FEED, ns, "market"))["status"]
        assert (market["symbols"], market["intervals"], market["pools"]) == (["BTC/USDT"], ["1s"], 1)
        quants = (await stage.api.get(TRADER_POOL, ns, "quants"))["status"]
        assert (quants["used"], quants["capacity"], quants["workers"], quants["readyWorkers"]) == (1, 20, 1, 1)
        assert "finalizers" not in one["metadata"]
        assert "annotations" not in one["metadata"]
        on_control_plane.wait("trader/one", "condition=Ready")


async def test_applying_the_same_again_and_restarting_the_operator_write_nothing(
    on_control_plane: Namespace, tmp_path: Path
) -> None:
    async with staged(on_control_plane, tmp_path) as (stage, ns):
        first = await stage.operator(*scope(ns))
        await running_one(stage, ns)
        await stage.until_reason(ns, "quants", "Running", TRADER_POOL)
        await stage.until_reason(ns, "market", "Running", MARKET_FEED)
        kinds = (TRADER, TRADER_POOL, MARKET_FEED, CONFIG_MAP, STATEFUL_SET)

        async def versions() -> dict[str, str]:
            return {
                f"{kind.plural}/{item['metadata']['name']}": item["metadata"]["resourceVersion"]
                for kind in kinds
                for item in (await stage.api.list(kind, ns)).items
            }

        await stage.until("the first operator quiet", lambda: quiet(first))
        assert await first.stop() == 0
        before = await versions()
        second = await stage.operator(*scope(ns))
        await stage.apply(feed(ns), pool(ns), trader(ns, "one"))
        await stage.until("the second operator quiet", lambda: quiet(second))
        metrics = await second.metrics()
        assert await versions() == before
        assert metrics["chandlery_operator_status_writes_total"] == 0
        assert metrics["chandlery_operator_workers_ready"] == 1


async def quiet(operator: Any) -> bool:
    """Whether every worker has acknowledged and nothing is under way but what waits for a far time."""
    before = await operator.metrics()
    await asyncio.sleep(0.5)
    after = await operator.metrics()
    keys = ("reconciles_total", "status_writes_total", "child_writes_total")
    still = all(before[f"chandlery_operator_{key}"] == after[f"chandlery_operator_{key}"] for key in keys)
    return still and after["chandlery_operator_assignments_pending"] == 0


async def test_what_is_wrong_with_one_trader_is_said_there_and_leaves_the_others_alone(
    on_control_plane: Namespace, tmp_path: Path
) -> None:
    async with staged(on_control_plane, tmp_path) as (stage, ns):
        await stage.operator(*scope(ns))
        await running_one(stage, ns, room=3)
        source = {"source": {"configMapRef": {"name": "absent"}}}
        wrong: list[tuple[Object, str]] = [
            (trader(ns, "lost", in_pool="quant"), "UnknownPool"),
            (trader(ns, "typo", strategy={"name": "sma-crss"}), "UnknownStrategy"),
            (trader(ns, "extra", strategy={"name": "sma-cross", "parameters": {"quick": 1}}), "BadParameter"),
            (trader(ns, "huge", strategy={"name": "sma-cross", "parameters": {"fast": "x" * 900_000}}), "BadParameter"),
            (trader(ns, "tier", tier="gold"), "UnknownTier"),
            (trader(ns, "code", strategy={"name": "Mine", **source}), "NotAllowed"),
        ]
        for manifest, reason in wrong:
            await stage.apply(manifest)
            await stage.until_reason(ns, manifest["metadata"]["name"], reason)
        stalled = conditions_of(await stage.api.get(TRADER, ns, "lost"))["Stalled"]
        assert stalled["status"] == "True"
        message = conditions_of(await stage.api.get(TRADER, ns, "lost"))["Ready"]["message"]
        assert "quants" in message, "what is near is named"
        assert await stage.ready(ns, "one") == ("True", "Running")
        assert [name for name in stage.workers.traders() if name.startswith(ns)] == [f"{ns}/one"]
        # Mended, it runs.
        await stage.apply(trader(ns, "typo"))
        await stage.until_reason(ns, "typo", "Running")
        told = [
            item["reason"] for item in (await stage.api.list(EVENT, ns)).items if item["regarding"]["name"] == "typo"
        ]
        assert told.count("UnknownStrategy") == 1


async def test_a_bad_edit_keeps_the_version_before_running(on_control_plane: Namespace, tmp_path: Path) -> None:
    async with staged(on_control_plane, tmp_path) as (stage, ns):
        operator = await stage.operator(*scope(ns))
        await running_one(stage, ns)
        await stage.apply(trader(ns, "one", strategy={"name": "sma-cross", "parameters": {"quick": 1}}))
        await stage.until_reason(ns, "one", "BadParameter")
        status = (await stage.api.get(TRADER, ns, "one"))["status"]
        assert (status["observedGeneration"], status["runningGeneration"]) == (2, 1)
        assert [generation for _, generation in await placed(stage, f"{ns}/one")] == [1]
        # An operator that starts anew doesn't give the bad version to the worker either.
        operator.kill()
        await stage.operator(*scope(ns))
        await stage.apply(trader(ns, "two"))
        await stage.until_reason(ns, "two", "Running")
        assert [generation for _, generation in await placed(stage, f"{ns}/one")] == [1]


async def test_a_full_pool_names_the_field_to_raise_and_raising_it_helps(
    on_control_plane: Namespace, tmp_path: Path
) -> None:
    async with staged(on_control_plane, tmp_path) as (stage, ns):
        await stage.operator(*scope(ns))
        await running_one(stage, ns, room=1)
        await stage.apply(trader(ns, "two"))
        await stage.until_reason(ns, "two", "PoolFull")
        assert "spec.workers.max" in conditions_of(await stage.api.get(TRADER, ns, "two"))["Ready"]["message"]
        await stage.until_reason(ns, "quants", "PoolFull", TRADER_POOL)
        await stage.apply(pool(ns, room=1, most=2))
        await stage.until_reason(ns, "two", "Running")
        assert len({address for address, _ in await placed(stage, f"{ns}/two")}) == 1


async def test_suspending_keeps_the_place_and_resuming_gives_it_back(
    on_control_plane: Namespace, tmp_path: Path
) -> None:
    async with staged(on_control_plane, tmp_path) as (stage, ns):
        await stage.operator(*scope(ns))
        await running_one(stage, ns)
        await stage.apply(trader(ns, "one", suspend=True))
        await stage.until_reason(ns, "one", "Suspended")
        (there,) = [one for pod in stage.workers.pods.values() if pod.assignment for one in pod.assignment.traders]
        assert there.mode == "suspended"
        await stage.apply(trader(ns, "one", suspend=False))
        await stage.until_reason(ns, "one", "Running")


async def test_a_worker_that_is_not_ready_gives_its_traders_to_another(
    on_control_plane: Namespace, tmp_path: Path
) -> None:
    async with staged(on_control_plane, tmp_path) as (stage, ns):
        await stage.operator(*scope(ns), "--unready-after", "1s")
        await running_one(stage, ns, workers=2)
        ((address, _),) = await placed(stage, f"{ns}/one")
        lost = stage.workers.pod(address)
        lost.supervisor = False
        lost.bump()

        async def moved() -> bool:
            return any(where != address for where, _ in await placed(stage, f"{ns}/one"))

        await stage.until("moved to the other worker", moved)
        await stage.until_reason(ns, "one", "Running")

        async def left() -> bool:
            return all(where != address for where, _ in await placed(stage, f"{ns}/one"))

        await stage.until("and taken from the lost one, which can still be reached", left)

        async def told() -> bool:
            return "Moved" in {item["reason"] for item in (await stage.api.list(EVENT, ns)).items}

        await stage.until("an event that tells of the move", told)


async def test_a_strategy_in_a_configmap_travels_in_the_assignment_and_follows_its_changes(
    on_control_plane: Namespace, tmp_path: Path
) -> None:
    async with staged(on_control_plane, tmp_path) as (stage, ns):
        await stage.operator(*scope(ns))
        mine = {"name": "Mine", "source": {"configMapRef": {"name": "code"}}}
        await stage.apply(feed(ns), pool(ns, allowConfigMapStrategies=True), trader(ns, "one", strategy=mine))
        await stage.until_reason(ns, "one", "BadSource")
        sets = (await stage.api.list(STATEFUL_SET, ns)).items

        def code(text: str) -> Object:
            return {"metadata": {"name": "code", "namespace": ns}, "data": {"strategy.py": text}}

        await stage.api.create(CONFIG_MAP, code("first"))
        await stage.until_reason(ns, "one", "Running")
        await stage.api.merge(CONFIG_MAP, ns, "code", code("second"))

        async def follows() -> bool:
            held = [one for pod in stage.workers.pods.values() if pod.assignment for one in pod.assignment.traders]
            return [one.source for one in held] == ["second"] and held[0].incarnation == 2

        await stage.until("the changed source in the assignment", follows)
        generations = {item["metadata"]["name"]: item["metadata"]["generation"] for item in sets}
        for item in (await stage.api.list(STATEFUL_SET, ns)).items:
            assert item["metadata"]["generation"] == generations.get(item["metadata"]["name"], 1), "no pod rolls"


async def test_what_somebody_deletes_or_changes_of_the_children_is_put_right(
    on_control_plane: Namespace, tmp_path: Path
) -> None:
    async with staged(on_control_plane, tmp_path) as (stage, ns):
        await stage.operator(*scope(ns))
        await running_one(stage, ns)
        old = (await stage.api.get(STATEFUL_SET, ns, "quants-0"))["metadata"]["uid"]
        await stage.api.delete(STATEFUL_SET, ns, "quants-0")

        async def made_anew() -> bool:
            found = {item["metadata"]["name"]: item for item in (await stage.api.list(STATEFUL_SET, ns)).items}
            return "quants-0" in found and found["quants-0"]["metadata"]["uid"] != old

        await stage.until("the StatefulSet made anew", made_anew)
        await stage.api.delete(CONFIG_MAP, ns, "quants-0-settings")

        async def settings_back() -> bool:
            names = {item["metadata"]["name"] for item in (await stage.api.list(CONFIG_MAP, ns)).items}
            return "quants-0-settings" in names

        await stage.until("the settings made anew", settings_back)
        kept = (await stage.api.get(CONFIG_MAP, ns, "quants-0-assignment"))["data"]
        await stage.api.merge(CONFIG_MAP, ns, "quants-0-assignment", {"data": {"assignment.json": "{}"}})

        async def put_right() -> bool:
            now = (await stage.api.get(CONFIG_MAP, ns, "quants-0-assignment"))["data"]["assignment.json"]
            return f'"{ns}/one"' in now

        await stage.until("the assignment written again", put_right)
        assert kept["assignment.json"]
        await stage.until_reason(ns, "one", "Running")


async def test_a_changed_pool_rolls_its_workers_one_after_the_other(
    on_control_plane: Namespace, tmp_path: Path
) -> None:
    async with staged(on_control_plane, tmp_path) as (stage, ns):
        await stage.operator(*scope(ns))
        await running_one(stage, ns, workers=3)
        await stage.until_reason(ns, "quants", "Running", TRADER_POOL)
        most_at_once = 0
        await stage.apply(pool(ns, workers=3, segment={"candles": 2000}))

        async def rolled() -> bool:
            nonlocal most_at_once
            sets = (await stage.api.list(STATEFUL_SET, ns, selector="chandlery.dev/pool=quants")).items
            under_way = [
                one for one in sets if one["metadata"]["generation"] == 2 and not one["status"].get("readyReplicas")
            ]
            most_at_once = max(most_at_once, len(under_way))
            return all(one["metadata"]["generation"] == 2 for one in sets)

        await stage.until("all rolled", rolled)
        assert most_at_once <= 1
        await stage.until_reason(ns, "quants", "Running", TRADER_POOL)
        await stage.until_reason(ns, "one", "Running")


async def test_traders_of_another_namespace_run_where_its_labels_allow_it(
    on_control_plane: Namespace, tmp_path: Path
) -> None:
    async with staged(on_control_plane, tmp_path) as (stage, ns):
        await stage.operator("--own-namespace", ns)  # all namespaces: labels are seen
        desk = f"{ns[:40]}-desk"
        await stage.api.create(NAMESPACE, {"metadata": {"name": desk}})
        try:
            selector = {"from": "Selector", "selector": {"matchLabels": {"team": "quant"}}}
            await running_one(stage, ns, allowedTraders={"namespaces": selector})
            await stage.apply(trader(desk, "guest", pool={"name": "quants", "namespace": ns}))
            await stage.until_reason(desk, "guest", "NotAllowed")
            await stage.api.merge(NAMESPACE, "", desk, {"metadata": {"labels": {"team": "quant"}}})
            await stage.until_reason(desk, "guest", "Running")
            await stage.api.merge(NAMESPACE, "", desk, {"metadata": {"labels": {"team": None}}})
            await stage.until_reason(desk, "guest", "NotAllowed")
        finally:
            await stage.api.delete(NAMESPACE, "", desk)


async def test_a_namespace_ends_with_the_operator_down(on_control_plane: Namespace, tmp_path: Path) -> None:
    async with staged(on_control_plane, tmp_path) as (stage, ns):
        operator = await stage.operator(*scope(ns))
        await running_one(stage, ns)
        operator.kill()
        await stage.api.delete(NAMESPACE, "", ns)

        async def gone() -> bool:
            return ns not in {item["metadata"]["name"] for item in (await stage.api.list(NAMESPACE)).items}

        await stage.until("the namespace gone", gone, 120)


async def test_a_sweep_finds_ghosts_and_what_a_watch_failed_to_bring(
    on_control_plane: Namespace, tmp_path: Path
) -> None:
    async with staged(on_control_plane, tmp_path) as (stage, ns):
        await stage.apply(trader(ns, "there"))
        cache, marked = Cache(), list[tuple[str, str, str]]()
        await prime(stage.api, cache, [ns])
        await stage.api.delete(TRADER, ns, "there")
        await stage.apply(trader(ns, "unseen"))
        sweeper = Sweeper(stage.api, cache, [ns], marked.append, lambda _why: None)
        behind = await sweeper.look()
        assert cache.get("Trader", (ns, "there")) is None
        assert marked == [("pool", ns, "quants")]
        assert [name for name, _ in behind.values()] == [f"{ns}/unseen"]


async def test_a_change_with_manual_rollout_waits_for_its_approval(on_control_plane: Namespace, tmp_path: Path) -> None:
    async with staged(on_control_plane, tmp_path) as (stage, ns):
        await stage.operator(*scope(ns))
        await stage.apply(feed(ns), pool(ns), trader(ns, "one", rollout="Manual"))
        await stage.until_reason(ns, "one", "Running")
        await stage.apply(trader(ns, "one", fast=12, rollout="Manual"))
        await stage.until_reason(ns, "one", "AwaitingApproval")
        assert [generation for _, generation in await placed(stage, f"{ns}/one")] == [1]
        approval = {"metadata": {"annotations": {"chandlery.dev/approve-generation": "2"}}}
        await stage.api.merge(TRADER, ns, "one", approval)
        await stage.until_rolled_out(ns, "one")
        assert [generation for _, generation in await placed(stage, f"{ns}/one")] == [2]


async def test_a_deleted_pool_takes_its_children_along_and_its_traders_say_so(
    on_control_plane: Namespace, tmp_path: Path
) -> None:
    async with staged(on_control_plane, tmp_path) as (stage, ns):
        await stage.operator(*scope(ns))
        await running_one(stage, ns)
        await stage.api.delete(TRADER_POOL, ns, "quants")
        await stage.until_reason(ns, "one", "UnknownPool")

        async def gone() -> bool:
            left = [
                item["metadata"]["name"]
                for kind in (STATEFUL_SET, CONFIG_MAP, SECRET)
                for item in (await stage.api.list(kind, ns, selector="chandlery.dev/pool=quants")).items
            ]
            return not left

        await stage.until("the pool's children gone", gone)
        await stage.apply(pool(ns))
        await stage.until_reason(ns, "one", "Running")


@pytest.mark.slow
async def test_an_api_server_that_is_killed_loses_no_change(on_control_plane: Namespace, tmp_path: Path) -> None:
    if on_control_plane.cluster.logs is None:
        pytest.skip("somebody else's cluster: its API server is not ours to kill")
    async with staged(on_control_plane, tmp_path) as (stage, ns):
        operator = await stage.operator(*scope(ns))
        await running_one(stage, ns)
        for number in range(2):
            os.kill(api_server_of(stage.kubeconfig.parent), signal.SIGKILL)

            async def created(name: str = f"after-{number}") -> bool:
                try:
                    await stage.apply(trader(ns, name))
                except UnavailableError:
                    return False
                return True

            await stage.until("the API server back", created)
            await stage.until_reason(ns, f"after-{number}", "Running")
            await stage.api.delete(TRADER, ns, f"after-{number}")

        async def only_one() -> bool:
            return [name for name in stage.workers.traders() if name.startswith(f"{ns}/")] == [f"{ns}/one"]

        await stage.until("what was deleted gone", only_one)
        assert operator.process is not None
        assert operator.process.poll() is None, "it lived through"


def api_server_of(folder: Path) -> int:
    """The process id of a cluster's API server."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if words and words[0].endswith("kube-apiserver") and any(str(folder) in word for word in words):
            return int(process.pid)
    raise AssertionError(f"no API server of {folder}")


async def test_no_token_is_seen_outside_its_secret(on_control_plane: Namespace, tmp_path: Path) -> None:
    async with staged(on_control_plane, tmp_path) as (stage, ns):
        operator = await stage.operator(*scope(ns))
        await running_one(stage, ns)
        secret = await stage.api.get(SECRET, ns, "quants-0-token")
        token = base64.b64decode(secret["data"]["token"]).decode()
        described = on_control_plane.kubectl("describe", "statefulset,configmap,pod,secret")
        assert token not in described
        assert token not in operator.log.read_text()


def one_content_each(history: set[tuple[int, str]]) -> bool:
    """Whether no sequence was pushed with two contents."""
    return len({sequence for sequence, _ in history}) == len(history)


@pytest.mark.slow
async def test_whatever_is_lost_killed_or_doubled_every_trader_ends_where_it_belongs_once(
    on_control_plane: Namespace, tmp_path: Path
) -> None:
    chance = random.Random(20_251_125)

    def fault(method: str) -> str:
        if method == "PUT" and chance.random() < 0.3:
            return chance.choice(["lost", "answer lost", "busy"])
        return "lost" if chance.random() < 0.05 else ""

    async with staged(on_control_plane, tmp_path, SimulatedWorkers(fault=fault)) as (stage, ns):
        operator = await stage.operator(*scope(ns))
        await stage.apply(feed(ns), *(pool(ns, name, workers=2, room=40) for name in ("a", "b")))
        live: set[str] = set()

        async def changes() -> None:
            for number in range(300):
                act, name = chance.random(), f"t{number % 60:02d}"
                if name not in live or act < 0.6:
                    where = chance.choice("ab")
                    await stage.apply(trader(ns, name, in_pool=where, fast=chance.randrange(2, 50)))
                    live.add(name)
                else:
                    await stage.api.delete(TRADER, ns, name)
                    live.discard(name)
                    if act > 0.9:
                        await stage.apply(trader(ns, name, in_pool="a"))
                        live.add(name)

        async def kills() -> None:
            nonlocal operator
            while True:
                await asyncio.sleep(chance.uniform(1.0, 3.0))
                operator.kill()
                operator = await stage.operator(*scope(ns))

        killing = asyncio.create_task(kills())
        await changes()
        killing.cancel()
        await asyncio.gather(killing, return_exceptions=True)
        if operator.process is None or operator.process.poll() is not None:
            operator = await stage.operator(*scope(ns))

        async def right() -> bool:
            items = (await stage.api.list(TRADER, ns)).items
            wanted = {f"{ns}/{item['metadata']['name']}": item["metadata"]["generation"] for item in items}
            if {item["metadata"]["name"] for item in items} != live:
                return False
            found = {name: [generation for _, generation in where] for name, where in stage.workers.traders().items()}
            there = {name: where for name, where in found.items() if name.startswith(f"{ns}/")}
            ready = all(conditions_of(item).get("Ready", {}).get("reason") == "Running" for item in items)
            return ready and there == {name: [generation] for name, generation in wanted.items()}

        await stage.until("every Trader in one worker, in its newest generation, and nothing else", right, 90)
        histories = [set(pod.pushed) for pod in stage.workers.pods.values()]
        assert sum(map(len, histories)) > 10, "too little was pushed to tell"
        assert [one_content_each(history) for history in histories] == [True] * len(histories), histories
