"""The operator on a real API server: kwok's pods, simulated workers behind them, real faults between them.

Every test has a namespace of its own and an operator that looks after that one alone.
"""

from __future__ import annotations

import base64
import os
import signal
from pathlib import Path

import pytest
from tests.e2e.kubectl import Namespace
from tests.e2e.operator_cases import (
    BYSTANDERS,
    placed,
    quiet,
    running_bystander,
    running_one,
    scope,
    staged,
    told,
    until_told_once,
    untouched,
)
from tests.support.operator_chaos import Chances, Chaos, api_server_of, faulty_workers
from tests.support.operator_stage import NAMESPACE, Object, conditions_of, feed, pool, trader

from chandlery.core.errors import UnavailableError
from chandlery.operator.cache import Cache
from chandlery.operator.kubernetes.kinds import (
    CONFIG_MAP,
    MARKET_FEED,
    POD,
    SECRET,
    STATEFUL_SET,
    TRADER,
    TRADER_POOL,
)
from chandlery.operator.watching import Sweeper, prime


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
        assert status["code"] == "simulated", "what its worker says that it runs"
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
        # Services of pool, ingest and aggregator, budget, policy and Secret, which aren't known whole, are applied once;
        # that changed nothing.
        assert metrics["chandlery_operator_child_writes_total"] == 6
        assert metrics["chandlery_operator_workers_ready"] == 1


async def test_what_is_wrong_with_one_trader_is_said_there_and_leaves_the_others_alone(
    on_control_plane: Namespace, tmp_path: Path
) -> None:
    async with staged(on_control_plane, tmp_path) as (stage, ns):
        operator = await stage.operator(*scope(ns))
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
        async with untouched(stage, operator, ns, (TRADER, "one"), (MARKET_FEED, "market")):
            for manifest, reason in wrong:
                await stage.apply(manifest)
                await stage.until_reason(ns, manifest["metadata"]["name"], reason)
            stalled = conditions_of(await stage.api.get(TRADER, ns, "lost"))["Stalled"]
            assert stalled["status"] == "True"
            message = conditions_of(await stage.api.get(TRADER, ns, "lost"))["Ready"]["message"]
            assert "quants" in message, "what is near is named"
            assert [name for name in stage.workers.traders() if name.startswith(ns)] == [f"{ns}/one"]
            # Mended, it runs.
            await stage.apply(trader(ns, "typo"))
            await stage.until_reason(ns, "typo", "Running")
            # Each told once, and of nobody else anything.
            for manifest, reason in wrong:
                await until_told_once(stage, ns, manifest["metadata"]["name"], reason)
        assert await told(stage, ns, "one") == []


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
        operator = await stage.operator(*scope(ns))
        await running_one(stage, ns, room=1)
        await running_bystander(stage, ns)
        async with untouched(stage, operator, ns, (TRADER, "one"), (MARKET_FEED, "market"), *BYSTANDERS):
            await stage.apply(trader(ns, "two"))
            await stage.until_reason(ns, "two", "PoolFull")
            message = conditions_of(await stage.api.get(TRADER, ns, "two"))["Ready"]["message"]
            assert "spec.workers.max" in message
            await stage.until_reason(ns, "quants", "PoolFull", TRADER_POOL)
            await until_told_once(stage, ns, "two", "PoolFull")
            await until_told_once(stage, ns, "quants", "PoolFull")
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

        async def told_so() -> bool:
            held = [one for pod in stage.workers.pods.values() if pod.assignment for one in pod.assignment.traders]
            return [one.mode for one in held] == ["suspended"]

        await stage.until("its worker told so, and it in its place", told_so)
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

        async def is_told() -> bool:
            return "Moved" in await told(stage, ns, "one")

        await stage.until("an event that tells of the move", is_told)


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


async def test_a_feeds_pod_is_told_that_its_settings_have_changed(on_control_plane: Namespace, tmp_path: Path) -> None:
    async with staged(on_control_plane, tmp_path) as (stage, ns):
        await stage.operator(*scope(ns))
        await running_one(stage, ns)

        async def is_there() -> bool:
            return any(pod["metadata"]["name"] == "market-ingest-0" for pod in (await stage.api.list(POD, ns)).items)

        await stage.until("the feed's pod", is_there)
        uid = (await stage.api.get(POD, ns, "market-ingest-0"))["metadata"]["uid"]
        await stage.apply(trader(ns, "two", market={"symbols": ["ETH/USDT"], "interval": "1s"}))

        async def is_told() -> bool:
            settings = await stage.api.get(CONFIG_MAP, ns, "market-ingest")
            pod = await stage.api.get(POD, ns, "market-ingest-0")
            assert pod["metadata"]["uid"] == uid, "by a note on the pod, not by another pod"
            noted = pod["metadata"].get("annotations", {}).get("chandlery.dev/settings")
            digest = settings["metadata"]["annotations"]["chandlery.dev/content"]
            return "ETH/USDT" in settings["data"]["ingest.json"] and noted == digest

        await stage.until("the pod told of its settings", is_told)


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
        sets = await stage.api.list(STATEFUL_SET, ns, selector="chandlery.dev/pool=quants")
        before = {item["metadata"]["name"]: item for item in sets.items}
        assert len(before) == 3
        await stage.apply(pool(ns, workers=3, segment={"candles": 2000}))
        # The watch brings every version of each in the order in which they came about: nothing between is missed.
        changes = stage.api.watch(STATEFUL_SET, ns, sets.version, selector="chandlery.dev/pool=quants", silence_s=30)
        now, rolled = dict(before), set[str]()
        async for what, item in changes:
            if what == "BOOKMARK":
                continue
            assert what == "MODIFIED"
            name = item["metadata"]["name"]
            now[name] = item
            under_way = [one for one, there in now.items() if _is_rolling(there)]
            assert len(under_way) <= 1, f"{under_way} at once"
            if item["metadata"]["generation"] > before[name]["metadata"]["generation"] and not _is_rolling(item):
                rolled.add(name)
            if rolled == set(before):
                break
        await stage.until_reason(ns, "quants", "Running", TRADER_POOL)
        await stage.until_reason(ns, "one", "Running")


def _is_rolling(item: Object) -> bool:
    """Whether a StatefulSet has a template that its pod isn't of, or the pod isn't Ready."""
    status = item["status"]
    current = status.get("observedGeneration") == item["metadata"]["generation"]
    return not (current and status.get("updatedReplicas") == 1 and status.get("readyReplicas") == 1)


async def test_traders_of_another_namespace_run_where_its_labels_allow_it(
    on_control_plane: Namespace, tmp_path: Path
) -> None:
    async with staged(on_control_plane, tmp_path) as (stage, ns):
        operator = await stage.operator("--own-namespace", ns)  # all namespaces: labels are seen
        desk = f"{ns[:40]}-desk"
        await stage.api.create(NAMESPACE, {"metadata": {"name": desk}})
        try:
            selector = {"from": "Selector", "selector": {"matchLabels": {"team": "quant"}}}
            await running_one(stage, ns, allowedTraders={"namespaces": selector})
            async with untouched(stage, operator, ns, (TRADER, "one"), (MARKET_FEED, "market")):
                await stage.apply(trader(desk, "guest", pool={"name": "quants", "namespace": ns}))
                await stage.until_reason(desk, "guest", "NotAllowed")
                await until_told_once(stage, desk, "guest", "NotAllowed")
                await stage.api.merge(NAMESPACE, "", desk, {"metadata": {"labels": {"team": "quant"}}})
                await stage.until_reason(desk, "guest", "Running")
                await stage.api.merge(NAMESPACE, "", desk, {"metadata": {"labels": {"team": None}}})
                await stage.until_reason(desk, "guest", "NotAllowed")
                assert (await told(stage, desk, "guest")).count("NotAllowed") == 1, "it says the same again"
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
    async with staged(on_control_plane, tmp_path, restarts=True) as (stage, ns):
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


async def test_no_token_is_seen_outside_its_secret(on_control_plane: Namespace, tmp_path: Path) -> None:
    async with staged(on_control_plane, tmp_path) as (stage, ns):
        operator = await stage.operator(*scope(ns))
        await running_one(stage, ns)
        secret = await stage.api.get(SECRET, ns, "quants-0-worker-token")
        token = base64.b64decode(secret["data"]["token"]).decode()
        described = on_control_plane.kubectl("describe", "statefulset,configmap,pod,secret")
        assert token not in described
        assert token not in operator.log.read_text()


@pytest.mark.slow
async def test_whatever_is_lost_killed_or_doubled_every_trader_ends_where_it_belongs_once(
    on_control_plane: Namespace, tmp_path: Path
) -> None:
    chances = Chances(changes=300, pushes=30)
    async with staged(on_control_plane, tmp_path, faulty_workers(chances)) as (stage, ns):
        outcome = await Chaos(stage, ns, chances, scope(ns)).unleash(patience_s=90)
        assert outcome.is_right, outcome
        assert outcome.contradictions == 0, "no sequence was pushed with two contents"
        assert outcome.pushes > 20, "too little was pushed to tell"
        assert outcome.operator_kills > 0
