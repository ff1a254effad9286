"""Why a worker has no pod, as the cluster says it and as a Trader and a pool tell it."""

from __future__ import annotations

from typing import Any

import pytest
from tests.operator_parts.operator_bodies import pool_body, trader_body
from tests.operator_parts.pools_bench import KEY, Bench
from tests.operator_parts.under_way import until

from chandlery.core.assignment import Assignment, content_hash
from chandlery.core.errors import ChandleryError, UnavailableError
from chandlery.operator.cache import hold
from chandlery.operator.conditions import WorkerView, pool_state, trader_state
from chandlery.operator.kubernetes.api import Kind, Page, RefusedError
from chandlery.operator.kubernetes.kinds import CONFIG_MAP, STATEFUL_SET
from chandlery.operator.planner import PoolPlan, Verdict
from chandlery.operator.refusals import is_of_quota, refusal_of

_SAID = 'create Pod quants-0-0 in StatefulSet quants-0 failed error: pods "quants-0-0" is forbidden: '
EXCEEDED = _SAID + (
    "exceeded quota: small, requested: limits.memory=5912Mi,pods=1, used: limits.memory=0,pods=2, "
    "limited: limits.memory=1Gi,pods=2"
)
FOREIGN = '422 Secret "quants-1-worker-token" is invalid: type: field is immutable'
UNSAID = _SAID + "failed quota: cores: must specify limits.cpu for: feed,traders"
POLICY = _SAID + 'violates PodSecurity "restricted:latest": host namespaces (hostNetwork=true)'


@pytest.mark.parametrize(
    ("said", "reason", "words"),
    [
        (
            EXCEEDED,
            "QuotaExceeded",
            ["small", "limits.memory=5912Mi", "limits.memory=1Gi", "spec.hard", "tradersPer", "quants-0"],
        ),
        (UNSAID, "QuotaExceeded", ["cores", "limits.cpu", "feed,traders", "spec.podTemplate"]),
        (POLICY, "PodRefused", ["quants-0", "PodSecurity", "hostNetwork"]),
    ],
)
def test_a_refusal_names_what_refuses_and_what_to_change(said: str, reason: str, words: list[str]) -> None:
    refusal = refusal_of(said, "quants-0")
    assert refusal.reason == reason
    assert [word for word in words if word not in refusal.message] == []
    assert is_of_quota(said) == (reason == "QuotaExceeded")


def test_what_is_used_already_is_not_told_for_it_moves_by_itself() -> None:
    more = EXCEEDED.replace("used: limits.memory=0,pods=2", "used: limits.memory=512Mi,pods=2")
    assert refusal_of(EXCEEDED, "quants-0") == refusal_of(more, "quants-0")


def test_pool_and_traders_of_a_worker_without_a_pod_say_why() -> None:
    refusal = refusal_of(EXCEEDED, "quants-0")
    worker = WorkerView("quants-0", refused=refusal)
    held, pool = hold("Trader", trader_body()), hold("TraderPool", pool_body())
    resource: Any = pool.resource
    plan = PoolPlan(resource, ("default", "market"), {}, 20, 1, 0)
    for state in (
        trader_state(held, Verdict("default/one", "quants-0", ("default", "quants"), generation=1), worker),
        pool_state(pool, plan, [worker], 0, ""),
    ):
        assert (state.reason, state.message, state.stalled) == ("QuotaExceeded", refusal.message, True)


def test_a_worker_that_is_ready_speaks_for_its_traders_whatever_its_next_pod_will_meet() -> None:
    worker = WorkerView("quants-0", pod="quants-0-0", ready=True, refused=refusal_of(EXCEEDED, "quants-0"))
    verdict = Verdict("default/one", "quants-0", ("default", "quants"), generation=1)
    assert trader_state(hold("Trader", trader_body()), verdict, worker).reason != "QuotaExceeded"


@pytest.fixture
def two(bench: Bench) -> Bench:
    """A pool that needs two workers, for a Trader each."""
    bench.cache.put("TraderPool", pool_body(workers={"min": 1, "max": 2}, tradersPerWorker=1))
    for name in ("one", "two"):
        bench.cache.put("Trader", trader_body(name))
    return bench


def refuse(bench: Bench, refused: str, said: str) -> None:
    """Have the API server refuse an object (``KIND/NAME``)."""

    async def before(kind: Kind, name: str) -> None:
        if f"{kind.name}/{name}" == refused:
            raise RefusedError(said)

    bench.server.before = before


def workloads(bench: Bench) -> list[str]:
    return sorted(name for _, name in bench.server.there[STATEFUL_SET].objects)


async def test_what_is_refused_of_one_worker_holds_up_no_other_and_is_told_of_its_own_traders(two: Bench) -> None:
    refuse(two, "Secret/quants-1-worker-token", FOREIGN)
    for _ in range(2):
        with pytest.raises(RefusedError):
            await two.pools.reconcile(KEY)
        assert workloads(two) == ["quants-0"]
    for name in ("Trader/two", "TraderPool/quants"):
        ready, stalled = two.condition(name), two.condition(name, "Stalled")
        assert (ready["reason"], stalled["status"]) == ("Refused", "True")
        assert "quants-1" in ready["message"]
        assert FOREIGN in ready["message"]
    assert two.condition("Trader/one")["reason"] == "WorkerStarting"
    assert sorted(two.server.events) == [("quants", "Refused"), ("two", "Refused")]
    two.server.before = None
    await two.pools.reconcile(KEY)
    assert workloads(two) == ["quants-0", "quants-1"]
    assert two.condition("Trader/two")["reason"] == "WorkerStarting"
    assert two.condition("TraderPool/quants")["reason"] == "WorkersStarting"


async def test_each_traders_words_are_of_its_own_workers_refusal(two: Bench) -> None:
    async def before(kind: Kind, name: str) -> None:
        if kind is STATEFUL_SET:
            raise RefusedError(f"422 {name} breaks a policy")

    two.server.before = before
    with pytest.raises(RefusedError, match="quants-0 breaks a policy"):
        await two.pools.reconcile(KEY)
    for trader, worker in (("one", "quants-0"), ("two", "quants-1")):
        assert f"{worker} breaks a policy" in two.condition(f"Trader/{trader}")["message"]


async def test_what_is_refused_of_what_all_workers_need_is_told_of_every_trader(two: Bench) -> None:
    refuse(two, "Service/quants-workers", "422 another's clusterIP")
    with pytest.raises(RefusedError):
        await two.pools.reconcile(KEY)
    assert workloads(two) == []
    for name in ("one", "two"):
        ready = two.condition(f"Trader/{name}")
        assert (ready["reason"], "422 another's clusterIP" in ready["message"]) == ("Refused", True)


async def test_a_worker_whose_newer_template_is_refused_holds_up_no_other_that_has_nothing_to_lose(two: Bench) -> None:
    await two.pools.reconcile(KEY)
    refuse(two, "StatefulSet/quants-0", "422 too much")
    spec: dict[str, Any] = {"workers": {"min": 1, "max": 2}, "tradersPerWorker": 1, "image": "mine:2"}
    two.cache.put("TraderPool", pool_body(version=2, generation=2, **spec))
    two.server.log.clear()
    with pytest.raises(RefusedError):
        await two.pools.reconcile(KEY)
    assert "StatefulSet/quants-1" in two.server.log
    ready = two.condition("TraderPool/quants")
    assert (ready["reason"], ready["message"]) == ("Refused", "422 too much")


async def test_beside_a_refused_worker_those_that_nobody_needs_go_once_what_stays_is_kept(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chandlery.operator.pools._KEPT_WAIT_S", 0.05)
    bench.cache.put("TraderPool", pool_body(workers={"min": 1, "max": 3}, tradersPerWorker=1))
    for name in ("one", "three", "two"):
        bench.cache.put("Trader", trader_body(name))
    refused: dict[str, ChandleryError] = {
        "Secret/quants-1-worker-token": RefusedError(FOREIGN),
        "ConfigMap/quants-1-assignment": RefusedError(EXCEEDED),
        "ConfigMap/quants-0-assignment": UnavailableError("no answer"),
    }

    async def before(kind: Kind, name: str) -> None:
        if (error := refused.get(f"{kind.name}/{name}")) is not None:
            raise error

    bench.server.before = before
    with pytest.raises(RefusedError):
        await bench.pools.reconcile(KEY)
    assert workloads(bench) == ["quants-0", "quants-2"]
    bench.cache.drop("Trader-default-two")
    with pytest.raises(RefusedError):
        await bench.pools.reconcile(KEY)
    assert workloads(bench) == ["quants-0", "quants-2"]
    assert ("pool", *KEY) in bench.marked
    del refused["ConfigMap/quants-0-assignment"]
    bench.workers.of(KEY)["quants-0"].delivery.nudge()
    await bench.workers.of(KEY)["quants-0"].delivery.kept()
    with pytest.raises(RefusedError):
        await bench.pools.reconcile(KEY)
    assert workloads(bench) == ["quants-0"]
    assert bench.condition("TraderPool/quants")["reason"] == "Refused"
    assert bench.condition("Trader/three")["reason"] == "Refused"


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown what it has"])
async def test_a_worker_whose_trader_is_to_run_in_a_refused_one_goes_once_that_is_kept(
    bench: Bench, known: bool
) -> None:
    bench.cache.put("TraderPool", pool_body(workers={"min": 1, "max": 4}, tradersPerWorker=2))
    for name in "abcdefgh":  # two a worker
        bench.cache.put("Trader", trader_body(name))
    refused = {"Secret/quants-1-worker-token", "ConfigMap/quants-1-assignment"}

    async def before(kind: Kind, name: str) -> None:
        if f"{kind.name}/{name}" in refused:
            raise RefusedError(EXCEEDED)

    bench.server.before = before
    with pytest.raises(RefusedError):
        await bench.pools.reconcile(KEY)
    assert workloads(bench) == ["quants-0", "quants-2", "quants-3"]
    links = bench.workers.of(KEY)
    for name in workloads(bench):
        await links[name].delivery.kept()
    if not known:
        links["quants-2"].delivery.assignment = Assignment("quants-2", 0, content_hash([]), [])
    for name in "dfgh":
        bench.cache.drop(f"Trader-default-{name}")
    bench.cache.put("TraderPool", pool_body(version=2, generation=2, workers={"min": 1, "max": 2}, tradersPerWorker=2))
    for _ in range(2):
        with pytest.raises(RefusedError):
            await bench.pools.reconcile(KEY)
        assert [one.trader for one in links["quants-1"].delivery.assignment.traders] == ["default/c", "default/e"]
        assert workloads(bench) == ["quants-0", "quants-2"]
    assert ("pool", *KEY) in bench.marked
    refused.remove("ConfigMap/quants-1-assignment")
    links["quants-1"].delivery.nudge()
    await links["quants-1"].delivery.kept()
    with pytest.raises(RefusedError):
        await bench.pools.reconcile(KEY)
    assert workloads(bench) == ["quants-0"]


async def test_a_refusal_is_told_where_something_else_fails_beside_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.cache.put("TraderPool", pool_body(workers={"min": 1, "max": 3}, tradersPerWorker=1))
    for name in ("one", "three", "two"):
        bench.cache.put("Trader", trader_body(name))
    await bench.pools.reconcile(KEY)
    for link in bench.workers.of(KEY).values():
        await link.delivery.kept()
    del bench.server.there[STATEFUL_SET].objects["default", "quants-1"]
    bench.tools.children.note_version(STATEFUL_SET, ("default", "quants-1"), 0)
    bench.cache.drop("Trader-default-two")
    refuse(bench, "StatefulSet/quants-1", "422 breaks a policy")

    async def away(*_: Any, **__: Any) -> None:
        raise UnavailableError("no answer")

    monkeypatch.setattr(bench.server, "delete", away)
    with pytest.raises(RefusedError, match="breaks a policy"):
        await bench.pools.reconcile(KEY)
    assert bench.condition("TraderPool/quants")["reason"] == "Refused"
    assert bench.condition("Trader/three")["reason"] == "Refused"


async def test_the_planner_is_told_of_a_worker_that_is_refused_and_not_of_one_that_starts(two: Bench) -> None:
    refuse(two, "Secret/quants-1-worker-token", FOREIGN)
    with pytest.raises(RefusedError):
        await two.pools.reconcile(KEY)
    now = two.pools._workers_now(KEY, two.cache.get("TraderPool", KEY))
    assert {name: worker.unmade for name, worker in now.items()} == {"quants-0": False, "quants-1": True}


async def test_a_worker_s_assignment_is_put_where_somebody_else_s_configmap_has_its_name(bench: Bench) -> None:
    """A worker that comes back alone runs what it finds there."""

    async def theirs(kind: Kind, *_: Any, fields: str = "", **__: Any) -> Page:
        name = fields.removeprefix("metadata.name=")
        there = kind is CONFIG_MAP and name.endswith("-assignment")
        return Page("1", [{"metadata": {"name": name, "namespace": "default"}}] if there else [])

    bench.server.list = theirs  # type: ignore[method-assign]
    bench.cache.put("TraderPool", pool_body())
    bench.cache.put("Trader", trader_body())
    await bench.pools.reconcile(KEY)
    await until(lambda: "ConfigMap/quants-0-assignment" in bench.server.log)
