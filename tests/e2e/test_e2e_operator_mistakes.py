"""What people do to an operator's world by mistake: each is said where it belongs, once, and hurts nobody else."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.kubectl import Namespace
from tests.e2e.operator_cases import placed, quiet, running_one, scope, staged, told, until_told_once
from tests.support.operator_stage import NAMESPACE, Object, Stage, conditions_of, feed, pool, trader
from tests.support.simulated_workers import SimulatedWorkers

from chandlery.core.assignment import MOST_SEQUENCE, TraderAssignment, TraderStatus, content_hash
from chandlery.operator.kubernetes.api import GoneError, Kind
from chandlery.operator.kubernetes.kinds import (
    CONFIG_MAP,
    MARKET_FEED,
    NETWORK_POLICY,
    POD,
    POD_DISRUPTION_BUDGET,
    SECRET,
    SERVICE,
    STATEFUL_SET,
    TRADER,
    TRADER_POOL,
)

RESOURCE_QUOTA = Kind("v1", "resourcequotas", "ResourceQuota")


async def message(stage: Stage, ns: str, name: str, kind: Kind = TRADER) -> str:
    return str(conditions_of(await stage.api.get(kind, ns, name))["Ready"]["message"])


async def limited(stage: Stage, ns: str, name: str, kind: Kind, most: int) -> None:
    """A quota that is in force, and knows of all of the kind that are there: its controller counts by a watch of its own."""
    counted = "pods" if kind is POD else f"count/{kind.plural}.apps"
    hard = {"limits.memory": "8Ti", counted: str(most)}
    await stage.api.create(RESOURCE_QUOTA, {"metadata": {"name": name, "namespace": ns}, "spec": {"hard": hard}})

    async def in_force() -> bool:
        status = (await stage.api.get(RESOURCE_QUOTA, ns, name)).get("status", {})
        there = len((await stage.api.list(kind, ns)).items)
        return bool(status.get("hard")) and status.get("used", {}).get(counted) == str(there)

    await stage.until("the quota in force", in_force)


async def raised(stage: Stage, ns: str, name: str, **hard: str) -> None:
    await stage.api.merge(RESOURCE_QUOTA, ns, name, {"spec": {"hard": hard}})


async def test_a_quota_that_refuses_a_workers_pod_is_told_by_pool_and_traders_and_raising_it_helps(
    on_control_plane: Namespace, tmp_path: Path
) -> None:
    async with staged(on_control_plane, tmp_path) as (stage, ns):
        await stage.operator(*scope(ns))
        await running_one(stage, ns, room=1)
        await stage.until_reason(ns, "market", "Running", MARKET_FEED)
        await limited(stage, ns, "small", POD, 3)  # ingest, aggregator, one worker
        await stage.apply(pool(ns, room=1, most=2), trader(ns, "two"))
        await stage.until_reason(ns, "two", "QuotaExceeded")
        await stage.until_reason(ns, "quants", "QuotaExceeded", TRADER_POOL)
        for said in (await message(stage, ns, "two"), await message(stage, ns, "quants", TRADER_POOL)):
            assert "small" in said, said
            assert "pods=3" in said, said
            assert "spec.hard" in said, said
        assert await stage.ready(ns, "one") == ("True", "Running")
        await until_told_once(stage, ns, "two", "QuotaExceeded")
        await until_told_once(stage, ns, "quants", "QuotaExceeded")
        await raised(stage, ns, "small", pods="9")
        # Its controller tries again by itself, at intervals that double.
        await stage.until_reason(ns, "two", "Running")
        await stage.until_reason(ns, "quants", "Running", TRADER_POOL)


@pytest.mark.parametrize(("kind", "counted"), [(POD, "pods"), (STATEFUL_SET, "count/statefulsets.apps")])
async def test_a_quota_that_refuses_a_feeds_pods_or_statefulsets_is_told_by_the_feed(
    on_control_plane: Namespace, tmp_path: Path, kind: Kind, counted: str
) -> None:
    async with staged(on_control_plane, tmp_path) as (stage, ns):
        await limited(stage, ns, "none", kind, 0)
        await stage.operator(*scope(ns))
        await stage.apply(feed(ns, symbols=["BTC/USDT"], intervals=["1s"]))
        await stage.until_reason(ns, "market", "QuotaExceeded", MARKET_FEED)
        said = await message(stage, ns, "market", MARKET_FEED)
        assert "none" in said, said
        assert f"{counted}=0" in said, said
        await until_told_once(stage, ns, "market", "QuotaExceeded")
        await raised(stage, ns, "none", **{counted: "9"})
        await stage.until_reason(ns, "market", "Running", MARKET_FEED)


async def test_a_quota_that_refuses_a_workers_statefulset_is_told_the_same_way(
    on_control_plane: Namespace, tmp_path: Path
) -> None:
    async with staged(on_control_plane, tmp_path) as (stage, ns):
        await stage.operator(*scope(ns))
        await running_one(stage, ns, room=1)
        await stage.until_reason(ns, "market", "Running", MARKET_FEED)
        await limited(stage, ns, "few", STATEFUL_SET, 3)
        await stage.apply(pool(ns, room=1, most=2), trader(ns, "two"))
        await stage.until_reason(ns, "two", "QuotaExceeded")
        assert "count/statefulsets.apps=3" in await message(stage, ns, "two")
        await stage.until_reason(ns, "quants", "QuotaExceeded", TRADER_POOL)
        assert await stage.ready(ns, "one") == ("True", "Running")
        await raised(stage, ns, "few", **{"count/statefulsets.apps": "9"})
        await stage.until_reason(ns, "two", "Running")


async def test_a_feed_without_a_kafka_is_told_by_feed_pool_and_trader_and_naming_one_helps(
    on_control_plane: Namespace, tmp_path: Path
) -> None:
    async with staged(on_control_plane, tmp_path) as (stage, ns):
        await stage.operator(*scope(ns))
        await stage.apply(feed(ns, kafka={}), pool(ns), trader(ns, "one"))
        whose = {"market": MARKET_FEED, "quants": TRADER_POOL, "one": TRADER}
        for name, kind in whose.items():
            await stage.until_reason(ns, name, "NoKafka", kind)
            found = conditions_of(await stage.api.get(kind, ns, name))
            assert (found["Ready"]["status"], found["Stalled"]["status"]) == ("False", "True")
            assert f"MarketFeed {ns}/market names no Kafka" in found["Ready"]["message"]
            await until_told_once(stage, ns, name, "NoKafka")
        assert (await stage.api.list(STATEFUL_SET, ns)).items == []
        await stage.apply(feed(ns))
        for name, kind in whose.items():
            await stage.until_reason(ns, name, "Running", kind)


_CHILDREN: list[tuple[Kind, str, Object]] = [
    (SERVICE, "quants-workers", {"spec": {"publishNotReadyAddresses": False}}),
    (SERVICE, "market-ingest", {"spec": {"publishNotReadyAddresses": False}}),
    (POD_DISRUPTION_BUDGET, "quants-workers", {"spec": {"maxUnavailable": 3}}),
    (NETWORK_POLICY, "quants-workers", {"spec": {"egress": []}}),
    (CONFIG_MAP, "quants-0-settings", {"data": {"feed.json": "{}"}}),
    (STATEFUL_SET, "quants-0", {"spec": {"replicas": 0}}),
]


def _said(item: Object) -> Any:
    return item.get("spec", item.get("data"))


async def _until_as_before(stage: Stage, kind: Kind, before: Object) -> None:
    ns, name = before["metadata"]["namespace"], before["metadata"]["name"]

    async def is_back() -> bool:
        try:
            now = await stage.api.get(kind, ns, name)
        except GoneError:
            return False
        return bool(_said(now) == _said(before))

    await stage.until(f"{kind.name} {name} as before", is_back)


@pytest.mark.parametrize("act", ["deleted", "edited", "edited while no operator ran"])
async def test_whatever_child_somebody_deletes_or_edits_is_put_right_and_then_left_alone(
    on_control_plane: Namespace, tmp_path: Path, act: str
) -> None:
    async with staged(on_control_plane, tmp_path) as (stage, ns):
        operator = await stage.operator(*scope(ns))
        await running_one(stage, ns)
        await stage.until("quiet", lambda: quiet(operator))
        before = [(kind, await stage.api.get(kind, ns, name)) for kind, name, _ in _CHILDREN]
        if act == "edited while no operator ran":
            operator.kill()
        for kind, name, edit in _CHILDREN:
            if act == "deleted":
                await stage.api.delete(kind, ns, name)
            else:
                # As kubectl edit does: the digest among the annotations stays.
                on_control_plane.kubectl("patch", kind.plural, name, "--type=merge", "-p", json.dumps(edit))
        if act == "edited while no operator ran":
            operator = await stage.operator(*scope(ns))
        for kind, item in before:
            if act == "deleted" and kind == SERVICE:
                item["spec"] |= {"clusterIP": "None"}
            await _until_as_before(stage, kind, item)
        await stage.until_reason(ns, "one", "Running")
        await stage.until("quiet again", lambda: quiet(operator))
        writes = (await operator.metrics())["chandlery_operator_child_writes_total"]
        # One for each: nothing is written in circles.
        assert writes <= 40, writes


async def test_a_token_that_a_worker_refuses_is_written_again(on_control_plane: Namespace, tmp_path: Path) -> None:
    async with staged(on_control_plane, tmp_path) as (stage, ns):
        await stage.operator(*scope(ns))
        await running_one(stage, ns)
        before = (await stage.api.get(SECRET, ns, "quants-0-worker-token"))["data"]
        other = base64.b64encode(b"another").decode()
        await stage.api.merge(SECRET, ns, "quants-0-worker-token", {"data": {"token": other}})
        ((address, _),) = await placed(stage, f"{ns}/one")
        pod = stage.workers.pod(address)
        pod.denies = True  # as the feed does once the kubelet has brought it the other token
        pod.bump()

        async def written() -> bool:
            return bool((await stage.api.get(SECRET, ns, "quants-0-worker-token"))["data"] == before)

        await stage.until("the Secret as it was", written)
        pod.denies = False
        await stage.until_reason(ns, "one", "Running")


async def test_a_secret_of_a_workers_name_that_is_somebody_elses_is_neither_taken_nor_deleted(
    on_control_plane: Namespace, tmp_path: Path
) -> None:
    async with staged(on_control_plane, tmp_path) as (stage, ns):
        body = {"metadata": {"name": "quants-0-worker-token", "namespace": ns}, "data": {"token": "bWluZQ=="}}
        await stage.api.create(SECRET, body)
        await stage.operator(*scope(ns))
        await stage.apply(feed(ns), pool(ns), trader(ns, "one"))
        await stage.until_reason(ns, "quants", "Refused", TRADER_POOL)
        assert "quants-0-worker-token" in await message(stage, ns, "quants", TRADER_POOL)
        await stage.api.delete(TRADER_POOL, ns, "quants")
        await stage.until_reason(ns, "one", "UnknownPool")
        kept = await stage.api.get(SECRET, ns, "quants-0-worker-token")
        assert kept["data"] == {"token": "bWluZQ=="}
        assert "ownerReferences" not in kept["metadata"]


async def test_a_configmap_of_a_childs_name_that_is_somebody_elses_is_left_as_it_is(
    on_control_plane: Namespace, tmp_path: Path
) -> None:
    async with staged(on_control_plane, tmp_path) as (stage, ns):
        body = {"metadata": {"name": "quants-0-settings", "namespace": ns}, "data": {"theirs": "1"}}
        await stage.api.create(CONFIG_MAP, body)
        await stage.operator(*scope(ns))
        await stage.apply(feed(ns), pool(ns), trader(ns, "one"))
        for name, kind in (("quants", TRADER_POOL), ("one", TRADER)):
            await stage.until_reason(ns, name, "Refused", kind)
            assert "quants-0-settings" in await message(stage, ns, name, kind)
        kept = await stage.api.get(CONFIG_MAP, ns, "quants-0-settings")
        assert kept["data"] == {"theirs": "1"}
        assert "ownerReferences" not in kept["metadata"]
        await stage.api.delete(CONFIG_MAP, ns, "quants-0-settings")
        await stage.until_reason(ns, "one", "Running")


@pytest.mark.parametrize("wrong", ["hash", "sequence"])
@pytest.mark.parametrize("operator_is", ["away", "there"])
async def test_a_kept_assignment_that_somebody_forged_is_replaced_by_one_above_it(
    on_control_plane: Namespace, tmp_path: Path, wrong: str, operator_is: str
) -> None:
    async with staged(on_control_plane, tmp_path) as (stage, ns):
        operator = await stage.operator(*scope(ns))
        await running_one(stage, ns)
        await stage.until("quiet", lambda: quiet(operator))
        if operator_is == "away":
            operator.kill()
        kept = json.loads((await stage.api.get(CONFIG_MAP, ns, "quants-0-assignment"))["data"]["assignment.json"])
        forged = dict(kept)
        if wrong == "hash":
            forged |= {"traders": [], "sequence": kept["sequence"] + 5}
        else:
            forged |= {"sequence": 2**64 - 1}
        text = json.dumps(forged)
        await stage.api.merge(CONFIG_MAP, ns, "quants-0-assignment", {"data": {"assignment.json": text}})
        if operator_is == "away":
            operator = await stage.operator(*scope(ns))
        least = forged["sequence"] if wrong == "hash" else kept["sequence"] - 1

        async def replaced() -> bool:
            item = await stage.api.get(CONFIG_MAP, ns, "quants-0-assignment")
            now = json.loads(item["data"]["assignment.json"])
            # What isn't to be believed doesn't say since when candles are a Trader's: it is from now on.
            since = [[one["since_ms"] for one in told["traders"]] for told in (kept, now)]
            same = [one | {"since_ms": 0} for one in now["traders"]] == [
                one | {"since_ms": 0} for one in kept["traders"]
            ]
            return bool(same and since[0] <= since[1] and least < now["sequence"] <= MOST_SEQUENCE)

        await stage.until("the assignment as it was, above the forged one", replaced)

        async def is_told() -> bool:
            return "AssignmentReplaced" in await told(stage, ns, "quants")

        await stage.until("told", is_told)
        await stage.until_reason(ns, "one", "Running")
        assert len(await placed(stage, f"{ns}/one")) == 1
        pushed = {digest for pod in stage.workers.pods.values() for _, digest in pod.pushed}
        assert content_hash([]) not in pushed, "meanwhile nobody was told to stop what runs"


async def test_two_traders_of_one_name_in_two_namespaces_are_two(on_control_plane: Namespace, tmp_path: Path) -> None:
    async with staged(on_control_plane, tmp_path) as (stage, ns):
        await stage.operator("--own-namespace", ns)
        desk = f"{ns[:40]}-desk"
        await stage.api.create(NAMESPACE, {"metadata": {"name": desk}})
        try:
            await running_one(stage, ns, allowedTraders={"namespaces": {"from": "All"}})
            await stage.apply(trader(desk, "one", fast=3, pool={"name": "quants", "namespace": ns}))
            await stage.until_reason(desk, "one", "Running")
            assert await stage.ready(ns, "one") == ("True", "Running")
            found = [one for pod in stage.workers.pods.values() if pod.assignment for one in pod.assignment.traders]
            mine = {one.trader: one.parameters["fast"] for one in found if one.trader.partition("/")[0] in (ns, desk)}
            assert mine == {f"{ns}/one": 9, f"{desk}/one": 3}
            # What becomes of one is nothing to the other.
            await stage.apply(
                trader(desk, "one", strategy={"name": "nowhere"}, pool={"name": "quants", "namespace": ns})
            )
            await stage.until_reason(desk, "one", "UnknownStrategy")
            assert await stage.ready(ns, "one") == ("True", "Running")
            await stage.api.delete(TRADER, desk, "one")

            async def alone() -> bool:
                return not await placed(stage, f"{desk}/one") and len(await placed(stage, f"{ns}/one")) == 1

            await stage.until("the other one alone", alone)
        finally:
            await stage.api.delete(NAMESPACE, "", desk)


async def test_a_strategy_that_crashes_at_its_import_is_told_with_its_words_and_the_others_run(
    on_control_plane: Namespace, tmp_path: Path
) -> None:
    async with staged(on_control_plane, tmp_path) as (stage, ns):
        whole = stage.workers.state_of

        def state_of(assigned: TraderAssignment) -> TraderStatus:
            if assigned.source is None:
                return whole(assigned)
            return TraderStatus(
                "Stalled", reason="BadSource", message="line 1: ZeroDivisionError: division by zero",
                generation=assigned.generation, incarnation=assigned.incarnation,
            )  # fmt: skip

        stage.workers.state_of = state_of
        await stage.operator(*scope(ns))
        await running_one(stage, ns, allowConfigMapStrategies=True)
        code = {"metadata": {"name": "code", "namespace": ns}, "data": {"strategy.py": "1 / 0"}}
        await stage.api.create(CONFIG_MAP, code)
        mine = {"name": "Mine", "source": {"configMapRef": {"name": "code"}}}
        await stage.apply(trader(ns, "bad", strategy=mine))
        await stage.until_reason(ns, "bad", "BadSource")
        assert "ZeroDivisionError" in await message(stage, ns, "bad")
        found = conditions_of(await stage.api.get(TRADER, ns, "bad"))
        assert (found["Stalled"]["status"], found["AssignmentApplied"]["status"]) == ("True", "False")
        await until_told_once(stage, ns, "bad", "BadSource")
        assert await told(stage, ns, "bad") == ["BadSource"]
        assert await stage.ready(ns, "one") == ("True", "Running")
        assert await told(stage, ns, "one") == []


async def test_a_trader_with_more_memory_than_its_container_is_refused_by_both_fields(
    on_control_plane: Namespace, tmp_path: Path
) -> None:
    async with staged(on_control_plane, tmp_path, SimulatedWorkers()) as (stage, ns):
        await stage.operator(*scope(ns))
        await running_one(stage, ns, room=2)
        await stage.apply(trader(ns, "big", resources={"memory": "2Gi"}))
        await stage.until_reason(ns, "big", "BadParameter")
        said = await message(stage, ns, "big")
        assert "spec.resources.memory" in said
        assert "spec.podTemplate" in said
        more = {"containers": [{"name": "traders", "resources": {"limits": {"memory": "4Gi"}}}]}
        template = {"spec": {"nodeSelector": {"type": "loopback"}, **more}}
        await stage.apply(pool(ns, room=2, podTemplate=template))
        await stage.until_reason(ns, "big", "Running")
