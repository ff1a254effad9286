"""A Trader's way from one version or worker to the next: each candle decided once, the old one running until then."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.planner.planner_fleet import BROKEN, EPOCH_MS, STEP_MS, Fleet
from tests.planner.planner_worlds import desired, feed, pool, trader

from chandlery.core.assignment import TraderAssignment, surge_of
from chandlery.core.manifests import Problem
from chandlery.core.resources import APPROVE_ANNOTATION, Trader, TraderPool
from chandlery.operator.planner import Delays, Desired, Plan

POOL = ("default", "pool")
A = "default/a"
TWO = ("BTC/USDT", "ETH/USDT")


def edited(fast: int, name: str = "a", **more: Any) -> Trader:
    return trader(name, parameters={"fast": fast}, symbols=TWO, **more)


def running(wanted: Desired, turns: int = 8) -> Fleet:
    fleet = Fleet()
    fleet.settle(wanted, turns)
    return fleet


def sound(fleet: Fleet) -> None:
    assert list(fleet.doubled()) == []
    assert list(fleet.missed()) == []


def wanted_of(*traders: Trader, in_pool: TraderPool | None = None, **more: Any) -> Desired:
    return desired(feed(), in_pool or pool(), *traders, **more)


def modes(fleet: Fleet, name: str = A) -> list[tuple[str, int | None]]:
    return [(spec.mode, spec.until_ms) for _, spec in fleet.entries(name)]


def test_a_changed_trader_is_handed_over_at_a_candle_in_four_steps() -> None:
    fleet = running(wanted_of(edited(2)))
    new = wanted_of(edited(3))
    key = (POOL, "pool-0")

    made = fleet.plan(new)
    assert modes(fleet) == [("active", None), ("standby", None)]
    rollout = made.verdicts[A].rollout
    assert rollout is not None
    assert (rollout.phase, rollout.generation, made.verdicts[A].generation) == ("Warming", 2, 1)
    assert made.pools[POOL].rolling == 1

    for _ in range(4):
        fleet.hear(key)
        fleet.advance(key)
        fleet.close()
        fleet.decide(key)
        fleet.tell(key)
    last_ms = EPOCH_MS + (fleet.closed - 1) * STEP_MS
    fleet.plan(new)
    assert modes(fleet) == [("active", last_ms + STEP_MS), ("standby", None)]

    # It has gone on meanwhile: the bound moves after what it has decided, and the successor begins there.
    fleet.close(3)
    fleet.decide(key, symbol="BTC/USDT")
    assert modes(fleet)[1][0] == "standby"
    fleet.plan(new)
    assert modes(fleet)[1][0] == "standby", "the bound isn't acknowledged yet"
    fleet.hear(key)
    fleet.plan(new)
    begins_ms = last_ms + 4 * STEP_MS
    assert modes(fleet) == [("active", begins_ms), ("active", None)]
    assert fleet.entries(A)[1][1].from_ms == begins_ms

    fleet.hear(key)
    fleet.decide(key)
    fleet.tell(key)
    made = fleet.plan(new)
    assert modes(fleet) == [("active", None)]
    assert (made.verdicts[A].generation, made.verdicts[A].rollout) == (2, None)
    fleet.settle(new, 3)
    sound(fleet)


def test_a_trader_that_has_not_decided_anything_yet_is_given_its_first_candle_before_it_is_told_where_to_end() -> None:
    fleet = Fleet()
    key = (POOL, "pool-0")
    new = wanted_of(edited(3))
    for wanted in (wanted_of(edited(2)), new):
        for _ in range(6):
            fleet.plan(wanted)
            fleet.up(key)
            fleet.hear(key)
            fleet.advance(key)
    assert modes(fleet) == [("active", None), ("standby", None)], "no candle has closed yet"
    fleet.settle(new, 5)
    assert modes(fleet) == [("active", None)]
    sound(fleet)
    first = fleet.decided[A, "BTC/USDT", 0]
    assert first == [1]


def test_a_handover_that_is_through_costs_one_more_write_and_none_after() -> None:
    fleet = running(wanted_of(edited(2)))
    new = wanted_of(edited(3))
    key = (POOL, "pool-0")
    while len(fleet.entries(A)) == 1 or modes(fleet)[-1][0] == "standby":
        fleet.turn(new)
    while len(fleet.entries(A)) == 2:
        fleet.turn(new)
    through = fleet.members[key].wanted.sequence
    fleet.settle(new, 10)
    assert fleet.members[key].wanted.sequence <= through + 1
    ((_, spec),) = fleet.entries(A)
    assert (spec.incarnation, spec.from_ms) == (2, 0)
    sound(fleet)


def test_a_handover_waits_for_no_other_trader_of_the_worker() -> None:
    fleet = running(wanted_of(edited(2)))
    fleet.settle(wanted_of(edited(3)), 3)
    new = wanted_of(edited(3), edited(2, "b"))
    key = (POOL, "pool-0")
    for _ in range(8):
        fleet.plan(new)
        fleet.hear(key)
        fleet.close()
        fleet.decide(key)
        fleet.tell(key)
        fleet.members[key].processes["default/b", 1].state = "Init"  # it never gets through its start
        for name, process in fleet.members[key].processes.items():
            if name != ("default/b", 1) and process.state in ("Pending", "Init", "Ready"):
                process.state = "Warm"
        fleet.tell(key)
        status = fleet.members[key].status
        assert status is not None
        assert status.sequence == 0, "not acknowledged as a whole"
    assert modes(fleet) == [("active", None)]
    assert fleet.entries(A)[0][1].parameters == {"fast": 3}
    sound(fleet)


def test_a_trader_that_is_not_running_is_replaced_at_once() -> None:
    fleet = running(wanted_of(edited(BROKEN)))
    fleet.plan(wanted_of(edited(3)))
    ((_, spec),) = fleet.entries(A)
    assert (spec.parameters, spec.incarnation, spec.mode) == ({"fast": 3}, 2, "active")


def test_suspending_and_resuming_act_at_once_also_while_a_successor_stands_by() -> None:
    fleet = running(wanted_of(edited(2)))
    fleet.plan(wanted_of(edited(3)))
    fleet.plan(wanted_of(edited(3, suspend=True)))
    assert modes(fleet) == [("suspended", None)]
    fleet.settle(wanted_of(edited(3, suspend=True)), 3)
    fleet.plan(wanted_of(edited(3)))
    assert modes(fleet) == [("active", None)]


def test_twenty_traders_edited_at_once_roll_in_turns() -> None:
    full = pool(most=1, per_worker=20)
    names = [f"t{number:02}" for number in range(20)]
    fleet = running(wanted_of(*(edited(2, name) for name in names), in_pool=full))
    new = wanted_of(*(edited(3, name) for name in names), in_pool=full)
    made = fleet.plan(new)
    phases = Counter(one.rollout.phase for one in made.verdicts.values() if one.rollout is not None)
    assert phases == {"Warming": surge_of(20), "Waiting": 20 - surge_of(20)}
    waiting = next(one.rollout for one in made.verdicts.values() if one.rollout and one.rollout.phase == "Waiting")
    assert "waits for room to roll out" in waiting.message
    for _ in range(60):
        made = fleet.turn(new)
        beside = Counter(spec.trader for spec in fleet.members[POOL, "pool-0"].wanted.traders)
        assert sum(beside.values()) <= 20 + surge_of(20)
        if all(one.rollout is None for one in made.verdicts.values()):
            break
    assert {one.generation for one in made.verdicts.values()} == {2}
    sound(fleet)


def test_a_successor_that_fails_leaves_the_old_one_running_and_says_so() -> None:
    fleet = running(wanted_of(edited(2)))
    bad = wanted_of(edited(BROKEN))
    made = fleet.settle(bad, 6)
    verdict = made.verdicts[A]
    assert [spec.incarnation for _, spec in fleet.entries(A)] == [1]
    assert (verdict.reason, verdict.generation, verdict.keeps) == ("BadStrategy", 1, True)
    assert verdict.failed is not None
    for words in ("generation 2 failed", "can't be loaded", "generation 1 goes on", "apply"):
        assert words in verdict.message
    incarnations = {incarnation for one in fleet.decided.values() for incarnation in one}
    assert incarnations == {1}
    # What failed isn't tried again and again; another edit is.
    assert fleet.settle(bad, 3).memory.traders[A].incarnation == 2
    made = fleet.settle(wanted_of(edited(4)), 10)
    assert (made.verdicts[A].reason, fleet.entries(A)[0][1].parameters) == ("", {"fast": 4})
    sound(fleet)


@pytest.mark.parametrize("hit", ["pod restarts", "process restarts"])
def test_a_version_that_failed_is_not_tried_again_because_the_old_one_restarts(hit: str) -> None:
    fleet = running(wanted_of(edited(2)))
    bad = wanted_of(edited(BROKEN))
    fleet.settle(bad, 6)
    restart(fleet, hit)
    made = fleet.plan(bad)
    assert (made.verdicts[A].reason, made.verdicts[A].keeps) == ("BadStrategy", True)
    assert [(spec.incarnation, spec.parameters["fast"]) for _, spec in fleet.entries(A)] == [(1, 2)]


@pytest.mark.parametrize("hit", ["pod restarts", "process restarts"])
def test_an_edit_while_the_old_one_restarts_does_not_throw_it_away(hit: str) -> None:
    fleet = running(wanted_of(edited(2)))
    restart(fleet, hit)
    bad = wanted_of(edited(BROKEN))
    fleet.plan(bad)
    assert modes(fleet) == [("active", None), ("standby", None)]
    fleet.settle(bad, 8)
    assert [(spec.incarnation, spec.parameters["fast"]) for _, spec in fleet.entries(A)] == [(1, 2)]
    sound(fleet)


def restart(fleet: Fleet, hit: str) -> None:
    """The pod of a's worker, or a's process, starts again."""
    key = (POOL, "pool-0")
    if hit == "pod restarts":
        fleet.down(key)
        return
    fleet.members[key].processes[A, 1].state = "Init"
    fleet.tell(key)


def test_a_crash_loop_of_the_successor_is_a_failure_and_one_crash_is_none() -> None:
    fleet = running(wanted_of(edited(2)))
    new = wanted_of(edited(3))
    fleet.plan(new)
    key = (POOL, "pool-0")
    fleet.hear(key)
    member = fleet.members[key]
    for attempt, phase in ((1, "Warming"), (3, None)):
        assert member.status is not None
        told = member.status.successors[A]
        told.state, told.attempt, told.last_error = "Backoff", attempt, "ValueError: x"
        made = fleet.plan(new)
        rollout = made.verdicts[A].rollout
        assert (rollout.phase if rollout is not None else None) == phase
    assert "ValueError: x" in made.verdicts[A].message
    assert made.verdicts[A].reason == "CrashLoop"


def test_going_back_removes_the_successor_and_leaves_the_old_incarnation_alone() -> None:
    fleet = running(wanted_of(edited(2)))
    process = fleet.members[POOL, "pool-0"].processes[A, 1]
    for turns in range(1, 6):
        fleet.settle(wanted_of(edited(3)), turns)
        if any(spec.mode == "active" for _, spec in fleet.entries(A)[1:]):
            break
        fleet.settle(wanted_of(edited(2)), 3)
        ((_, spec),) = fleet.entries(A)
        assert (spec.incarnation, spec.until_ms) == (1, None)
        assert fleet.members[POOL, "pool-0"].processes[A, 1] is process
    sound(fleet)


def test_an_edit_replaces_a_successor_that_stands_by_and_waits_for_one_that_takes_over() -> None:
    fleet = running(wanted_of(edited(2)))
    fleet.turn(wanted_of(edited(3)))
    fleet.plan(wanted_of(edited(4)))
    assert [spec.parameters["fast"] for _, spec in fleet.entries(A)] == [2, 4]
    while modes(fleet)[-1][0] == "standby":
        fleet.turn(wanted_of(edited(4)))
    fleet.plan(wanted_of(edited(5)))
    assert [spec.parameters["fast"] for _, spec in fleet.entries(A)] in ([2, 4], [4, 5])
    fleet.settle(wanted_of(edited(5)), 12)
    assert [spec.parameters["fast"] for _, spec in fleet.entries(A)] == [5]
    sound(fleet)


def test_a_successor_waits_for_its_history_however_long_while_the_old_one_decides() -> None:
    fleet = running(wanted_of(edited(2)))
    new = wanted_of(edited(3))
    key = (POOL, "pool-0")
    fleet.plan(new)
    fleet.hear(key)
    fleet.advance(key)
    fleet.advance(key)  # Ready, not warm
    for _ in range(50):
        fleet.now_ms += 3_600_000
        fleet.close()
        fleet.decide(key)
        fleet.tell(key)
        rollout = fleet.plan(new).verdicts[A].rollout
        assert rollout is not None
        assert rollout.phase == "Warming"
    fleet.settle(new, 8)
    sound(fleet)
    assert [spec.incarnation for _, spec in fleet.entries(A)] == [2]


def test_an_old_one_that_never_retires_goes_after_a_while() -> None:
    fleet = running(wanted_of(edited(2)))
    new = wanted_of(edited(3))
    key = (POOL, "pool-0")
    while modes(fleet)[-1] != ("active", None) or len(modes(fleet)) == 1:
        fleet.plan(new)
        fleet.hear(key)
        fleet.advance(key)
        fleet.close()
        fleet.decide(key, symbol="BTC/USDT")  # the other market is silent
        fleet.tell(key)
    made = fleet.plan(new)
    assert made.plan_again_ms == fleet.now_ms + Delays().retire_ms
    fleet.now_ms += Delays().retire_ms - 1
    fleet.plan(new)
    assert len(modes(fleet)) == 2
    fleet.now_ms += 1
    fleet.plan(new)
    assert modes(fleet) == [("active", None)]
    assert list(fleet.doubled()) == []


def test_a_trader_whose_interval_changes_decides_the_candle_in_which_it_takes_over() -> None:
    fleet = running(wanted_of(edited(2)))
    new = wanted_of(edited(2, interval="1h"))
    while len(fleet.entries(A)) < 2 or fleet.entries(A)[1][1].mode == "standby":
        fleet.turn(new)
    old, after = (spec for _, spec in fleet.entries(A))
    assert old.until_ms is not None
    assert after.from_ms == old.until_ms // 3_600_000 * 3_600_000


def test_a_manual_rollout_waits_for_its_approval_and_is_handed_over_then() -> None:
    manual = {"rollout": "Manual"}
    fleet = running(wanted_of(edited(2, **manual)))
    made = fleet.settle(wanted_of(edited(3, **manual)), 4)
    assert made.verdicts[A].reason == "AwaitingApproval"
    assert modes(fleet) == [("active", None)]
    approved = wanted_of(edited(3, metadata={"annotations": {APPROVE_ANNOTATION: "2"}}, **manual))
    fleet.plan(approved)
    assert modes(fleet) == [("active", None), ("standby", None)]
    fleet.settle(approved, 10)
    assert [spec.parameters["fast"] for _, spec in fleet.entries(A)] == [3]
    sound(fleet)


@pytest.mark.parametrize("reason", ["BadParameter", "UnknownStrategy", "BadSource", "UnknownSymbol", "UnknownTier"])
def test_a_version_that_is_refused_before_it_starts_leaves_the_old_one_running(reason: str) -> None:
    fleet = running(wanted_of(edited(2)))
    problem = Problem("f", 1, 1, "Trader", "default", "a", "spec", "no good", reason)  # type: ignore[arg-type]
    made = fleet.settle(wanted_of(edited(3), problems={("default", "a"): [problem]}), 3)
    assert (made.verdicts[A].reason, made.verdicts[A].keeps) == (reason, True)
    assert [(spec.incarnation, spec.parameters["fast"]) for _, spec in fleet.entries(A)] == [(1, 2)]


def test_a_trader_that_loses_its_permission_stops() -> None:
    own = trader("a", "desk", symbols=TWO, pool={"name": "pool", "namespace": "default"})
    chosen = {"namespaces": {"from": "All"}}
    fleet = running(desired(feed(), pool(allowedTraders=chosen), own))
    made = fleet.plan(desired(feed(), pool(), own))
    assert (made.verdicts["desk/a"].reason, fleet.entries("desk/a")) == ("NotAllowed", [])


def test_where_there_is_no_room_beside_the_new_version_takes_the_place_of_the_old_one_after_a_candle() -> None:
    tight = pool(most=1, series=2)
    fleet = running(wanted_of(edited(2), in_pool=tight))
    new = wanted_of(trader("a", symbols=["SOL/USDT", "BTC/USDT"]), in_pool=tight)
    for _ in range(8):
        made = fleet.turn(new)
        assert len(fleet.entries(A)) == 1
    assert made.verdicts[A].rollout is None
    ((_, spec),) = fleet.entries(A)
    assert (spec.symbols, spec.incarnation) == (["SOL/USDT", "BTC/USDT"], 2)
    sound(fleet)


def test_a_version_that_fits_nowhere_leaves_the_old_one_running_and_names_the_field_to_raise() -> None:
    tight = pool(most=1, series=2)
    fleet = running(wanted_of(edited(2), in_pool=tight))
    new = wanted_of(trader("a", symbols=["SOL/USDT", "ADA/USDT", "XRP/USDT"]), in_pool=tight)
    made = fleet.settle(new, 4)
    assert (made.verdicts[A].reason, made.verdicts[A].keeps) == ("PoolFull", True)
    assert "spec.segment.series" in made.verdicts[A].message
    assert [spec.incarnation for _, spec in fleet.entries(A)] == [1]


@pytest.mark.parametrize("hit", ["pod restarts", "process restarts"])
def test_a_version_that_fits_nowhere_leaves_the_old_one_its_place_while_that_restarts(hit: str) -> None:
    tight = pool(most=1, series=2)
    fleet = running(wanted_of(edited(2), in_pool=tight))
    new = wanted_of(trader("a", symbols=["SOL/USDT", "ADA/USDT", "XRP/USDT"]), in_pool=tight)
    fleet.settle(new, 4)
    restart(fleet, hit)
    made = fleet.plan(new)
    assert (made.verdicts[A].reason, made.verdicts[A].keeps) == ("PoolFull", True)
    assert [spec.incarnation for _, spec in fleet.entries(A)] == [1]


# Moves ----------------------------------------------------------------------------------------------------------


def test_a_worker_that_is_not_needed_is_emptied_by_handovers_before_it_goes() -> None:
    small = pool(most=2, per_worker=2)
    three = [edited(2, name) for name in ("a", "b", "c")]
    fleet = running(wanted_of(*three, in_pool=small))
    left = wanted_of(three[0], three[2], in_pool=small)
    fleet.settle(left, 2)
    fleet.now_ms += Delays().shrink_ms
    made = fleet.plan(left)
    rollout = made.verdicts["default/c"].rollout
    assert rollout is not None
    assert (rollout.is_move, rollout.worker, made.verdicts["default/c"].worker) == (True, "pool-0", "pool-1")
    made = fleet.settle(left, 12)
    assert list(made.pools[POOL].workers) == ["pool-0"]
    assert [worker for worker, _ in fleet.entries("default/c")] == ["pool-0"]
    sound(fleet)


def test_a_changed_pool_rolls_its_workers_one_at_a_time_and_moves_their_traders_first() -> None:
    roomy = pool(least=2, most=3, spare=1, per_worker=2)
    names = ("a", "b", "c", "d")
    wanted = wanted_of(*(edited(2, name) for name in names), in_pool=roomy)
    fleet = running(wanted)
    for member in fleet.members.values():
        member.outdated = True
    rolled: list[str] = []
    for _ in range(40):
        made = fleet.turn(wanted)
        to_roll = made.pools[POOL].to_roll
        assert len(to_roll) <= 1
        for name in to_roll:
            assert not [spec for spec in made.pools[POOL].workers[name].traders if spec.until_ms is not None]
        rolled.extend(to_roll)
    assert sorted(rolled) == ["pool-0", "pool-1", "pool-2"]
    assert rolled[0] == "pool-2", "the spare one first: it takes in the others"
    assert all(one.rollout is None for one in made.verdicts.values())
    sound(fleet)


def test_what_does_not_fit_elsewhere_restarts_with_its_pod() -> None:
    full = pool(least=2, most=2, per_worker=2)
    wanted = wanted_of(*(edited(2, name) for name in ("a", "b", "c")), in_pool=full)
    fleet = running(wanted)
    fleet.members[POOL, "pool-0"].outdated = True
    fleet.settle(wanted, 12)
    homes = {name: [worker for worker, _ in fleet.entries(f"default/{name}")] for name in "abc"}
    assert not fleet.members[POOL, "pool-0"].outdated
    assert homes == {"a": ["pool-1"], "b": ["pool-0"], "c": ["pool-1"]}, "nothing moves back"


def test_a_template_in_which_a_trader_fails_is_rolled_no_further_and_tried_again_later() -> None:
    wanted = wanted_of(edited(2), in_pool=pool(least=2, most=2, per_worker=2))
    fleet = running(wanted)
    fleet.members[POOL, "pool-0"].outdated = True
    fleet.broken_on.add("pool-1")  # its template is the newest
    for _ in range(10):
        made = fleet.turn(wanted)
        assert made.pools[POOL].to_roll == ()
    assert [(worker, spec.incarnation) for worker, spec in fleet.entries(A)] == [("pool-0", 1)]
    verdict = made.verdicts[A]
    assert (verdict.reason, verdict.failed) == ("", None), "the version that runs is as asked"
    assert verdict.rollout is not None
    assert "its move failed" in verdict.rollout.message
    assert made.plan_again_ms is not None
    fleet.broken_on.clear()
    fleet.now_ms = made.plan_again_ms
    made = fleet.settle(wanted, 12)
    assert [worker for worker, _ in fleet.entries(A)] == ["pool-1"]
    assert not fleet.members[POOL, "pool-0"].outdated
    sound(fleet)


def test_a_failed_version_is_not_tried_again_because_its_worker_is_rolled() -> None:
    wanted = wanted_of(edited(BROKEN), in_pool=pool(least=2, most=2, per_worker=2))
    fleet = running(wanted_of(edited(2), in_pool=pool(least=2, most=2, per_worker=2)))
    fleet.settle(wanted, 6)
    fleet.members[POOL, "pool-0"].outdated = True
    for _ in range(12):
        fleet.turn(wanted)
        assert BROKEN not in [spec.parameters["fast"] for _, spec in fleet.entries(A)]
    ((worker, spec),) = fleet.entries(A)
    assert (worker, spec.parameters) == ("pool-1", {"fast": 2})
    sound(fleet)


def test_nothing_is_rolled_while_another_worker_is_not_ready() -> None:
    wanted = wanted_of(edited(2), in_pool=pool(least=2, most=2, per_worker=2))
    fleet = running(wanted)
    for member in fleet.members.values():
        member.outdated = True
    fleet.down((POOL, "pool-1"))
    made = fleet.plan(wanted)
    assert (made.pools[POOL].to_roll, made.verdicts[A].rollout) == ((), None)


def test_what_a_lost_worker_had_goes_on_elsewhere_with_its_last_candle() -> None:
    wanted = wanted_of(edited(2), in_pool=pool(least=2, most=2, per_worker=2))
    fleet = running(wanted)
    lost = (POOL, "pool-0")
    status = fleet.members[lost].status
    assert status is not None
    last_ms = status.traders[A].last_open_time_ms
    fleet.members[lost].ready, fleet.members[lost].since_ms = False, fleet.now_ms
    fleet.close(30)
    fleet.now_ms += Delays().unready_ms
    fleet.plan(wanted)
    ((worker, spec),) = fleet.entries(A)
    assert (worker, spec.mode, spec.from_ms) == ("pool-1", "active", last_ms), "its signals may have died with the pod"
    other = (POOL, "pool-1")
    for _ in range(4):
        fleet.hear(other)
        fleet.advance(other)
        fleet.decide(other)
    assert {candle for _, _, candle in fleet.doubled()} == {(last_ms - EPOCH_MS) // STEP_MS}
    assert list(fleet.missed()) == []


def test_a_successor_takes_over_at_once_when_the_worker_of_the_old_one_is_lost() -> None:
    wanted = wanted_of(edited(2), in_pool=pool(least=2, most=2, per_worker=2))
    fleet = running(wanted)
    fleet.members[POOL, "pool-0"].outdated = True
    fleet.plan(wanted)
    assert [(worker, spec.mode) for worker, spec in fleet.entries(A)] == [("pool-0", "active"), ("pool-1", "standby")]
    fleet.members[POOL, "pool-0"].ready, fleet.members[POOL, "pool-0"].since_ms = False, fleet.now_ms
    fleet.now_ms += Delays().unready_ms
    fleet.plan(wanted)
    ((worker, spec),) = fleet.entries(A)
    assert (worker, spec.mode, spec.incarnation) == ("pool-1", "active", 2)
    assert spec.from_ms == EPOCH_MS + (fleet.closed - 1) * STEP_MS


# Whatever happens -----------------------------------------------------------------------------------------------

NAMES = ("a", "b", "c", "d")
actions = st.lists(
    st.one_of(
        st.tuples(st.just("edit"), st.sampled_from(NAMES), st.sampled_from([2, 3, 4, BROKEN])),
        st.tuples(st.just("plan"), st.just(""), st.just(0)),
        st.tuples(
            st.sampled_from(["hear", "advance", "decide", "tell", "up"]), st.just(""), st.integers(0, 3)
        ),
        st.tuples(st.just("close"), st.just(""), st.integers(1, 4)),
        st.tuples(st.just("outdated"), st.just(""), st.integers(0, 3)),
        st.tuples(st.just("remove"), st.sampled_from(NAMES), st.just(0)),
        st.tuples(st.just("forget"), st.just(""), st.just(0)),
        st.tuples(st.just("wait"), st.just(""), st.integers(1, 400_000)),
        st.tuples(st.sampled_from(["turn", "late"]), st.just(""), st.just(0)),
    ),
    max_size=40,
)  # fmt: skip


@st.composite
def pools(draw: st.DrawFn) -> TraderPool:
    most = draw(st.integers(1, 3))
    return pool(
        least=draw(st.integers(0, most)),
        most=most,
        spare=draw(st.integers(0, 1)),
        per_worker=draw(st.sampled_from([1, 2, 4])),
        series=draw(st.sampled_from([2, 512])),
    )


def check(made: Plan, in_pool: TraderPool) -> None:
    """What holds of every plan."""
    found: dict[str, list[TraderAssignment]] = {}
    for pool_plan in made.pools.values():
        for assignment in pool_plan.workers.values():
            per_worker = in_pool.spec.traders_per_worker
            assert len(assignment.traders) <= per_worker + surge_of(per_worker)
            assert len({each for one in assignment.traders for each in one.series()}) <= in_pool.spec.segment.series
            beside = Counter(one.trader for one in assignment.traders)
            assert sum(1 for count in beside.values() if count > 1) <= surge_of(per_worker)
            for one in assignment.traders:
                found.setdefault(one.trader, []).append(one)
    for name, several in found.items():
        several.sort(key=lambda one: one.incarnation)
        assert len(several) <= 2
        assert several[0].mode != "standby", "nobody decides"
        if len(several) == 2 and several[1].mode == "active":
            until_ms = several[0].until_ms
            assert until_ms is not None
            assert several[1].from_ms >= until_ms or not until_ms, "two may decide one candle"
        assert made.verdicts[name].incarnation == several[0].incarnation


class Story:
    """A pool whose Traders, workers and operator do what is drawn."""

    def __init__(self, in_pool: TraderPool) -> None:
        self.pool = in_pool
        self.fleet = Fleet()
        self.asked: dict[str, int] = {"a": 2, "b": 2}
        self.fleet.settle(self.wanted, 6)

    @property
    def wanted(self) -> Desired:
        return wanted_of(*(edited(fast, name) for name, fast in sorted(self.asked.items())), in_pool=self.pool)

    def tell(self, what: str, name: str, number: int) -> None:
        fleet, keys = self.fleet, sorted(self.fleet.members)
        by_word: dict[str, Callable[[], object]] = {
            "edit": lambda: self.asked.update({name: number}),
            "remove": lambda: self.asked.pop(name, None),
            "plan": lambda: check(fleet.plan(self.wanted), self.pool),
            "turn": lambda: check(fleet.turn(self.wanted), self.pool),
            "late": lambda: check(fleet.late_turn(self.wanted), self.pool),
            "close": lambda: fleet.close(number),
            "wait": lambda: setattr(fleet, "now_ms", fleet.now_ms + number),
            "forget": fleet.forget,
        }
        if what in by_word:
            by_word[what]()
        elif not keys:
            return
        elif what == "outdated":
            fleet.members[keys[number % len(keys)]].outdated = True
        else:
            getattr(fleet, what)(keys[number % len(keys)])

    def end(self) -> Plan:
        """Nothing is late any more; returns the plan with which all is done."""
        for _ in range(80):
            made = self.fleet.late_turn(self.wanted)
            check(made, self.pool)
            quiet = all(one.rollout is None for one in made.verdicts.values())
            outdated = any(member.outdated for member in self.fleet.members.values())
            if quiet and not outdated and not any(one.failed for one in made.verdicts.values()):
                break
        return self.fleet.settle(self.wanted, 3)


@settings(max_examples=150, deadline=None)
@given(pools(), actions)
def test_each_candle_is_decided_once_whatever_is_late_and_all_is_as_asked_in_the_end(
    in_pool: TraderPool, story: Iterable[tuple[str, str, int]]
) -> None:
    told = Story(in_pool)
    words = set()
    for what, name, number in story:
        words.add(what)
        told.tell(what, name, number)
    made = told.end()
    assert list(told.fleet.doubled()) == []
    if not words & {
        "remove",
        "outdated",
    }:  # what was away, or restarted with its pod while it was edited, may have a gap
        assert list(told.fleet.missed()) == []
    for verdict in made.verdicts.values():
        if verdict.worker is None:
            assert verdict.reason == "PoolFull"
            continue
        assert verdict.rollout is None, "not through after eighty turns"
        ((worker, spec),) = told.fleet.entries(verdict.trader)
        asked_for = told.asked[verdict.trader.partition("/")[2]]
        assert spec.parameters["fast"] == asked_for or asked_for == BROKEN
        assert worker in made.pools[POOL].workers


@settings(max_examples=60, deadline=None)
@given(pools(), actions)
def test_a_trader_that_decides_is_never_without_one_that_will(
    in_pool: TraderPool, story: Iterable[tuple[str, str, int]]
) -> None:
    told = Story(in_pool)
    for what, name, number in story:
        if what in ("remove", "outdated"):  # what is removed stops, and what restarts with its pod may lose its place
            continue
        had = {one for one in told.asked if told.fleet.active(f"default/{one}")}
        told.tell(what, name, number)
        lacking = {
            one
            for one in had & set(told.asked)
            if told.fleet.memory.traders and not told.fleet.entries(f"default/{one}")
        }
        assert not lacking, f"{what} left {lacking} without any incarnation"
