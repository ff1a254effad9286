"""The operator's cache: the newest of each uid, no ghosts, and who is concerned by what."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st
from tests.operator_parts.operator_bodies import feed_body, pool_body, trader_body

from chandlery.core.resources import TraderPool
from chandlery.operator.cache import Cache


def test_an_older_version_that_comes_late_changes_nothing() -> None:
    cache = Cache()
    assert cache.put("Trader", trader_body(version=5, in_pool="new")) == [("pool", "default", "new")]
    assert cache.put("Trader", trader_body(version=4, in_pool="old")) == []
    assert [held.key for held in cache.traders_of(("default", "new"))] == [("default", "one")]
    assert cache.traders_of(("default", "old")) == []


def test_a_trader_that_changes_its_pool_concerns_both() -> None:
    cache = Cache()
    cache.put("Trader", trader_body(version=1, in_pool="a"))
    dirty = cache.put("Trader", trader_body(version=2, generation=2, in_pool="b"))
    assert set(dirty) == {("pool", "default", "a"), ("pool", "default", "b")}


def test_a_feed_concerns_the_pools_that_name_it_and_a_pool_its_feed() -> None:
    cache = Cache()
    assert set(cache.put("TraderPool", pool_body())) == {("pool", "default", "quants"), ("feed", "default", "market")}
    assert set(cache.put("MarketFeed", feed_body())) == {("pool", "default", "quants"), ("feed", "default", "market")}


def test_of_a_recreated_resource_the_newer_counts_whatever_comes_first() -> None:
    cache = Cache()
    cache.put("Trader", trader_body(uid="old", version=3))
    cache.put("Trader", trader_body(uid="new", version=9))
    held = cache.get("Trader", ("default", "one"))
    assert held is not None
    assert held.uid == "new"
    assert [one.uid for one in cache.traders_of(("default", "quants"))] == ["new"]
    cache.drop("old")
    assert cache.get("Trader", ("default", "one")) is held


def test_what_is_being_deleted_is_gone() -> None:
    cache = Cache()
    cache.put("TraderPool", pool_body())
    leaving = pool_body(version=2)
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert ("pool", "default", "quants") in cache.put("TraderPool", leaving)
    assert cache.get("TraderPool", ("default", "quants")) is None


def test_a_spec_that_cannot_be_read_keeps_the_one_before_and_says_what_is_wrong() -> None:
    cache = Cache()
    cache.put("Trader", trader_body(version=1))
    cache.put("Trader", trader_body(version=2, generation=2, market={"symbols": ["BTC/USDT"], "interval": "7x"}))
    held = cache.get("Trader", ("default", "one"))
    assert held is not None
    assert held.resource is not None
    assert "spec.market.interval" in held.problem
    assert held.generation == 2


def test_a_spec_that_never_could_be_read_belongs_to_the_pool_it_names() -> None:
    cache = Cache()
    cache.put("Trader", trader_body(suspend="perhaps"))
    (held,) = cache.traders_of(("default", "quants"))
    assert held.resource is None
    assert "suspend" in held.problem


def test_a_changed_status_needs_no_reading_of_the_spec() -> None:
    cache = Cache()
    cache.put("Trader", trader_body(version=1))
    before = cache.get("Trader", ("default", "one"))
    cache.put("Trader", {**trader_body(version=2), "status": {"signals": 3}})
    after = cache.get("Trader", ("default", "one"))
    assert before is not None
    assert after is not None
    assert after.resource is before.resource
    assert after.status == {"signals": 3}


def test_an_approval_is_seen_although_the_generation_stays() -> None:
    cache = Cache()
    cache.put("Trader", trader_body(version=1))
    approved = trader_body(version=2)
    approved["metadata"]["annotations"] = {"chandlery.dev/approve-generation": "1"}
    assert cache.put("Trader", approved) == [("pool", "default", "quants")]
    held = cache.get("Trader", ("default", "one"))
    assert held is not None
    assert held.resource is not None
    assert held.resource.metadata.annotations == {"chandlery.dev/approve-generation": "1"}


def test_a_sweep_drops_ghosts_but_nothing_that_is_newer_than_the_list() -> None:
    cache = Cache()
    cache.put("Trader", trader_body("ghost", version=5))
    cache.put("Trader", trader_body("there", version=6))
    cache.put("Trader", trader_body("late", version=20))
    cache.put("Trader", trader_body("elsewhere", "other", version=5))
    dirty = cache.sweep("Trader", 10, ["Trader-default-there"], namespace="default")
    assert dirty == [("pool", "default", "quants")]
    assert {held.key[1] for held in cache.all_of("Trader")} == {"there", "late", "elsewhere"}


@given(st.integers(0, 2**32))
def test_however_events_come_the_cache_ends_with_the_newest(seed: int) -> None:
    chance = random.Random(seed)
    newest: dict[str, tuple[int, str]] = {}
    events = []
    for version in range(1, 30):
        name, pool = chance.choice("abcd"), chance.choice(["p", "q"])
        newest[name] = (version, pool)
        events.append(trader_body(name, version=version, generation=version, in_pool=pool))
    chance.shuffle(events)
    cache = Cache()
    for event in [*events, *chance.choices(events, k=10)]:
        cache.put("Trader", event)
    for pool in ("p", "q"):
        found = {held.key[1] for held in cache.traders_of(("default", pool))}
        assert found == {name for name, (_, where) in newest.items() if where == pool}


def test_a_pool_that_can_not_be_read_still_names_its_feed() -> None:
    cache = Cache()
    assert ("feed", "default", "market") in cache.put("TraderPool", pool_body(workers=7))
    cache.put("TraderPool", pool_body("other", workers=7, feed={"name": "market", "namespace": "markets"}))
    cache.put(
        "TraderPool",
        pool_body("another", feed={}),
    )
    assert cache.pools_of(("default", "market")) == [("default", "quants")]
    assert cache.pools_of(("markets", "market")) == [("default", "other")]
    assert ("pool", "default", "quants") in cache.put("MarketFeed", feed_body())


def test_a_spec_whose_references_are_none_belongs_to_nobody_and_costs_nobody_else() -> None:
    cache = Cache()
    for spec in ({"pool": "quants"}, {"pool": None}, None):
        cache.put("Trader", {**trader_body("one"), "spec": spec})
        cache.put("TraderPool", {**pool_body(), "spec": spec and {"feed": spec["pool"]}})
        trader, pool = cache.get("Trader", ("default", "one")), cache.get("TraderPool", ("default", "quants"))
        assert trader is not None
        assert trader.pool == ("default", "")
        assert pool is not None
        assert pool.feed is None
        cache.drop(trader.uid)
        cache.drop(pool.uid)


def test_of_a_pool_that_can_not_be_read_it_is_heard_whether_it_is_suspended() -> None:
    cache = Cache()
    cache.put("TraderPool", pool_body())
    seen = []
    for version, suspend in enumerate((False, True, True, "yes", False), start=2):
        cache.put("TraderPool", pool_body(version=version, generation=version, workers=7, suspend=suspend))
        held = cache.get("TraderPool", ("default", "quants"))
        assert held is not None
        assert isinstance(held.resource, TraderPool)
        assert held.problem
        seen.append(held.resource)
    assert [pool.spec.suspend for pool in seen] == [False, True, True, True, False]
    assert seen[1] is seen[2], "no change is none"


def test_of_what_never_could_be_read_it_is_heard_whether_it_is_suspended() -> None:
    cache = Cache()
    market = {"symbols": ["BTC/USDT"], "interval": "1x"}
    for version, (suspend, is_suspended) in enumerate(((True, True), ("yes", False), (False, False)), start=1):
        cache.put("Trader", trader_body("one", version=version, generation=version, market=market, suspend=suspend))
        held = cache.get("Trader", ("default", "one"))
        assert held is not None
        assert held.resource is None
        assert held.is_suspended == is_suspended
