"""Reconciling a pool: what can't be planned is told, what is told was judged, and nothing goes before it is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio
from tests.operator_parts.operator_bodies import feed_body, pool_body, trader_body

from chandlery.core.assignment import Assignment, TraderAssignment, content_hash, decode_assignment, unsound
from chandlery.core.errors import UnavailableError
from chandlery.core.resources import Trader, TraderPool
from chandlery.operator.applied import Children
from chandlery.operator.cache import Cache, Dirty
from chandlery.operator.children.naming import Defaults, Object
from chandlery.operator.children.workers import ASSIGNMENT_KEY, assignment_map
from chandlery.operator.events import Events
from chandlery.operator.kubernetes.api import GoneError, Kind, Page
from chandlery.operator.kubernetes.follow import Followed
from chandlery.operator.kubernetes.kinds import CONFIG_MAP, EVENT, POD, STATEFUL_SET
from chandlery.operator.planner import Delays
from chandlery.operator.planning import PoolPlanner
from chandlery.operator.pools import Pools, Tools
from chandlery.operator.refusals import Refusals
from chandlery.operator.statuses import Statuses
from chandlery.operator.workers import Workers

KEY = ("default", "quants")


class Server:
    """An API server that takes everything, and shows its workloads at once."""

    def __init__(self) -> None:
        self.there: dict[Kind, Followed] = {
            kind: Followed(self, kind, "", lambda *_: None)  # type: ignore[arg-type]
            for kind in (STATEFUL_SET, CONFIG_MAP, POD)
        }
        self.statuses: dict[str, Object] = {}
        self.events: list[tuple[str, str]] = []
        self.log: list[str] = []
        self.before: Callable[[Kind, str], Awaitable[None]] | None = None
        self.version = 100
        self.takes_events = True

    async def apply(self, kind: Kind, body: Object, *, subresource: str = "") -> Object:
        name = body["metadata"]["name"]
        if self.before is not None:
            await self.before(kind, name)
        self.log.append(f"{kind.name}/{name}")
        self.version += 1
        meta = {**body["metadata"], "resourceVersion": str(self.version), "generation": 1, "uid": name}
        if subresource:
            self.statuses[f"{kind.name}/{name}"] = body["status"]
        elif kind in self.there:
            self.there[kind].objects["default", name] = {**body, "metadata": meta}
        return {"metadata": meta}

    async def list(self, kind: Kind, namespace: str = "", *, fields: str = "", **_: Any) -> Page:
        return Page("1", [])

    async def create(self, kind: Kind, body: Object) -> Object:
        if not self.takes_events:
            raise UnavailableError("429 too many requests")
        of = body["regarding"]
        if kind is EVENT:
            self.events.append((of["name"], body["reason"]))
        self.log.append(f"{kind.name}/{body['reason']} of {of['kind']}/{of['name']}")
        return body

    async def get(self, kind: Kind, namespace: str, name: str) -> Object:
        raise GoneError("404")

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str = "") -> None:
        self.log.append(f"deleted {kind.name}/{name}")
        if kind in self.there:
            self.there[kind].objects.pop((namespace, name), None)


class Texts:
    """Sources without any; calls what a test wants to happen meanwhile."""

    def __init__(self) -> None:
        self.meanwhile: Callable[[], None] = lambda: None

    async def of(self, traders: Iterable[Trader]) -> dict[Any, Any]:
        await asyncio.sleep(0)
        self.meanwhile()
        return {}


class Bench:
    """Pools over a cache and a server; no worker ever answers."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.server, self.cache, self.texts = Server(), Cache(), Texts()
        self.marked: list[Dirty] = []
        self.defects: list[asyncio.Task[None]] = []
        api: Any = self.server
        children = Children(api, lambda _dirty: None)
        for followed in self.server.there.values():
            children.follow(followed)
        defaults = Defaults("workers:1", "stream:1", kafka="kafka:9092")
        self.workers = Workers(
            api, self.cache, children, session, b"key", 1, lambda _dirty: None, self.defects.append
        )  # fmt: skip
        self.planner = PoolPlanner(self.cache, Delays(shrink_ms=0))
        sources: Any = self.texts
        self.tools = Tools(
            cache=self.cache, children=children, workers=self.workers, planner=self.planner,
            statuses=Statuses(api, clock=iter(range(0, 10**9, 1000)).__next__), events=Events(api, "test"),
            sources=sources, refusals=Refusals(api), defaults=defaults, namespaces=dict, unknown_symbols=lambda _feed: (),
            mark=lambda dirty, _delay_s: self.marked.append(dirty),
        )  # fmt: skip
        self.pools = Pools(self.tools)
        self.cache.put("MarketFeed", feed_body())

    def planned_alone(self) -> list[TraderAssignment]:
        """What the pool's first worker is to have, by a planner that nobody else asks."""
        made = PoolPlanner(self.cache).plan(KEY, {}, configmaps={}, namespaces={}, catalogue=None, now_ms=1)
        assert made.pool is not None
        return made.pool.workers["quants-0"].traders

    def condition(self, name: str, kind: str = "Ready") -> dict[str, Any]:
        found: dict[str, Any] = next(
            one for one in self.server.statuses[name]["conditions"] if one["type"] == kind
        )  # fmt: skip
        return found


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    async with aiohttp.ClientSession() as session:
        made = Bench(session)
        yield made
        await made.workers.close()


async def test_what_can_not_be_planned_is_the_pools_reason_and_raised_to_be_repeated(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.cache.put("TraderPool", pool_body())

    def fails(*_: Any, **__: Any) -> Any:
        raise LookupError("no such number")

    monkeypatch.setattr(bench.planner, "plan", fails)
    with pytest.raises(LookupError):
        await bench.pools.reconcile(KEY)
    ready = bench.condition("TraderPool/quants")
    assert (ready["status"], ready["reason"]) == ("False", "PlanFailed")
    assert "no such number" in ready["message"]


async def test_an_api_server_that_is_away_is_no_state_of_the_pool(bench: Bench) -> None:
    bench.cache.put("TraderPool", pool_body())

    def away() -> None:
        raise UnavailableError("no answer")

    bench.texts.meanwhile = away
    with pytest.raises(UnavailableError):
        await bench.pools.reconcile(KEY)
    assert bench.server.statuses == {}


async def test_nothing_is_told_of_a_generation_that_came_after_the_judgement(bench: Bench) -> None:
    bench.cache.put("TraderPool", pool_body())
    bench.cache.put("Trader", trader_body("one", strategy={"name": "sma-cross", "parameters": {"fast": "x" * 20_000}}))

    async def edited(_kind: Kind, _name: str) -> None:
        bench.cache.put("Trader", trader_body("one", version=7, generation=2))

    bench.server.before = edited
    await bench.pools.reconcile(KEY)
    assert "Trader/one" not in bench.server.statuses
    await bench.pools.reconcile(KEY)
    status = bench.server.statuses["Trader/one"]
    assert status["observedGeneration"] == 2
    assert bench.condition("Trader/one")["reason"] != "BadParameter"


async def test_an_edit_while_sources_are_read_is_judged_in_its_newest_version(bench: Bench) -> None:
    bench.cache.put("TraderPool", pool_body())
    bench.cache.put("Trader", trader_body("one"))
    bad = {"name": "sma-cross", "parameters": {"fast": "x" * 20_000}}

    def edited() -> None:
        bench.cache.put("Trader", trader_body("one", version=7, generation=2, strategy=bad))

    bench.texts.meanwhile = edited
    await bench.pools.reconcile(KEY)
    assert bench.server.statuses["Trader/one"]["observedGeneration"] == 2
    assert bench.condition("Trader/one")["reason"] == "BadParameter"


async def test_a_worker_goes_only_when_its_traders_are_kept_elsewhere(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chandlery.operator.pools._KEPT_WAIT_S", 0.05)
    bench.cache.put("TraderPool", pool_body(workers={"min": 1, "max": 2}, tradersPerWorker=1))
    for name in ("one", "two"):
        bench.cache.put("Trader", trader_body(name))
    await bench.pools.reconcile(KEY)
    for link in bench.workers.of(KEY).values():
        await link.delivery.kept()
    bench.cache.put("TraderPool", pool_body(version=2, generation=2, workers={"min": 1, "max": 1}, tradersPerWorker=2))
    refused = True

    async def refuse(_kind: Kind, name: str) -> None:
        if refused and name.endswith("-assignment"):
            raise UnavailableError("no answer")

    bench.server.before = refuse
    await bench.pools.reconcile(KEY)
    assert not [line for line in bench.server.log if line.startswith("deleted")]
    assert ("pool", *KEY) in bench.marked
    refused = False
    bench.server.log.clear()
    await bench.workers.of(KEY)["quants-0"].delivery.kept()
    await bench.pools.reconcile(KEY)
    log = bench.server.log
    assert log.index("ConfigMap/quants-0-assignment") < log.index("deleted StatefulSet/quants-1")


async def test_a_worker_with_a_login_is_of_the_template_that_it_was_made_of(bench: Bench) -> None:
    login = {"username": "desk", "passwordSecret": {"secretName": "desk"}}
    bench.cache.put(
        "MarketFeed",
        feed_body(
            version=2, generation=2,
            kafka={"bootstrapServers": "k:9093", "tls": {}, "authentication": {"type": "scram-sha-512", **login}},
        ),
    )  # fmt: skip
    bench.cache.put("TraderPool", pool_body())
    bench.cache.put("Trader", trader_body())
    await bench.pools.reconcile(KEY)
    now = bench.pools._workers_now(KEY, bench.cache.get("TraderPool", KEY))
    assert {name: worker.outdated for name, worker in now.items()} == {"quants-0": False}


async def test_a_pool_that_lends_its_feed_no_secrets_gets_no_workers(bench: Bench) -> None:
    login = {"username": "desk", "passwordSecret": {"secretName": "of-somebody-else"}}
    kafka = {"bootstrapServers": "k:9093", "tls": {}, "authentication": {"type": "scram-sha-512", **login}}
    everybody = {"namespaces": {"from": "All"}}
    bench.cache.put("MarketFeed", feed_body(namespace="markets", allowedPools=everybody, kafka=kafka))
    bench.cache.put("TraderPool", pool_body(feed={"name": "market", "namespace": "markets"}))
    bench.cache.put("Trader", trader_body())
    await bench.pools.reconcile(KEY)
    assert not [one for one in bench.server.log if one.startswith("StatefulSet/")]
    for name in ("TraderPool/quants", "Trader/one"):
        ready = bench.condition(name)
        assert (ready["status"], ready["reason"]) == ("False", "NotAllowed")
        assert "of-somebody-else" in ready["message"]


async def test_a_feed_that_then_names_another_secret_takes_the_workers_away_and_mounts_nothing(bench: Bench) -> None:
    def feed(secret: str, version: int) -> Any:
        login = {"username": "desk", "passwordSecret": {"secretName": secret}}
        kafka = {"bootstrapServers": "k:9093", "tls": {}, "authentication": {"type": "scram-sha-512", **login}}
        everybody = {"namespaces": {"from": "All"}}
        return feed_body(namespace="markets", version=version, generation=version, allowedPools=everybody, kafka=kafka)

    bench.cache.put("MarketFeed", feed("lent", 1))
    bench.cache.put("TraderPool", pool_body(feed={"name": "market", "namespace": "markets", "secrets": ["lent"]}))
    bench.cache.put("Trader", trader_body())
    await bench.pools.reconcile(KEY)
    assert "lent" in str(bench.server.there[STATEFUL_SET].objects["default", "quants-0"])
    bench.cache.put("MarketFeed", feed("of-somebody-else", 2))
    await bench.pools.reconcile(KEY)
    assert bench.server.there[STATEFUL_SET].objects == {}
    assert bench.condition("TraderPool/quants")["reason"] == "NotAllowed"


@pytest.mark.parametrize("what", ["another feed", "deleted", "not allowed"])
async def test_a_feed_that_a_pool_asks_no_more_is_looked_at_when_that_is_known(bench: Bench, what: str) -> None:
    """The resource's change has it looked at before the pool is planned anew, when it is asked for as much as before."""
    bench.cache.put("TraderPool", pool_body())
    bench.cache.put("Trader", trader_body())
    await bench.pools.reconcile(KEY)
    assert bench.planner.feed_of(KEY) == ("default", "market")
    if what == "deleted":
        bench.cache.drop("TraderPool-default-quants")
    elif what == "another feed":
        bench.cache.put("MarketFeed", feed_body("other"))
        bench.cache.put("TraderPool", pool_body(version=2, generation=2, feed={"name": "other"}))
    else:
        elsewhere = {"name": "market", "namespace": "markets"}
        bench.cache.put("TraderPool", pool_body(version=2, generation=2, feed=elsewhere))
    bench.marked.clear()
    asked = []

    def mark(dirty: Dirty, _delay_s: float) -> None:
        if dirty == ("feed", "default", "market"):
            asked.append(bench.planner.feed_of(KEY))

    bench.pools._tools = replace(bench.tools, mark=mark)
    await bench.pools.reconcile(KEY)
    assert asked == [("default", "other") if what == "another feed" else None]


@pytest.mark.parametrize("workers", [{"min": 1}, {"min": 0, "max": 1}])
async def test_a_pool_and_its_traders_say_that_their_feed_names_no_kafka_once_until_it_does(
    bench: Bench, workers: dict[str, int]
) -> None:
    bench.pools._tools = replace(bench.tools, defaults=Defaults("workers:1", "stream:1"))
    bench.cache.put("TraderPool", pool_body(workers=workers))
    await bench.pools.reconcile(KEY)
    bench.cache.put("Trader", trader_body())
    for _ in range(2):
        await bench.pools.reconcile(KEY)
    for name in ("TraderPool/quants", "Trader/one"):
        ready = bench.condition(name)
        assert (ready["status"], ready["reason"]) == ("False", "NoKafka")
        assert ready["message"].startswith("MarketFeed default/market names no Kafka: give it spec.kafka.boot")
        assert [bench.condition(name, kind)["status"] for kind in ("Reconciling", "Stalled")] == ["False", "True"]
    assert sorted(bench.server.events) == [("one", "NoKafka"), ("quants", "NoKafka")]
    assert not [line for line in bench.server.log if line.startswith("StatefulSet/")]
    bench.cache.put("MarketFeed", feed_body(version=2, generation=2, kafka={"bootstrapServers": "k:9092"}))
    await bench.pools.reconcile(KEY)
    assert "StatefulSet/quants-0" in bench.server.log
    assert [bench.condition(name)["reason"] for name in ("TraderPool/quants", "Trader/one")] == [
        "WorkersStarting",
        "WorkerStarting",
    ]


async def test_a_trader_that_changes_while_it_is_told_of_is_not_written(bench: Bench, monkeypatch: Any) -> None:
    async def changed_meanwhile(kind: Kind, body: Object) -> Object:
        bench.cache.put("Trader", trader_body(version=9, generation=2))
        return body

    monkeypatch.setattr(bench.server, "create", changed_meanwhile)
    bench.cache.put("TraderPool", pool_body())
    bench.cache.put("Trader", trader_body())
    bench.pools._tools = replace(bench.tools, defaults=Defaults("workers:1", "stream:1"))
    await bench.pools.reconcile(KEY)
    assert "Trader/one" not in bench.server.statuses


async def test_workers_made_before_their_feed_lost_its_kafka_run_on_and_the_pool_says_that_it_has_none(
    bench: Bench,
) -> None:
    bench.cache.put("TraderPool", pool_body())
    bench.cache.put("Trader", trader_body())
    await bench.pools.reconcile(KEY)
    bench.workers.of(KEY)["quants-0"]._pod_ready = True
    bench.pools._began_s = float("-inf")  # long since: no catalogue is waited for
    bench.pools._tools = replace(bench.tools, defaults=Defaults("workers:1", "stream:1"))
    await bench.pools.reconcile(KEY)
    assert bench.condition("TraderPool/quants")["reason"] == "NoKafka"
    assert bench.condition("Trader/one")["reason"] == "WorkerUnreachable", "as its worker is"
    bench.workers.of(KEY)["quants-0"]._pod_ready = False
    await bench.pools.reconcile(KEY)
    assert bench.condition("Trader/one")["reason"] not in ("NoKafka", "WorkerUnreachable"), (
        "its pod comes back by itself"
    )
    assert not [line for line in bench.server.log if line.startswith("deleted")]


def kept_in(pool: str, *traders: TraderAssignment) -> Object:
    """The ConfigMap with what a pool's first worker is assigned, as an operator before this one left it."""
    of = TraderPool.model_validate(pool_body(pool))
    body = assignment_map(of, Assignment(f"{pool}-0", 3, content_hash(list(traders)), list(traders)))
    body["metadata"].update(resourceVersion="7", uid=body["metadata"]["name"])
    return body


@pytest.mark.parametrize("order", [("quants", "other"), ("other", "quants")])
async def test_a_pool_change_made_while_no_operator_ran_misses_no_candle_whichever_pool_is_planned_first(
    bench: Bench, order: tuple[str, str]
) -> None:
    bench.cache.put("TraderPool", pool_body())
    bench.cache.put("TraderPool", pool_body("other"))
    bench.cache.put("Trader", trader_body())
    (one,) = bench.planned_alone()
    before = msgspec.structs.replace(one, incarnation=4, since_ms=7_000)
    bench.server.there[CONFIG_MAP].objects["default", "quants-0-assignment"] = kept_in("quants", before)
    bench.cache.put("Trader", trader_body(version=2, generation=2, in_pool="other"))
    bench.pools.adopt()
    for name in order:
        await bench.pools.reconcile(("default", name))
    assert [link.delivery.assignment.traders for link in bench.workers.of(KEY).values()] == [[]]
    (after,) = bench.workers.of(("default", "other"))["other-0"].delivery.assignment.traders
    assert (after.incarnation, after.since_ms) == (5, 7_000)


async def test_a_state_is_told_before_its_status_is_written_after_which_nobody_would(bench: Bench) -> None:
    bench.cache.put("TraderPool", pool_body(feed={"name": "absent"}))
    bench.cache.put("Trader", trader_body())
    await bench.pools.reconcile(KEY)
    log = bench.server.log
    for name in ("TraderPool/quants", "Trader/one"):
        assert log.index(f"Event/UnknownFeed of {name}") < log.index(name)


@pytest.mark.parametrize("figures", [{}, {"restarts": 7}])
async def test_an_operator_that_starts_asks_for_no_event_of_a_state_whose_status_stands(
    bench: Bench, figures: dict[str, int]
) -> None:
    bench.cache.put("TraderPool", pool_body(feed={"name": "absent"}))
    for number in range(20):
        bench.cache.put("Trader", trader_body(f"t{number}"))
    await bench.pools.reconcile(KEY)
    assert sum(line.startswith("Event/") for line in bench.server.log) == 21
    bench.server.log.clear()
    statuses = bench.server.statuses
    absent = pool_body(version=1000, feed={"name": "absent"})
    bench.cache.put("TraderPool", {**absent, "status": statuses["TraderPool/quants"]})
    for number in range(20):
        now = {**trader_body(f"t{number}", version=1000), "status": statuses[f"Trader/t{number}"] | figures}
        bench.cache.put("Trader", now)
    api: Any = bench.server
    late = Statuses(api, clock=iter(range(0, 10**9, 1000)).__next__)  # figures may be written, ten minutes later
    bench.pools = Pools(replace(bench.tools, statuses=late, events=Events(api, "another")))
    await bench.pools.reconcile(KEY)
    assert sorted(bench.server.log) == sorted(f"Trader/t{number}" for number in range(20 if figures else 0))


async def test_a_move_is_told_before_the_status_that_it_is_known_from_is_written(bench: Bench) -> None:
    bench.cache.put("TraderPool", pool_body())
    bench.cache.put("Trader", trader_body())
    (one,) = bench.planned_alone()
    moved = msgspec.structs.replace(one, incarnation=4)
    bench.server.there[CONFIG_MAP].objects["default", "quants-0-assignment"] = kept_in("quants", moved)
    before = {"incarnation": 3, "worker": "quants-7", "runningGeneration": 1}
    bench.cache.put("Trader", {**trader_body(version=2), "status": before})
    bench.pools.adopt()
    await bench.pools.reconcile(KEY)
    log = bench.server.log
    assert log.index("Event/Moved of Trader/one") < log.index("Trader/one")
    assert bench.server.statuses["Trader/one"]["worker"] == "quants-0"


async def test_an_assignment_that_somebody_spoilt_while_no_operator_ran_is_told_before_it_is_replaced(
    bench: Bench,
) -> None:
    bench.cache.put("TraderPool", pool_body())
    bench.cache.put("Trader", trader_body())
    spoilt = kept_in("quants")
    spoilt["data"] = {ASSIGNMENT_KEY: "{}"}
    bench.server.there[CONFIG_MAP].objects["default", "quants-0-assignment"] = spoilt
    bench.pools.adopt()
    await bench.pools.reconcile(KEY)
    await bench.workers.of(KEY)["quants-0"].delivery.kept()
    log = bench.server.log
    assert log.index("Event/AssignmentReplaced of TraderPool/quants") < log.index("ConfigMap/quants-0-assignment")


async def test_a_status_whose_event_is_not_taken_waits_for_it_but_not_for_ever(bench: Bench) -> None:
    now_s = 1000.0
    events = Events(bench.server, "test", clock=lambda: now_s)
    bench.pools._tools = replace(bench.tools, events=events)
    bench.server.takes_events = False
    bench.cache.put("TraderPool", pool_body(feed={"name": "absent"}))
    bench.cache.put("Trader", trader_body())
    for wait_s in (0.0, 9.0):
        now_s += wait_s
        bench.marked.clear()
        await bench.pools.reconcile(KEY)
        assert bench.server.statuses == {}
        assert ("pool", *KEY) in bench.marked, "and looked at again"
    now_s += 2.0
    await bench.pools.reconcile(KEY)
    assert bench.condition("TraderPool/quants")["reason"] == "UnknownFeed"
    assert bench.condition("Trader/one")["reason"] == "UnknownFeed"
    assert len(events) == 2, "to be told all the same"


@pytest.mark.parametrize("what", ["deleted", "another's", "unsound"])
async def test_an_assignment_that_an_operator_before_kept_is_kept_again_when_somebody_changes_it(
    bench: Bench, what: str
) -> None:
    bench.cache.put("TraderPool", pool_body())
    bench.cache.put("Trader", trader_body())
    (one,) = bench.planned_alone()
    before = kept_in("quants", one)
    names = ("default", "quants-0-assignment")
    there = bench.server.there[CONFIG_MAP].objects
    there[names] = before
    noted = bench.tools.children.changed(CONFIG_MAP, bench.workers.assignment_changed)
    noted(names, None, before)
    bench.pools.adopt()
    await bench.pools.reconcile(KEY)
    assert "ConfigMap/quants-0-assignment" not in bench.server.log, "nothing of it is new"
    now: Object | None = None
    if what == "deleted":
        del there[names]
    else:
        now = kept_in("quants") if what == "another's" else {**before, "data": {ASSIGNMENT_KEY: "{}"}}
        now["metadata"] = {**before["metadata"], "resourceVersion": "8"}
        there[names] = now
    noted(names, before, now)
    await bench.workers.of(KEY)["quants-0"].delivery.kept()
    kept = decode_assignment(there[names]["data"][ASSIGNMENT_KEY])
    assert [each.trader for each in kept.traders] == ["default/one"]
    assert unsound(kept, "quants-0") == ""
    assert kept.sequence == (4 if what == "another's" else 3), "above what stood there"
