"""Reconciling a pool: what can't be planned is told, what is told was judged, and nothing goes before it is kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from tests.operator_parts.operator_bodies import feed_body, pool_body, trader_body
from tests.operator_parts.pools_bench import KEY, Bench, kept_in

from chandlery.core.assignment import TraderAssignment, TraderStatus, WorkerStatus, decode_assignment
from chandlery.core.errors import UnavailableError
from chandlery.operator.cache import Dirty
from chandlery.operator.children.naming import Defaults, Object
from chandlery.operator.children.workers import ASSIGNMENT_KEY
from chandlery.operator.kubernetes.api import Kind
from chandlery.operator.kubernetes.kinds import CONFIG_MAP, STATEFUL_SET


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


def active(bench: Bench) -> list[tuple[str, str, int]]:
    """Worker, Trader and incarnation of all that is assigned."""
    assigned: list[tuple[str, TraderAssignment]] = [
        (name, trader)
        for (_, name), link in bench.workers.all().items()
        for trader in link.delivery.assignment.traders
        if trader.mode == "active"
    ]
    return sorted((name, trader.trader, trader.incarnation) for name, trader in assigned)


def typo(bench: Bench) -> None:
    """The pool names a feed that isn't there."""
    bench.cache.put("TraderPool", pool_body(version=2, generation=2, feed={"name": "markt"}))


def gone(bench: Bench) -> None:
    """The pool's feed is deleted."""
    bench.cache.drop("MarketFeed-default-market")


async def with_two(bench: Bench) -> None:
    """A pool with two Traders that run."""
    bench.cache.put("TraderPool", pool_body())
    for name in ("one", "two"):
        bench.cache.put("Trader", trader_body(name))
    await bench.pools.reconcile(KEY)
    assert active(bench) == [("quants-0", "default/one", 1), ("quants-0", "default/two", 1)]


@pytest.mark.parametrize("lose", [typo, gone])
async def test_a_feed_that_is_gone_stops_the_pools_traders_at_once_and_leaves_its_pods(bench: Bench, lose: Any) -> None:
    await with_two(bench)
    lose(bench)
    for _ in range(2):
        await bench.pools.reconcile(KEY)
    assert active(bench) == []
    assert bench.workers.of(KEY)["quants-0"].delivery.assignment.sequence == 2, "told once"
    assert not [line for line in bench.server.log if line.startswith("deleted")]
    for name in ("TraderPool/quants", "Trader/one", "Trader/two"):
        assert (bench.condition(name)["status"], bench.condition(name)["reason"]) == ("False", "UnknownFeed")
    assert bench.server.statuses["TraderPool/quants"]["workers"] == 1
    bench.cache.put("MarketFeed", feed_body(uid="anew", version=9))
    bench.cache.put("TraderPool", pool_body(version=9, generation=9))
    await bench.pools.reconcile(KEY)
    assert active(bench) == [("quants-0", "default/one", 2), ("quants-0", "default/two", 2)]
    assert bench.workers.of(KEY)["quants-0"].delivery.assignment.sequence == 3


@pytest.mark.parametrize("lose", [typo, gone])
async def test_a_trader_that_leaves_a_pool_without_its_feed_runs_in_the_other_pool_alone(
    bench: Bench, lose: Any
) -> None:
    await with_two(bench)
    lose(bench)
    await bench.pools.reconcile(KEY)
    bench.cache.put("MarketFeed", feed_body("other"))
    bench.cache.put("TraderPool", pool_body("other", feed={"name": "other"}))
    bench.cache.put("Trader", trader_body("one", version=2, generation=2, in_pool="other"))
    for name in ("quants", "other"):
        await bench.pools.reconcile(("default", name))
    assert active(bench) == [("other-0", "default/one", 2)]


def unreadable_feed(bench: Bench) -> None:
    """The feed is there, and the operator, which has just started, can't read it."""
    gone(bench)
    bench.cache.put("MarketFeed", feed_body(uid="later", version=2, symbols=7))


@pytest.mark.parametrize("what", ["deleted", "made anew", "suspended", "in another pool", "pool suspended"])
async def test_a_feed_that_can_not_be_read_stops_nothing_but_what_stops_anyway(bench: Bench, what: str) -> None:
    await with_two(bench)
    unreadable_feed(bench)
    await bench.pools.reconcile(KEY)
    assert active(bench) == [("quants-0", "default/one", 1), ("quants-0", "default/two", 1)]
    left = [("quants-0", "default/two", 1)]
    if what == "deleted":
        bench.cache.drop("Trader-default-one")
    elif what == "made anew":
        bench.cache.drop("Trader-default-one")
        bench.cache.put("Trader", trader_body("one", uid="another", version=2))
    elif what == "suspended":
        bench.cache.put("Trader", trader_body("one", version=2, generation=2, suspend=True))
    elif what == "in another pool":
        bench.cache.put("Trader", trader_body("one", version=2, generation=2, in_pool="other"))
    else:
        bench.cache.put("TraderPool", pool_body(version=2, generation=2, suspend=True))
        left = []
    await bench.pools.reconcile(KEY)
    assert active(bench) == left


async def test_a_feed_that_can_not_be_read_is_told_as_one_and_of_what_runs_that_it_does(bench: Bench) -> None:
    await with_two(bench)
    link = bench.workers.of(KEY)["quants-0"]
    link._pod_ready = True
    bench.pools._began_s = float("-inf")  # long since: no catalogue is waited for
    told = {name: TraderStatus("Active", generation=1, incarnation=1) for name in ("default/one", "default/two")}
    link.status = WorkerStatus("quants-0", 1, 1, link.delivery.assignment.hash, 1, True, told, [], {})
    unreadable_feed(bench)
    bench.cache.put("Trader", trader_body("late"))
    for _ in range(2):
        await bench.pools.reconcile(KEY)
    said = "MarketFeed default/market is there and can't be read: spec.symbols: "
    pool, late, one = (bench.condition(name) for name in ("TraderPool/quants", "Trader/late", "Trader/one"))
    assert (pool["status"], pool["reason"]) == ("False", "UnknownFeed")
    assert pool["message"].startswith(said)
    assert (late["status"], late["reason"]) == ("False", "UnknownFeed")
    assert said in late["message"]
    assert (one["status"], one["reason"]) == ("True", "UnknownFeed")
    assert said in one["message"]
    assert one["message"].endswith(" (generation 1 stays)")
    assert bench.condition("Trader/one", "Stalled")["status"] == "True"
    status = bench.server.statuses["Trader/one"]
    assert (status["worker"], status["runningGeneration"], status["incarnation"]) == ("quants-0", 1, 1)


def started_with_unreadable_pool(bench: Bench) -> None:
    """The operator starts, and finds a pool that it can't read, and what runs in it."""
    bench.cache.put("TraderPool", pool_body())
    for name in ("one", "two"):
        bench.cache.put("Trader", trader_body(name))
    kept = [msgspec.structs.replace(one, incarnation=4, since_ms=7_000) for one in bench.planned_alone()]
    bench.server.there[CONFIG_MAP].objects["default", "quants-0-assignment"] = kept_in("quants", *kept)
    bench.cache.drop("TraderPool-default-quants")
    bench.cache.put("TraderPool", pool_body(version=2, workers=7))
    bench.pools.adopt()
    bench.pools._began_s = float("-inf")  # long since: no catalogue is waited for


async def test_a_pool_that_can_not_be_read_is_told_as_one_and_of_what_runs_that_it_does(bench: Bench) -> None:
    started_with_unreadable_pool(bench)
    bench.cache.put("Trader", trader_body("late"))
    bench.cache.put("Trader", trader_body("theirs", "desk", pool={"name": "quants", "namespace": "default"}))
    link = bench.workers.of(KEY)["quants-0"]
    link._pod_ready = True
    told = {name: TraderStatus("Active", generation=1, incarnation=4) for name in ("default/one", "default/two")}
    link.status = WorkerStatus("quants-0", 1, 3, link.delivery.assignment.hash, 3, True, told, [], {})
    for _ in range(2):
        await bench.pools.reconcile(KEY)
    assert active(bench) == [("quants-0", "default/one", 4), ("quants-0", "default/two", 4)]
    assert link.delivery.assignment.sequence == 3, "nothing of it is new"
    assert not [line for line in bench.server.log if line.startswith(("StatefulSet/", "ConfigMap/", "deleted"))]
    pool, late, one = (bench.condition(name) for name in ("TraderPool/quants", "Trader/late", "Trader/one"))
    assert pool["reason"] == "BadManifest"
    assert pool["message"].startswith("spec.workers: ")
    said = f"TraderPool default/quants is there and can't be read: {pool['message']}"
    assert (late["status"], late["reason"], late["message"]) == ("False", "UnknownPool", said)
    assert (one["status"], one["reason"], one["message"]) == ("True", "UnknownPool", f"{said} (generation 1 stays)")
    assert "spec.workers" not in bench.condition("Trader/theirs")["message"]
    status = bench.server.statuses["Trader/one"]
    assert (status["worker"], status["runningGeneration"], status["incarnation"]) == ("quants-0", 1, 4)
    assert bench.server.statuses["TraderPool/quants"]["readyWorkers"] == 1
    asked = bench.planner.asked_of(bench.feed())
    assert (asked.symbols, asked.intervals) == (("BTC/USDT",), ("1s",))
    bench.cache.put("TraderPool", pool_body(version=3, generation=2))
    await bench.pools.reconcile(KEY)
    assert active(bench)[1:] == [("quants-0", "default/one", 4), ("quants-0", "default/two", 4)]


@pytest.mark.parametrize("what", ["deleted", "made anew", "suspended", "in another pool"])
async def test_a_pool_that_can_not_be_read_stops_nothing_but_what_stops_anyway(bench: Bench, what: str) -> None:
    started_with_unreadable_pool(bench)
    bench.cache.put("TraderPool", pool_body("other"))
    left = [("quants-0", "default/two", 4)]
    if what in ("deleted", "made anew"):
        bench.cache.drop("Trader-default-one")
    if what == "made anew":
        bench.cache.put("Trader", trader_body("one", uid="another", version=2))
    elif what == "suspended":
        bench.cache.put("Trader", trader_body("one", version=2, generation=2, suspend=True))
    elif what == "in another pool":
        bench.cache.put("Trader", trader_body("one", version=2, generation=2, in_pool="other"))
        left = [("other-0", "default/one", 5), *left]
    for name in ("quants", "other"):
        await bench.pools.reconcile(("default", name))
    assert active(bench) == left
    link = bench.workers.of(KEY)["quants-0"]
    assert link.delivery.assignment.sequence == 4
    await link.delivery.kept()
    kept = decode_assignment(
        bench.server.there[CONFIG_MAP].objects["default", "quants-0-assignment"]["data"][ASSIGNMENT_KEY]
    )
    assert [one.trader for one in kept.traders] == ["default/two"]


async def test_what_is_wrong_with_a_feed_of_another_namespace_is_for_that_to_say(bench: Bench) -> None:
    bench.cache.put("MarketFeed", feed_body(namespace="markets", symbols=7))
    bench.cache.put("TraderPool", pool_body(feed={"name": "market", "namespace": "markets"}))
    await bench.pools.reconcile(KEY)
    said = bench.condition("TraderPool/quants")["message"]
    assert said == "MarketFeed markets/market is there and can't be read: its status says why"


@pytest.mark.parametrize("ran_with", ["none", "a source"])
async def test_while_the_feed_can_not_be_read_a_source_that_the_pool_takes_from_nobody_stops_none_that_ran_without(
    bench: Bench, ran_with: str
) -> None:
    strategy = {"name": "S", "source": {"configMapRef": {"name": "strategies", "key": "s.py"}}}
    bench.texts.data = {("default", "strategies"): {"s.py": "#"}}
    bench.cache.put("TraderPool", pool_body(allowConfigMapStrategies=True))
    before = strategy if ran_with == "a source" else {"name": "sma-cross"}
    bench.cache.put("Trader", trader_body("one", strategy=before))
    await bench.pools.reconcile(KEY)
    bench.cache.put("TraderPool", pool_body(version=2, generation=2))
    bench.cache.put("Trader", trader_body("one", version=2, generation=2, strategy=strategy))
    unreadable_feed(bench)
    for _ in range(2):
        await bench.pools.reconcile(KEY)
        assert active(bench) == ([("quants-0", "default/one", 1)] if ran_with == "none" else [])
        assert bench.condition("Trader/one")["reason"] == "NotAllowed"


async def test_a_feed_that_can_not_be_read_runs_nobody_who_is_not_allowed(bench: Bench) -> None:
    everybody = {"namespaces": {"from": "All"}}
    bench.cache.put("TraderPool", pool_body(allowedTraders=everybody))
    pool = {"name": "quants", "namespace": "default"}
    bench.cache.put("Trader", trader_body("one"))
    bench.cache.put("Trader", trader_body("theirs", "desk", pool=pool))
    await bench.pools.reconcile(KEY)
    unreadable_feed(bench)
    await bench.pools.reconcile(KEY)
    assert active(bench) == [("quants-0", "default/one", 1), ("quants-0", "desk/theirs", 1)]
    bench.cache.put("TraderPool", pool_body(version=2, generation=2))
    await bench.pools.reconcile(KEY)
    assert active(bench) == [("quants-0", "default/one", 1)]
