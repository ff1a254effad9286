"""Reconciling a feed: what its pods answer is told on it, and has the pools looked at that it concerns."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from itertools import count
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from tests.operator_parts.operator_bodies import feed_body, pool_body, trader_body

from chandlery.core.behind import BEHIND_MS
from chandlery.core.errors import UnavailableError
from chandlery.operator import unknown_symbols
from chandlery.operator.applied import Children
from chandlery.operator.cache import Cache, Dirty
from chandlery.operator.children.naming import Defaults, Object
from chandlery.operator.events import Events
from chandlery.operator.feeds import GRACE_S, Feeds
from chandlery.operator.kubernetes.api import Kind, Page, RefusedError
from chandlery.operator.kubernetes.follow import Followed
from chandlery.operator.kubernetes.kinds import CONFIG_MAP, EVENT, POD, STATEFUL_SET
from chandlery.operator.planning import PoolPlanner
from chandlery.operator.pools import Tools
from chandlery.operator.refusals import Refusals
from chandlery.operator.statuses import Statuses

FEED = ("default", "market")
PACED: dict[str, Any] = {"source": {"synthetic": {}}}
HASTY: dict[str, Any] = {"source": {"replay": {"files": [{"path": "x.jsonl"}], "speed": "max"}}}


class Server:
    """An API server that takes everything; the feed's pods are Ready from the first."""

    def __init__(self) -> None:
        self.there: dict[Kind, Followed] = {
            kind: Followed(self, kind, "", lambda *_: None)  # type: ignore[arg-type]
            for kind in (STATEFUL_SET, CONFIG_MAP, POD)
        }
        for component in ("ingest", "aggregator"):
            self.ready(component)
        self.statuses: list[Object] = []
        self.refuses: Callable[[Kind, str], str] = lambda _kind, _name: ""
        self.deleted: list[tuple[Kind, str]] = []
        self.is_told_late = False
        self.events: list[str] = []
        self.takes_events = True
        self.version = 100

    def ready(self, component: str, *, ready: bool = True) -> None:
        name = f"market-{component}-0"
        conditions = [{"type": "Ready", "status": str(ready)}]
        meta = {"name": name, "namespace": "default", "uid": name, "resourceVersion": "1"}
        status = {"podIP": "127.0.0.1", "conditions": conditions}
        self.there[POD].objects["default", name] = {"metadata": meta, "status": status}

    async def apply(self, kind: Kind, body: Object, *, subresource: str = "") -> Object:
        if said := self.refuses(kind, body["metadata"]["name"]):
            raise RefusedError(said)
        self.version += 1
        meta = {
            **body["metadata"],
            "resourceVersion": str(self.version),
            "generation": 1,
            "uid": body["metadata"]["name"],
        }
        if subresource:
            self.statuses.append(body["status"])
        elif kind in self.there:
            self.there[kind].objects["default", meta["name"]] = {**body, "metadata": meta}
        return {"metadata": meta}

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str = "") -> None:
        self.deleted.append((kind, name))
        if not self.is_told_late:
            self.tell_deleted()

    def tell_deleted(self) -> None:
        for kind, name in self.deleted:
            self.there[kind].objects.pop(("default", name), None)

    def children(self) -> list[str]:
        found = [name for kind in (STATEFUL_SET, CONFIG_MAP) for _, name in self.there[kind].objects]
        return sorted(found)

    async def merge(self, kind: Kind, namespace: str, name: str, patch: Object, *, subresource: str = "") -> Object:
        return patch

    async def list(self, kind: Kind, namespace: str = "", *, fields: str = "", **_: Any) -> Page:
        return Page("1", [])

    async def create(self, kind: Kind, body: Object) -> Object:
        if not self.takes_events:
            raise UnavailableError("429 too many requests")
        self.events.append(body["reason"])
        return body


class Market:
    """A feed's operator side, over pods that answer what a test says."""

    def __init__(self, session: aiohttp.ClientSession, spec: dict[str, Any]) -> None:
        self.server, self.cache = Server(), Cache()
        self.marked: list[Dirty] = []
        self.answers: dict[str, dict[str, Any]] = {"ingest": {}, "aggregator": {}}
        api: Any = self.server
        children = Children(api, lambda _dirty: None)
        for followed in self.server.there.values():
            children.follow(followed)
        nobody: Any = None
        self.planner = PoolPlanner(self.cache)
        tools = Tools(
            cache=self.cache, children=children, workers=nobody, planner=self.planner,
            statuses=Statuses(api), events=Events(api, "test"), sources=nobody, refusals=Refusals(api),
            defaults=Defaults("workers:1", "stream:1", kafka="kafka:9092"), namespaces=dict,
            unknown_symbols=lambda _feed: (), mark=lambda dirty, _delay_s: self.marked.append(dirty),
        )  # fmt: skip
        self.feeds = Feeds(tools, api, session)
        self.cache.put("MarketFeed", feed_body(**spec))
        self.cache.put("TraderPool", pool_body())
        self.cache.put("Trader", trader_body())
        self.plan()

    def plan(self) -> None:
        self.planner.plan(("default", "quants"), {}, configmaps={}, namespaces={}, catalogue=None, now_ms=1)

    def put(self, name: str, symbol: str, interval: str = "1s") -> None:
        self.cache.put("Trader", trader_body(name, market={"symbols": [symbol], "interval": interval}))
        self.plan()

    def drop(self, name: str) -> None:
        self.cache.drop(f"Trader-default-{name}")
        self.plan()

    def settings(self, component: str) -> dict[str, Any]:
        item = self.server.there[CONFIG_MAP].objects["default", f"market-{component}"]
        found: dict[str, Any] = json.loads(item["data"][f"{component}.json"])
        return found

    async def look(self) -> dict[str, Any]:
        """One reconcile; the feed's condition Ready afterwards."""
        await self.feeds.reconcile(FEED)
        found: dict[str, Any] = next(one for one in self.server.statuses[-1]["conditions"] if one["type"] == "Ready")
        return found


@pytest_asyncio.fixture
async def market(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Market]:
    async with aiohttp.ClientSession() as session:
        made = Market(session, getattr(request, "param", PACED))
        runners = []
        for component in made.answers:

            async def answer(_request: web.Request, component: str = component) -> web.Response:
                return web.json_response(made.answers[component])

            app = web.Application()
            app.router.add_get("/v1/status", answer)
            runner = web.AppRunner(app)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            runners.append(runner)
            monkeypatch.setattr(f"chandlery.operator.feeds.{component.upper()}_PORT", runner.addresses[0][1])
        # Each look asks, and what holds for two looks in a row holds for long enough.
        monkeypatch.setattr("chandlery.operator.feeds._ASK_S", 0.0)
        monkeypatch.setattr("chandlery.core.behind.HOLDS_S", 0.0)
        yield made
        for runner in runners:
            await runner.cleanup()


class Clock:
    """The steady clock as feeds read it."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("chandlery.operator.feeds.time", made)
    return made


CHILDREN = ["market-aggregator", "market-aggregator", "market-ingest", "market-ingest"]


async def test_a_feed_of_which_nobody_asks_anything_any_more_ends_its_pods_once_and_says_idle_once(
    market: Market, clock: Clock
) -> None:
    server = market.server
    market.answers["ingest"] = {"session": 7}
    assert (await market.look())["reason"] == "Running"
    assert server.children() == CHILDREN
    market.drop("one")
    for after_s in (0.0, GRACE_S - 1):
        clock.now_s = 1000.0 + after_s
        assert (await market.look())["reason"] == "Running"
        assert (server.children(), server.deleted) == (CHILDREN, []), "it may only be edited"
    clock.now_s = 1000.0 + GRACE_S
    server.is_told_late = True
    writes, versions = len(server.statuses), server.version
    for _ in range(3):  # what was deleted still seems to be there
        assert (await market.look())["reason"] == "Idle"
        clock.now_s += 1
    server.tell_deleted()
    assert server.children() == []
    for _ in range(3):
        clock.now_s += GRACE_S
        await market.look()
    assert len(server.statuses) == writes + 1
    assert server.version == versions + 1, "nothing else was written"
    assert server.statuses[-1].get("session") is None


async def test_a_trader_that_comes_back_to_an_idle_feed_has_its_pods_made_again(market: Market, clock: Clock) -> None:
    await market.look()
    first = market.settings("ingest")
    market.drop("one")
    await market.look()
    clock.now_s += GRACE_S
    assert (await market.look())["reason"] == "Idle"
    assert market.server.children() == []
    for _ in range(2):
        market.put("one", "BTC/USDT")
        assert (await market.look())["reason"] == "Running"
        assert market.server.children() == CHILDREN
        assert market.settings("ingest") == first
        market.drop("one")
        await market.look()
        clock.now_s += GRACE_S - 1
        assert (await market.look())["reason"] == "Running", "a whole grace, as the first time"
        clock.now_s += 1
        assert (await market.look())["reason"] == "Idle"


async def test_one_symbol_and_one_interval_of_two_leave_after_their_grace_and_the_rest_stays(
    market: Market, clock: Clock
) -> None:
    market.put("two", "ETH/USDT", "5s")
    await market.look()
    assert market.settings("ingest")["symbols"] == ["BTC/USDT", "ETH/USDT"]
    market.drop("two")
    await market.look()
    clock.now_s += GRACE_S - 1
    await market.look()
    assert market.settings("ingest")["symbols"] == ["BTC/USDT", "ETH/USDT"]
    clock.now_s += 1
    assert (await market.look())["reason"] == "Running"
    assert (market.settings("ingest")["symbols"], market.settings("aggregator")["intervals"]) == (["BTC/USDT"], ["1s"])
    assert (market.server.children(), market.server.deleted) == (CHILDREN, [])


async def test_before_a_pool_is_planned_nobody_knows_that_it_asks_for_nothing(market: Market, clock: Clock) -> None:
    await market.look()
    market.planner.forget(("default", "quants"))
    await market.look()
    clock.now_s += GRACE_S
    await market.look()
    assert (market.server.children(), market.server.deleted) == (CHILDREN, [])
    market.drop("one")
    await market.look()
    assert market.server.children() == []


async def test_what_keeps_ingest_out_of_kafka_is_told_at_the_next_question_and_when_it_is_over(market: Market) -> None:
    assert (await market.look())["reason"] == "Running"
    for problem in ("is refused", "is refused by another"):
        market.answers["ingest"] = {"kafka_problem": {"reason": "KafkaUnauthorized", "message": problem}}
        ready = await market.look()
        assert (ready["status"], ready["reason"], ready["message"]) == ("False", "KafkaUnauthorized", problem)
        assert ("feed", *FEED) in market.marked, "and asked again"
        await market.look()
    market.answers["ingest"] = {}
    assert (await market.look())["reason"] == "Running"
    assert market.server.events == ["KafkaUnauthorized"] * 2, "once each"


async def test_what_is_wrong_with_a_feed_is_told_before_its_status_is_written_after_which_nobody_would(
    market: Market,
) -> None:
    await market.look()
    market.server.takes_events = False
    market.answers["ingest"] = {"kafka_problem": {"reason": "KafkaUnauthorized", "message": "is refused"}}
    writes = len(market.server.statuses)
    await market.look()
    assert len(market.server.statuses) == writes
    assert ("feed", *FEED) in market.marked, "and looked at again"
    market.server.takes_events = True
    market.feeds._tools = replace(market.feeds._tools, events=Events(market.server, "another operator"))
    assert (await market.look())["reason"] == "KafkaUnauthorized"
    assert market.server.events == ["KafkaUnauthorized"]


async def test_a_feed_that_does_not_come_up_says_what_keeps_which_of_its_pods(market: Market) -> None:
    server = market.server
    await market.look()
    for component in ("ingest", "aggregator"):
        server.ready(component, ready=False)
    assert (await market.look())["message"] == "not Ready: market-ingest, market-aggregator"
    ingest, aggregator = (server.there[POD].objects["default", f"market-{one}-0"] for one in ("ingest", "aggregator"))
    ingest["status"]["containerStatuses"] = [{"name": "ingest", "state": {"waiting": {"reason": "ErrImagePull"}}}]
    unfit = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"}
    aggregator["status"]["conditions"].append(unfit)
    ready = await market.look()
    assert (ready["status"], ready["reason"]) == ("False", "Starting")
    assert ready["message"] == (
        "not Ready: market-ingest (container ingest: ImagePullBackOff), "
        "market-aggregator (Unschedulable: 0/3 nodes are available)"
    )
    writes = len(server.statuses)
    ingest["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] = "ImagePullBackOff"
    await market.look()
    assert (len(server.statuses), server.events) == (writes, []), "the kubelet says both in turn"
    server.ready("ingest")
    assert (await market.look())["message"] == "not Ready: market-aggregator (Unschedulable: 0/3 nodes are available)"


async def test_a_part_that_ends_again_and_again_is_told_once_and_not_with_each_of_its_starts(market: Market) -> None:
    server = market.server
    await market.look()
    server.ready("ingest", ready=False)
    status = server.there[POD].objects["default", "market-ingest-0"]["status"]
    writes = []
    for restarts in range(1, 6):
        ended = {"terminated": {"startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:07Z"}}
        now = {"name": "ingest", "ready": False, "restartCount": restarts, "lastState": ended}
        states: list[dict[str, Any]] = [{"running": {}}, ended, {"waiting": {"reason": "CrashLoopBackOff"}}]
        for state in states:
            status["containerStatuses"] = [now | {"state": state}]
            ready = await market.look()
        writes.append(len(server.statuses))
        assert ready["message"] == "not Ready: market-ingest (container ingest: CrashLoopBackOff)"
    assert writes == [writes[0]] * 5


@pytest.mark.parametrize("component", ["aggregator", "ingest"])
async def test_a_quota_that_refuses_a_feeds_objects_is_told_once_with_what_to_raise(
    market: Market, component: str
) -> None:
    server, name, used = market.server, f"market-{component}", count(4)
    del server.there[POD].objects["default", f"{name}-0"]

    def refuses(kind: Kind, named: str) -> str:
        counted = "count/statefulsets.apps"
        quota = f"exceeded quota: few, requested: {counted}=1, used: {counted}={next(used)}, limited: {counted}=4"
        return f'statefulsets.apps "{name}" is forbidden: {quota}' if (kind, named) == (STATEFUL_SET, name) else ""

    server.refuses = refuses
    for _ in range(3):
        with pytest.raises(RefusedError):
            await market.look()
    (written,) = server.statuses
    ready, _, stalled = written["conditions"]
    assert (ready["reason"], stalled["status"]) == ("QuotaExceeded", "True")
    assert f"few refuses {name}: it asks for count/statefulsets.apps=1" in ready["message"]
    assert "raise the quota's spec.hard" in ready["message"]
    assert server.events == ["QuotaExceeded"]
    server.refuses = lambda _kind, _name: ""
    server.ready(component)
    assert (await market.look())["reason"] == "Running"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            "failed quota: cores: must specify limits.cpu for: ingest",
            "it counts limits.cpu, which ingest don't name; give the namespace a LimitRange whose default has them, "
            "or leave limits.cpu out of the quota",
        ),
        (
            "exceeded quota: few, requested: pods=1, used: pods=4, limited: pods=4",
            "it asks for pods=1, all together may have pods=4; raise the quota's spec.hard",
        ),
    ],
)
async def test_a_quota_that_refuses_a_feeds_pod_is_told_with_what_a_feed_can_do_about_it(
    market: Market, monkeypatch: pytest.MonkeyPatch, said: str, words: str
) -> None:
    monkeypatch.setattr("chandlery.operator.refusals._USUAL_S", 0.0)
    del market.server.there[POD].objects["default", "market-ingest-0"]
    note = f'create Pod market-ingest-0 failed error: pods "market-ingest-0" is forbidden: {said}'

    async def listed(kind: Kind, _namespace: str = "", *, fields: str = "", **_: Any) -> Page:
        return Page("1", [{"metadata": {"resourceVersion": "5"}, "note": note}] if kind is EVENT else [])

    monkeypatch.setattr(market.server, "list", listed)
    ready = await market.look()
    quota = said.partition("quota: ")[2].partition(":")[0].partition(",")[0]
    assert (ready["reason"], ready["message"]) == (
        "QuotaExceeded", f"ResourceQuota {quota} refuses market-ingest: {words}",
    )  # fmt: skip


async def test_what_the_api_server_refuses_for_another_reason_is_told_in_its_words(market: Market) -> None:
    market.server.refuses = lambda kind, _name: "metadata: too long" if kind is STATEFUL_SET else ""
    with pytest.raises(RefusedError):
        await market.look()
    ready = market.server.statuses[-1]["conditions"][0]
    assert (ready["reason"], ready["message"]) == ("Refused", "metadata: too long")


async def test_a_feed_without_a_kafka_says_so_once_and_makes_nothing_until_it_names_one(market: Market) -> None:
    market.feeds._tools = replace(market.feeds._tools, defaults=Defaults("workers:1", "stream:1"))
    for _ in range(2):
        ready = await market.look()
        assert (ready["status"], ready["reason"]) == ("False", "NoKafka")
        assert ready["message"].startswith(
            "MarketFeed default/market names no Kafka: give it spec.kafka.bootstrapServers"
        )
    assert [one["status"] for one in market.server.statuses[-1]["conditions"]] == ["False", "False", "True"]
    assert (market.server.events, market.server.children()) == (["NoKafka"], [])
    market.cache.put("MarketFeed", feed_body(version=2, generation=2, kafka={"bootstrapServers": "k:9092"}, **PACED))
    assert (await market.look())["reason"] == "Running"
    assert market.server.children() == CHILDREN


async def test_symbols_that_the_exchange_lacks_have_its_pools_looked_at_each_time_they_are_others(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unknown_symbols, "FORGET_S", 0.0)
    pool = ("pool", "default", "quants")
    await market.look()
    assert pool not in market.marked
    for unknown in (["DOGE/USDT"], ["DOGE/USDT", "PEPE/USDT"], []):
        market.answers["ingest"] = {"unknown_symbols": unknown, "connected": True}
        if not unknown:
            await market.look()
            assert pool not in market.marked, "a process that has just started knows of none"
        await market.look()
        assert pool in market.marked
        assert list(market.feeds.unknown_symbols(FEED)) == unknown
        assert market.server.statuses[-1].get("unknownSymbols", []) == unknown
        market.marked.clear()
        await market.look()
        assert pool not in market.marked


async def test_what_a_source_lacked_before_the_operator_began_it_lacks_until_ingest_has_been_without_it_for_a_while(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = {"unknownSymbols": ["DGOE/USDT"]}
    market.cache.put("MarketFeed", {**feed_body(version=2, **PACED), "status": status})
    assert list(market.feeds.unknown_symbols(FEED)) == ["DGOE/USDT"], "pools are planned before ingest is asked"
    for answer in ({}, {"unknown_symbols": ["DGOE/USDT"], "connected": True}, {"connected": True}):
        market.answers["ingest"] = answer
        await market.look()
        assert list(market.feeds.unknown_symbols(FEED)) == ["DGOE/USDT"]
        assert market.server.statuses[-1]["unknownSymbols"] == ["DGOE/USDT"]
    market.marked.clear()
    monkeypatch.setattr(unknown_symbols, "FORGET_S", 0.0)
    await market.look()
    assert list(market.feeds.unknown_symbols(FEED)) == []
    assert ("pool", "default", "quants") in market.marked, "its version begins without any edit"


@pytest.mark.parametrize("told", ["DGOE/USDT", [1], None])
async def test_a_feeds_status_that_somebody_else_wrote_names_no_symbol(market: Market, told: object) -> None:
    market.cache.put("MarketFeed", {**feed_body(version=2, **PACED), "status": {"unknownSymbols": told}})
    assert list(market.feeds.unknown_symbols(FEED)) == []
    assert list(market.feeds.unknown_symbols(("default", "other"))) == []


@pytest.mark.parametrize("market", [{**PACED, "symbols": ["BTC/USDT", "DGOE/USDT"]}], indirect=True)
async def test_a_feed_that_lists_a_symbol_its_source_lacks_says_so_once_and_stays_ready(market: Market) -> None:
    assert (await market.look())["reason"] == "Running"
    assert market.server.statuses[-1]["symbolCount"] == 2
    market.answers["ingest"] = {"unknown_symbols": ["DGOE/USDT"]}
    ready = await market.look()
    assert (ready["status"], ready["reason"]) == ("True", "UnknownSymbol")
    assert ready["message"] == "its source has no DGOE/USDT: mend spec.symbols; the others are ingested"
    assert market.server.statuses[-1]["symbolCount"] == 1
    writes = len(market.server.statuses)
    await market.look()
    assert (len(market.server.statuses), market.server.events) == (writes, ["UnknownSymbol"])
    market.cache.put("MarketFeed", feed_body(version=2, generation=2, **PACED, symbols=["BTC/USDT"]))
    assert (await market.look())["reason"] == "Running", "what it lists no more is no fault of its own"


async def test_a_feed_whose_source_has_none_of_its_symbols_is_stalled(market: Market) -> None:
    market.cache.put("MarketFeed", feed_body(version=2, generation=2, **PACED, symbols=["DGOE/USDT"], intervals=["1s"]))
    market.plan()
    market.answers["ingest"] = {"unknown_symbols": ["DGOE/USDT"]}
    await market.look()
    ready = await market.look()
    assert (ready["status"], ready["reason"]) == ("False", "UnknownSymbol")
    assert ready["message"] == "its source has no DGOE/USDT: mend spec.symbols; nothing is ingested"


async def test_a_feed_that_lists_none_leaves_it_to_its_traders_to_say_what_its_source_lacks(market: Market) -> None:
    market.answers["ingest"] = {"unknown_symbols": ["BTC/USDT"]}
    assert (await market.look())["reason"] == "Running"
    assert (await market.look())["reason"] == "Running"
    assert market.server.events == []


async def test_a_feed_whose_aggregator_falls_behind_says_so_until_it_has_caught_up_and_stays_ready(
    market: Market,
) -> None:
    assert (await market.look())["reason"] == "Running"
    market.answers["aggregator"] = {"behind_ms": BEHIND_MS + 1}
    assert (await market.look())["reason"] == "Running", "one look may be of a moment"
    ready = await market.look()
    assert (ready["status"], ready["reason"]) == ("True", "Lagging")
    assert "more than 10s behind its market" in ready["message"]
    writes = len(market.server.statuses)
    market.answers["aggregator"] = {"behind_ms": 19_000}
    await market.look()
    assert len(market.server.statuses) == writes, "a figure that moves by itself is no news"
    market.answers["aggregator"] = {"behind_ms": 45_000}
    assert "more than 40s behind its market" in (await market.look())["message"]
    market.answers["aggregator"] = {"behind_ms": 0}
    await market.look()
    assert (await market.look())["reason"] == "Running"
    assert market.server.events == ["Lagging"] * 2, "once each step"


async def test_an_aggregator_that_is_not_ready_does_not_lag(market: Market) -> None:
    market.answers["aggregator"] = {"behind_ms": 60_000}
    await market.look()
    assert (await market.look())["reason"] == "Lagging"
    market.server.ready("aggregator", ready=False)
    assert (await market.look())["reason"] == "Starting"
    market.server.ready("aggregator")
    market.answers["aggregator"] = {"behind_ms": 0}
    assert (await market.look())["reason"] == "Running"


@pytest.mark.parametrize("market", [HASTY], indirect=True)
async def test_a_replay_as_fast_as_possible_has_no_pace_to_be_behind_of(market: Market) -> None:
    market.answers["aggregator"] = {"behind_ms": 60_000}
    for _ in range(3):
        assert (await market.look())["reason"] == "Running"
