"""Reconciling a feed: which of its pods there are and for how long, and what keeps them from coming up."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from tests.operator_parts.feeds_bench import PACED, Market
from tests.operator_parts.operator_bodies import feed_body

from chandlery.operator.children.naming import Defaults
from chandlery.operator.feeds import GRACE_S
from chandlery.operator.kubernetes.api import Kind, Page, RefusedError
from chandlery.operator.kubernetes.kinds import EVENT, POD, STATEFUL_SET


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
