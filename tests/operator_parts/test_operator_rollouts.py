"""What is said of a Trader whose change is under way or has failed, what is remembered, and when a worker is rolled."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from tests.operator_parts.operator_bodies import feed_body, pool_body, trader_body

from chandlery.core.assignment import (
    Assignment,
    TraderAssignment,
    TraderState,
    TraderStatus,
    WorkerStatus,
    content_hash,
)
from chandlery.core.resources import TraderPool
from chandlery.core.settings import KafkaSettings
from chandlery.operator.applied import Children
from chandlery.operator.cache import Cache, hold
from chandlery.operator.changes import changes_to_tell
from chandlery.operator.children.naming import Defaults, Object
from chandlery.operator.children.workers import worker_set
from chandlery.operator.conditions import WorkerView, trader_state, trader_status
from chandlery.operator.kubernetes.api import Kind, Page, RefusedError
from chandlery.operator.kubernetes.follow import Followed
from chandlery.operator.kubernetes.kinds import CONFIG_MAP, POD, STATEFUL_SET
from chandlery.operator.planner import Delays, Verdict, WorkerNow
from chandlery.operator.planner_standing import news_of
from chandlery.operator.planner_types import Failed, Rollout
from chandlery.operator.planning import Planned, PoolPlanner
from chandlery.operator.workerlink import PodEndpoint, WorkerLink
from chandlery.operator.workers import Workers
from chandlery.operator.workersets import WorkerSets

NAME = "default/one"
NOW = "2026-01-01T00:00:00Z"
HELD = hold("Trader", trader_body(generation=2))
KEY = ("default", "quants")


def reported(state: TraderState, incarnation: int = 1, generation: int = 1, **more: Any) -> TraderStatus:
    return TraderStatus(state, generation=generation, incarnation=incarnation, **more)


def view(*told: TraderStatus) -> WorkerView:
    traders = {NAME: told[0]} if told else {}
    successors = {NAME: told[1]} if len(told) > 1 else {}
    status = WorkerStatus("quants-0", 1, 1, "h", 1, True, traders, [], {}, successors)
    return WorkerView("quants-0", "quants-0-0", True, True, status)


def spec(generation: int = 1, incarnation: int = 1, **more: Any) -> TraderAssignment:
    return TraderAssignment(NAME, "u", "sma-cross", ["BTC/USDT"], "1s", generation, incarnation, **more)


def verdict(**more: Any) -> Verdict:
    return Verdict(NAME, "quants-0", KEY, generation=1, incarnation=1, **more)


def words(state: Any, judged: Verdict, worker: WorkerView, successor: TraderStatus | None = None) -> dict[str, Any]:
    status = trader_status(HELD, state, judged, spec(), worker, NOW, successor)
    return {one.type: one for one in status.conditions} | {"status": status}


def test_a_trader_stays_ready_and_is_reconciling_while_its_successor_gets_warm() -> None:
    judged = verdict(rollout=Rollout("Warming", 2, "generation 2 stands by", 2, "quants-0"))
    successor = reported("Ready", 2, 2, warm_have=7, warm_need=50)
    worker = view(reported("Active", warm_have=50, warm_need=50), successor)
    found = words(trader_state(HELD, judged, worker), judged, worker, successor)
    assert (found["Ready"].status, found["Ready"].reason) == ("True", "Running")
    assert (found["Reconciling"].status, found["Reconciling"].reason) == ("True", "Warming")
    assert found["Reconciling"].message == "generation 2 stands by"
    assert (found["AssignmentApplied"].status, found["AssignmentApplied"].observed_generation) == ("True", 1)
    status = found["status"]
    assert (status.observed_generation, status.running_generation, status.incarnation) == (2, 1, 1)
    assert (status.warm.have, status.warm.need) == (7, 50), "of the one that is waited for"


@pytest.mark.parametrize("reason", ["BadParameter", "CrashLoop"])
def test_a_version_that_may_not_run_is_stalled_and_ready_as_long_as_the_one_before_runs(reason: str) -> None:
    judged = verdict(reason=reason, message="why (generation 1 goes on)", keeps=True)
    worker = view(reported("Active"))
    found = words(trader_state(HELD, judged, worker), judged, worker)
    assert [found[kind].status for kind in ("Ready", "Reconciling", "Stalled")] == ["True", "False", "True"]
    assert (found["Stalled"].reason, found["Stalled"].message) == (reason, "why (generation 1 goes on)")
    assert found["AssignmentApplied"].status == "True"
    worker = view(reported("Backoff", attempt=1))
    found = words(trader_state(HELD, judged, worker), judged, worker)
    assert [found[kind].status for kind in ("Ready", "Stalled")] == ["False", "True"]


def test_the_new_incarnation_is_not_called_starting_while_its_worker_still_tells_of_both() -> None:
    judged = Verdict(NAME, "quants-0", KEY, generation=2, incarnation=2)
    worker = view(reported("Retired"), reported("Active", 2, 2))
    assert trader_state(HELD, judged, worker).ready


def test_a_rollout_is_told_when_it_starts_and_when_it_is_through() -> None:
    before = {"incarnation": 1, "runningGeneration": 1, "worker": "quants-0"}
    waiting = verdict(rollout=Rollout("Waiting", 2, "waits"))
    assert list(changes_to_tell(before, waiting, spec())) == []
    begun = verdict(rollout=Rollout("Warming", 2, "", 2, "quants-0"))
    ((level, reason, note),) = changes_to_tell(before, begun, spec())
    assert (level, reason) == ("Normal", "RolloutStarted")
    assert "generation 2 starts as incarnation 2, beside generation 1" in note
    through = Verdict(NAME, "quants-0", KEY, generation=2, incarnation=2)
    ((level, reason, note),) = changes_to_tell(before, through, spec(2, 2, from_ms=1_700_000_000_000))
    assert (level, reason) == ("Normal", "RolloutFinished")
    assert "took over from generation 1; it decides from the candle of 2023-11-14T22:13:20Z on" in note


def test_a_move_is_told_as_a_move_and_a_failure_as_a_warning() -> None:
    before = {"incarnation": 1, "runningGeneration": 1, "worker": "quants-0"}
    moving = verdict(rollout=Rollout("Warming", 1, "", 2, "quants-1", is_move=True))
    assert list(changes_to_tell(before, moving, spec())) == []
    moved = Verdict(NAME, "quants-1", KEY, generation=1, incarnation=2)
    ((_, reason, note),) = changes_to_tell(before, moved, spec(1, 2))
    assert (reason, note) == ("Moved", "from worker quants-0 to quants-1, as incarnation 2")
    failed = verdict(reason="CrashLoop", message="generation 2 failed", keeps=True, failed=Failed("d", 2, "", ""))
    news = [("Warning", "RolloutFailed", "generation 2 failed")]
    assert list(changes_to_tell(before, failed, spec())) == news
    # Which a status that says so shows to have been told.
    for message, told in (("generation 2 failed", []), ("generation 1 failed", news)):
        standing = {"conditions": [{"type": "Ready", "reason": "CrashLoop", "message": message}]}
        assert list(changes_to_tell(before | standing, failed, spec())) == told


# What is remembered -----------------------------------------------------------------------------------------------


class Plans:
    """Plans two pools over one cache; each has one worker, which runs what it is told."""

    def __init__(self) -> None:
        self.cache = Cache()
        self.planner = PoolPlanner(self.cache, Delays())
        self.workers: dict[tuple[str, str], dict[str, Assignment]] = {}
        self.broken = False
        self.cache.put("MarketFeed", feed_body())
        for name in ("quants", "other"):
            self.cache.put("TraderPool", pool_body(name))

    def plan(self, pool: str = "quants", now_ms: int = 1_000) -> Planned:
        key = ("default", pool)
        now = {name: WorkerNow(one, True, 0, True, self._told(one)) for name, one in self.workers.get(key, {}).items()}
        made = self.planner.plan(key, now, configmaps={}, namespaces={}, catalogue=None, now_ms=now_ms)
        assert made.pool is not None
        self.workers[key] = dict(made.pool.workers)
        return made

    def _told(self, one: Assignment) -> WorkerStatus:
        lower = [each for each in one.traders if each.mode == "active"]
        higher = [each for each in one.traders if each.mode == "standby"]
        state: TraderState = "Stalled" if self.broken else "Warm"
        return WorkerStatus(
            one.worker, 1, one.sequence, one.hash, one.sequence, True,
            {each.trader: reported("Active", each.incarnation, each.generation) for each in lower}, [], {},
            {each.trader: reported(state, each.incarnation, each.generation) for each in higher},
        )  # fmt: skip


def test_a_failed_version_is_remembered_while_other_pools_are_planned() -> None:
    plans = Plans()
    plans.broken = True
    plans.cache.put("Trader", trader_body())
    plans.plan()
    edited = {"name": "sma-cross", "parameters": {"fast": 3}}
    plans.cache.put("Trader", trader_body(version=2, generation=2, strategy=edited))
    assert plans.plan().verdicts[NAME].rollout is not None
    failed = plans.plan().verdicts[NAME]
    assert (failed.reason, failed.generation) == ("BadStrategy", 1)
    plans.plan("other")
    again = plans.plan().verdicts[NAME]
    assert (again.reason, again.rollout) == ("BadStrategy", None), "not tried again"
    plans.cache.drop("Trader-default-one")
    plans.plan("other")
    assert plans.planner.memory.failed == {}, "what is gone is forgotten"


# When a worker is rolled ------------------------------------------------------------------------------------------

POOL = TraderPool.model_validate(pool_body())
CHANGED = TraderPool.model_validate(pool_body(generation=2, version=2, segment={"candles": 2000}))
DEFAULTS = Defaults("workers:1", "stream:1", kafka="kafka:9092")
KAFKA = KafkaSettings("kafka:9092", "market")


class Server:
    """An API server that takes everything and shows StatefulSets as rolled out."""

    def __init__(self) -> None:
        self.sets = Followed(self, STATEFUL_SET, "", lambda *_: None)  # type: ignore[arg-type]
        self.rolled: list[str] = []
        self.refused: set[str] = set()

    async def list(self, kind: Kind, namespace: str = "", *, fields: str = "", **_: Any) -> Page:
        return Page("1", [])

    async def apply(self, kind: Kind, body: Object, *, subresource: str = "") -> Object:
        names = (body["metadata"]["namespace"], body["metadata"]["name"])
        generation = 1
        if names[1] in self.refused:
            raise RefusedError(f"422 {names[1]} breaks a policy")
        if kind == STATEFUL_SET:
            there = self.sets.objects.get(names)
            generation = there["metadata"]["generation"] + 1 if there is not None else 1
            if there is not None:
                self.rolled.append(names[1])
            status = {"observedGeneration": generation, "updatedReplicas": 1, "readyReplicas": 1}
            meta = {**body["metadata"], "resourceVersion": "1", "generation": generation, "uid": names[1]}
            self.sets.objects[names] = {**body, "metadata": meta, "status": status}
        return {"metadata": {**body["metadata"], "resourceVersion": "1", "generation": generation}}


@asynccontextmanager
async def worker_sets(server: Server) -> AsyncIterator[tuple[WorkerSets, Workers]]:
    """A pool's workers on a server that they follow."""
    api: Any = server
    children = Children(api, lambda _dirty: None)
    children.follow(server.sets)
    for kind in (CONFIG_MAP, POD):
        children.follow(Followed(api, kind, "", lambda *_: None))
    cache = Cache()
    cache.put("TraderPool", pool_body())
    async with aiohttp.ClientSession() as session:
        workers = Workers(api, cache, children, session, b"key", 1, lambda _dirty: None, lambda _task: None)
        yield WorkerSets(children, workers, DEFAULTS, lambda *_: None), workers
        await workers.close()


def get_ready(workers: Workers, name: str) -> None:
    """A worker's pod comes, and is Ready."""
    conditions = [{"type": "Ready", "status": "True"}]
    meta = {"name": f"{name}-0", "uid": f"pod-of-{name}"}
    workers.link(POOL, name).pod_changed({"metadata": meta, "status": {"conditions": conditions}})


async def test_a_worker_that_is_refused_holds_up_no_roll_and_one_that_starts_does() -> None:
    server = Server()
    server.refused = {"quants-2"}
    names = ["quants-0", "quants-1", "quants-2"]
    async with worker_sets(server) as (sets, workers):
        for name in names[:2]:
            get_ready(workers, name)
        workers.link(POOL, "quants-2")
        for pool, to_roll in ((POOL, []), (CHANGED, ["quants-1"])):
            with pytest.raises(RefusedError, match="quants-2 breaks a policy"):
                await sets.ensure(pool, names, KAFKA, to_roll)
        assert list(sets.unmade(POOL.key)) == ["quants-2"]
        assert server.rolled == ["quants-1"]
        server.refused = set()
        for _ in range(2):  # as it is made, and as it starts
            await sets.ensure(CHANGED, names, KAFKA, ["quants-0"])
            assert sets.unmade(POOL.key) == {}
            assert server.rolled == ["quants-1"], "two would be down"
        get_ready(workers, "quants-2")
        await sets.ensure(CHANGED, names, KAFKA, ["quants-0"])
        assert server.rolled == ["quants-1", "quants-0"]


async def test_a_worker_that_is_made_and_not_seen_yet_is_no_refused_one() -> None:
    server = Server()
    async with worker_sets(server) as (sets, workers):
        workers.link(POOL, "quants-0")
        await sets.ensure(POOL, ["quants-0"], KAFKA)
        server.sets.objects.clear()
        server.refused = {"quants-0-settings"}
        with pytest.raises(RefusedError):
            await sets.ensure(CHANGED, ["quants-0"], KAFKA)
        assert sets.unmade(POOL.key) == {}


async def test_an_outdated_worker_that_is_ready_is_rolled_only_when_its_traders_have_moved() -> None:
    server = Server()
    async with worker_sets(server) as (sets, workers):
        names = ["quants-0", "quants-1"]
        for name in names:
            get_ready(workers, name)
        await sets.ensure(POOL, names, KAFKA)
        assert [one.outdated for one in sets.states(CHANGED, names, KAFKA).values()] == [True, True]
        assert await sets.ensure(CHANGED, names, KAFKA) == 2
        assert server.rolled == []
        assert await sets.ensure(CHANGED, names, KAFKA, ["quants-1"]) == 1
        assert server.rolled == ["quants-1"]
        states = sets.states(CHANGED, names, KAFKA)
        assert (states["quants-0"].outdated, states["quants-1"].outdated) == (True, False)
        assert states["quants-1"].rolled_out
        for status in (
            {"observedGeneration": 1, "updatedReplicas": 1},
            {"observedGeneration": 2, "currentRevision": "old", "updateRevision": "new", "updatedReplicas": 0},
        ):
            server.sets.objects["default", "quants-1"]["status"] = status
            assert await sets.ensure(CHANGED, names, KAFKA) == 2, "its pod is of the older template still"


def test_a_worker_pod_has_memory_for_its_successors() -> None:
    def limit_mib(room: int) -> int:
        pool = TraderPool.model_validate(pool_body(tradersPerWorker=room))
        (traders,) = worker_set(pool, "quants-0", KAFKA, DEFAULTS)["spec"]["template"]["spec"]["containers"]
        return int(traders["resources"]["limits"]["memory"].removesuffix("Mi"))

    # 4 Traders have 1 successor, 5 have 2: one Trader more is two processes more.
    one_process = limit_mib(4) - limit_mib(3)
    assert limit_mib(5) - limit_mib(4) == pytest.approx(2 * one_process, abs=1)


async def test_a_worker_that_hands_over_is_heard_at_once_one_that_warms_up_soon_and_a_quiet_one_now_and_then() -> None:
    async def keep(_: Assignment) -> None: ...

    def pace(*traders: TraderAssignment, state: TraderState = "Active") -> float:
        assignment = Assignment("quants-0", 1, content_hash(list(traders)), list(traders))
        link = WorkerLink(assignment, endpoint, keep, lambda: None, lambda _task: None)
        told = {NAME: reported(state)}
        link.status = WorkerStatus("quants-0", 1, 1, assignment.hash, 1, True, told, [], {})
        return link.pace_s()

    async with aiohttp.ClientSession() as session:
        endpoint = PodEndpoint(session, lambda: "", 1)
        handing = pace(spec(until_ms=5), spec(2, 2, mode="standby"))
        warming = pace(spec(), spec(2, 2, mode="standby"))
        assert handing < warming < pace(spec())
        assert pace(spec(), state="Ready") == warming, "it is warm soon, and who waits for that shall hear of it"


def test_what_a_plan_depends_on_is_news_and_figures_are_not() -> None:
    def news(**more: Any) -> object:
        told = {NAME: reported("Active", **more)}
        return news_of(WorkerStatus("quants-0", 1, 1, "h", 1, True, told, [], {}))

    assert news(calls=1, last_open_time_ms=5) == news(calls=2, last_open_time_ms=6)
    assert len({str(news(**more)) for more in ({}, {"last_open_time_ms": 5}, {"until_ms": 7}, {"attempt": 3})}) == 4


def test_each_change_of_what_keeps_a_worker_out_of_kafka_is_news() -> None:
    def news(**feed: Any) -> object:
        return news_of(WorkerStatus("quants-0", 1, 1, "h", 1, True, {}, [], feed))

    missing = {"reason": "SecretMissing", "message": "key password of Secret desk/kafka: it isn't there"}
    refused = {"reason": "KafkaUnauthorized", "message": "Kafka refuses the login"}
    told = [news(broker_problem=problem) for problem in (None, missing, refused, {**refused, "message": "another"})]
    assert len({str(one) for one in told}) == len(told)
    assert news(broker_problem=refused, records=1) == news(broker_problem=refused, records=2)
