"""A Trader that changes its pool goes on there with the candles that are its own, as long as they are the same ones."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.planner.planner_fleet import EPOCH_MS, Fleet
from tests.planner.planner_worlds import WALL_MS, World, desired, feed, pool, trader

from chandlery.core.assignment import TraderAssignment
from chandlery.operator.planner import Desired, Plan

A = "default/a"
NAMES = ("left", "right")


def wanted_in(name: str, *, other_feed: bool = False, right: Any = None, **more: Any) -> Desired:
    """A Trader in one of two pools, which have one feed."""
    other: dict[str, Any] = {"feed": {"name": "other"}} if other_feed else {}
    pools = (pool("left"), right or pool("right", **other))
    return desired(feed(), feed("other"), *pools, trader("a", in_pool=name, symbols=("BTC/USDT", "ETH/USDT"), **more))


def told(made: Plan) -> TraderAssignment:
    (one,) = [one for each in made.pools.values() for worker in each.workers.values() for one in worker.traders]
    return one


def test_in_another_pool_of_the_same_feed_it_owns_what_it_owned() -> None:
    world = World()
    before = told(world.step(wanted_in("left")))
    world.now_ms += 60_000
    moved = world.step(wanted_in("right"))
    (after,) = moved.pools["default", "right"].workers["right-0"].traders
    assert moved.pools["default", "left"].workers["left-0"].traders == []
    assert (after.since_ms, after.incarnation, after.mode) == (before.since_ms, before.incarnation + 1, "active")
    world.now_ms += 60_000
    assert told(world.step(wanted_in("left"))).since_ms == before.since_ms, "and back"


def test_the_wait_for_room_in_its_new_pool_takes_no_candle_from_it() -> None:
    world = World()
    before = told(world.step(wanted_in("left")))
    full = pool("right", per_worker=1)
    there = trader("there", in_pool="right")
    crowded = wanted_in("right", right=full)
    crowded = desired(*crowded.feeds.values(), *crowded.pools.values(), *crowded.traders.values(), there)
    world.step(desired(feed(), feed("other"), pool("left"), full, trader("a", in_pool="left", symbols=("BTC/USDT", "ETH/USDT")), there))  # fmt: skip
    assert world.step(crowded).verdicts[A].reason == "PoolFull"
    world.now_ms += 60_000
    assert told(world.step(wanted_in("right", right=full))).since_ms == before.since_ms


def test_of_a_pool_that_got_another_feed_the_one_it_has_now_counts() -> None:
    world = World()
    before = told(world.step(wanted_in("left")))
    moved = [pool(name, feed={"name": "other"}) for name in NAMES]
    mine: dict[str, Any] = {"symbols": ("BTC/USDT", "ETH/USDT")}
    world.step(desired(feed(), feed("other"), *moved, trader("a", in_pool="left", **mine)))
    world.now_ms += 60_000
    assert told(world.step(desired(feed(), feed("other"), *moved, trader("a", in_pool="right", **mine)))) == (
        msgspec.structs.replace(before, incarnation=before.incarnation + 1)
    )


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"other_feed": True}, "another feed has candles and signals of its own"),
        ({"parameters": {"fast": 3}}, "of another version the same candles' signals have other ids"),
        ({"metadata": {"uid": "another"}}, "another Trader of the name never owned them"),
    ],
)
def test_what_can_not_be_told_apart_from_before_begins_anew(change: dict[str, Any], why: str) -> None:
    world = World()
    world.step(wanted_in("left", **({"other_feed": True} if "other_feed" in change else {})))
    world.now_ms += 60_000
    assert told(world.step(wanted_in("right", **change))).since_ms == WALL_MS + world.now_ms, why


def test_what_closes_while_it_is_not_allowed_is_not_its_own_in_another_pool_either() -> None:
    world = World()
    everyone: dict[str, Any] = {"allowedTraders": {"namespaces": {"from": "All"}}}

    def guest(name: str, **left: Any) -> Desired:
        mine = trader("a", namespace="guests", pool={"name": name, "namespace": "default"})
        return desired(feed(), pool("left", **left), pool("right", **everyone), mine)

    world.step(guest("left", **everyone))
    assert world.step(guest("left")).verdicts["guests/a"].reason == "NotAllowed"
    world.now_ms += 60_000
    assert told(world.step(guest("right"))).since_ms == WALL_MS + world.now_ms


def test_one_that_was_suspended_owns_nothing_from_before_in_its_new_pool() -> None:
    world = World()
    world.step(wanted_in("left"))
    world.step(wanted_in("left", suspend=True))
    world.now_ms += 60_000
    assert told(world.step(wanted_in("right"))).since_ms == WALL_MS + world.now_ms


@pytest.mark.parametrize("waits", ["full", "gone"])
def test_sent_back_from_a_pool_that_it_never_ran_in_it_owns_what_it_owned(waits: str) -> None:
    world = World()
    full = pool("right", per_worker=1)
    mine: dict[str, Any] = {"symbols": ("BTC/USDT", "ETH/USDT")}
    there = trader("there", in_pool="right")

    def wanted(name: str) -> Desired:
        return desired(feed(), pool("left"), full, there, trader("a", in_pool=name, **mine))

    world.step(wanted("left"))
    (before,) = world.workers["default", "left"]["left-0"].assignment.traders
    away = world.step(wanted("right" if waits == "full" else "nowhere")).verdicts[A]
    assert (away.worker, away.reason) == (None, "PoolFull" if waits == "full" else "UnknownPool")
    world.now_ms += 60_000
    world.step(wanted("left"))
    (after,) = world.workers["default", "left"]["left-0"].assignment.traders
    assert (after.since_ms, after.incarnation) == (before.since_ms, before.incarnation + 1)
    world.now_ms += 60_000
    roomy = desired(feed(), pool("left"), pool("right"), there, trader("a", in_pool="right", **mine))
    moved = [one for one in world.step(roomy).pools["default", "right"].workers["right-0"].traders if one.trader == A]
    assert [one.since_ms for one in moved] == [before.since_ms], "and on, once there is room"


def test_what_closes_while_its_pool_is_not_there_is_not_its_own() -> None:
    """It never left: nothing says that what closed meanwhile shall still be decided."""
    world = World()
    world.step(wanted_in("left"))
    gone = wanted_in("left")
    world.step(desired(*gone.feeds.values(), pool("right"), *gone.traders.values()))
    world.now_ms += 60_000
    assert told(world.step(wanted_in("left"))).since_ms == WALL_MS + world.now_ms


steps = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from(["turn", "late", "down"]), st.integers(1, 5)),
    min_size=1,
    max_size=10,
)


@settings(max_examples=80, deadline=None)
@given(steps)
def test_no_closed_candle_is_missed_however_often_it_changes_its_pool(story: list[tuple[str, str, int]]) -> None:
    """Decided again is what closed before, with the same ids: the feed drops those that are on the topic."""
    fleet = Fleet()
    fleet.settle(wanted_in("left"), 8)
    for name, what, turns in story:
        wanted = wanted_in(name)
        for _ in range(turns):
            if what == "down":
                for key in list(fleet.members)[:1]:
                    fleet.lose_pod(key)
            (fleet.late_turn if what == "late" else fleet.turn)(wanted)
    last = story[-1][0]
    fleet.settle(wanted_in(last), 8)
    assert list(fleet.missed()) == []
    ((worker, one),) = fleet.entries(A)
    assert worker == f"{last}-0"
    assert one.since_ms < EPOCH_MS + 1_000, "since the first moment"
    for symbol in ("BTC/USDT", "ETH/USDT"):
        assert (A, symbol, fleet.closed - 1) in fleet.decided
