"""Since when candles are a Trader's to decide: said once, and never a reason of its own to write an assignment."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.planner.planner_fleet import EPOCH_MS, STEP_MS, Fleet, Process
from tests.planner.planner_worlds import WALL_MS, World, desired, feed, pool, trader

from chandlery.core.assignment import Assignment, TraderAssignment, content_hash
from chandlery.operator.planner import Current, Delays, Desired, Plan, WorkerNow, plan
from chandlery.operator.planner_since import since_of
from chandlery.operator.planner_standing import Entry, content_digest

POOL = ("default", "pool")
A = "default/a"


def wanted_of(*, fast: int = 2, workers: int = 1, **more: Any) -> Desired:
    some_pool = pool(least=workers, most=workers)
    return desired(feed(), some_pool, trader("a", parameters={"fast": fast}, **more))


def told(result: Plan) -> list[TraderAssignment]:
    return [one for each in result.pools[POOL].workers.values() for one in each.traders]


def test_a_new_trader_is_told_once_since_when_candles_are_its_own() -> None:
    world = World()
    first = world.step(wanted_of())
    (one,) = told(first)
    assert one.since_ms == WALL_MS + world.now_ms
    for _ in range(5):
        world.now_ms += 3_600_000
        again = world.step(wanted_of())
        assert again.pools[POOL].workers["pool-0"] is first.pools[POOL].workers["pool-0"]


def test_one_that_is_suspended_owns_no_candle_and_owns_those_since_it_was_resumed() -> None:
    world = World()
    world.step(wanted_of())
    (asleep,) = told(world.step(wanted_of(suspend=True)))
    assert (asleep.mode, asleep.since_ms) == ("suspended", 0)
    world.now_ms += 60_000
    (awake,) = told(world.step(wanted_of()))
    assert (awake.mode, awake.since_ms) == ("active", WALL_MS + world.now_ms)


def test_a_generation_that_is_only_told_moves_nothing() -> None:
    world = World()
    (before,) = told(world.step(wanted_of(metadata={"generation": 1})))
    world.now_ms += 60_000
    (after,) = told(world.step(wanted_of(metadata={"generation": 2})))
    assert (after.generation, after.incarnation, after.since_ms) == (2, before.incarnation, before.since_ms)


def test_an_assignment_that_says_nothing_of_it_is_not_written_again_for_that() -> None:
    world = World()
    wanted = wanted_of()
    old = plan(wanted, world.current, now_ms=world.now_ms)  # by a version that knew of no wall clock
    (one,) = told(old)
    assert one.since_ms == 0
    world.carry_out(old)
    after = world.step(wanted)
    assert after.pools[POOL].workers["pool-0"] is old.pools[POOL].workers["pool-0"]


def test_one_that_was_assigned_without_is_told_with_the_next_write_and_keeps_it() -> None:
    world = World()
    world.carry_out(plan(wanted_of(), world.current, now_ms=world.now_ms))
    world.now_ms += 60_000
    (one,) = told(world.step(wanted_of(metadata={"generation": 2})))
    assert (one.incarnation, one.since_ms) == (1, WALL_MS + world.now_ms)
    world.now_ms += 60_000
    (again,) = told(world.step(wanted_of(metadata={"generation": 3})))
    assert again.since_ms == one.since_ms


def test_one_that_took_over_before_is_told_its_bound() -> None:
    one = TraderAssignment(trader=A, uid="u", strategy="s", symbols=["BTC/USDT"], interval="1s", from_ms=7_000)
    before = Entry(POOL, "pool-0", one, content_digest(one))
    after = msgspec.structs.replace(one, from_ms=0)
    assert since_of(after, [before], WALL_MS) == 7_000


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("when", range(6))
def test_a_pod_that_is_replaced_during_a_rollout_leaves_no_candle_out(when: int, workers: int) -> None:
    fleet = Fleet()
    fleet.settle(wanted_of(workers=workers), 8)
    new = wanted_of(workers=workers, fast=3)
    for _ in range(when):
        fleet.turn(new)
    fleet.lose_pod((POOL, fleet.entries(A)[0][0]), reads=5)
    fleet.close(4)
    for _ in range(40):
        fleet.turn(new)
    ((_, last),) = fleet.entries(A)
    assert last.incarnation == 2
    assert list(fleet.missed()) == []


def test_a_rollout_waits_a_minute_at_most_for_one_that_finds_nothing_in_its_new_pod() -> None:
    fleet = Fleet()
    fleet.settle(wanted_of(), 8)
    new = wanted_of(fast=3)
    fleet.turn(new)
    fleet.lose_pod((POOL, "pool-0"), reads=1_000)
    fleet.members[POOL, "pool-0"].processes[A, 2] = Process(fleet.entries(A)[1][1])
    for _ in range(10):
        made = fleet.turn(new)
    assert len(fleet.entries(A)) == 2
    assert made.plan_again_ms == fleet.members[POOL, "pool-0"].since_ms + Delays().coming_up_ms
    fleet.now_ms = made.plan_again_ms
    for _ in range(10):
        fleet.turn(new)
    assert [(spec.mode, spec.until_ms) for _, spec in fleet.entries(A)] == [("active", 0), ("active", None)]


def test_who_takes_over_owns_candles_from_its_bound_on_also_when_that_is_taken_away() -> None:
    fleet = Fleet()
    fleet.settle(wanted_of(), 8)
    first_ms = fleet.entries(A)[0][1].since_ms
    assert first_ms == EPOCH_MS + STEP_MS // 2
    new = wanted_of(fast=3)
    bounds = set()
    for _ in range(40):
        fleet.turn(new)
        for _, spec in fleet.entries(A):
            if spec.incarnation == 1:
                assert spec.since_ms == first_ms
            elif spec.mode == "standby":
                assert spec.since_ms == 0
            else:
                bounds |= {spec.from_ms} - {0}
                assert {spec.since_ms} == bounds
    ((_, last),) = fleet.entries(A)
    assert (last.from_ms, last.incarnation) == (0, 2)


def test_a_trader_moved_by_who_never_heard_of_it_owns_what_it_owned() -> None:
    world = World()
    wanted = wanted_of(workers=2)
    (before,) = told(world.step(wanted))
    # Another operator, and the worker is gone before it has said how far it has come.
    world.ready(POOL, "pool-0", False)
    lost = {name: WorkerNow(one.assignment, one.ready, one.since_ms) for name, one in world.workers[POOL].items()}
    world.now_ms += Delays().unready_ms
    result = plan(wanted, Current({POOL: lost}), now_ms=world.now_ms, wall_ms=WALL_MS + world.now_ms)
    (after,) = told(result)
    assert (after.incarnation, after.from_ms, after.since_ms) == (before.incarnation + 1, 0, before.since_ms)


def test_another_version_in_a_lost_one_s_place_owns_what_closes_from_now_on() -> None:
    world = World()
    world.step(wanted_of(workers=2))
    world.ready(POOL, "pool-0", False)
    lost = {name: WorkerNow(one.assignment, one.ready, one.since_ms) for name, one in world.workers[POOL].items()}
    world.now_ms += Delays().unready_ms
    wall_ms = WALL_MS + world.now_ms
    result = plan(wanted_of(fast=3, workers=2), Current({POOL: lost}), now_ms=world.now_ms, wall_ms=wall_ms)
    (after,) = told(result)
    assert (after.from_ms, after.since_ms) == (0, wall_ms), "the same candles would have other ids"


def test_neither_digest_nor_hash_tells_of_it() -> None:
    one = TraderAssignment(trader=A, uid="u", strategy="s", symbols=["BTC/USDT"], interval="1s")
    other = msgspec.structs.replace(one, since_ms=7)
    assert content_digest(one) == content_digest(other)
    assert content_hash([one]) == content_hash([other]), "who doesn't know the field takes the rest"


steps = st.lists(
    st.tuples(
        st.integers(1, 3),  # a parameter's value: a change rolls out
        st.booleans(),  # suspended
        st.sampled_from(["turn", "late", "forget", "lose"]),
        st.integers(1, 6),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(steps)
def test_whatever_happens_an_active_incarnation_keeps_what_it_was_told(story: list[tuple[int, bool, str, int]]) -> None:
    """Fleet.plan holds beside it that planning its own result again, later by the wall clock, writes nothing."""
    fleet = Fleet()
    known: dict[int, int] = {}
    for fast, suspend, what, turns in story:
        wanted = wanted_of(fast=fast, workers=2, suspend=suspend)
        if what == "forget":
            fleet.forget()
        for _ in range(turns):
            if what == "lose":
                for key in list(fleet.members)[:1]:
                    fleet.down(key)
                fleet.now_ms += 10_000
            before = {name: one.wanted for name, one in fleet.members.items()}
            (fleet.late_turn if what == "late" else fleet.turn)(wanted)
            _check(fleet, known)
            for name, one in fleet.members.items():
                _is_no_write_of_its_own(before.get(name), one.wanted)


def _check(fleet: Fleet, known: dict[int, int]) -> None:
    for _, spec in fleet.entries(A):
        if spec.mode != "active":
            assert spec.since_ms == 0
            continue
        assert known.setdefault(spec.incarnation, spec.since_ms) == spec.since_ms
        assert 0 < spec.since_ms <= fleet.wall_ms
        if spec.from_ms:
            assert spec.since_ms == spec.from_ms


def _is_no_write_of_its_own(before: Assignment | None, after: Assignment) -> None:
    if before is None or before is after:
        return
    bare = [[msgspec.structs.replace(one, since_ms=0) for one in each.traders] for each in (before, after)]
    assert bare[0] != bare[1]
