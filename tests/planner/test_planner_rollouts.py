"""A Trader's way from one version or worker to the next: each candle decided once, the old one running until then."""

from __future__ import annotations

from collections import Counter

import pytest
from tests.planner.planner_fleet import (
    BROKEN,
    EPOCH_MS,
    POOL,
    STEP_MS,
    TWO,
    A,
    Fleet,
    edited,
    modes,
    restart,
    running,
    sound,
    wanted_of,
)
from tests.planner.planner_worlds import desired, feed, pool, trader

from chandlery.core.assignment import surge_of
from chandlery.core.manifests import Problem
from chandlery.core.resources import Trader
from chandlery.operator.planner import Delays, Desired


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


@pytest.mark.parametrize("whose", ["the pool's", "its own"])
def test_suspending_takes_the_old_one_from_no_trader_whose_new_version_failed(whose: str) -> None:
    def paused(fast: int) -> Desired:
        if whose == "its own":
            return wanted_of(edited(fast, suspend=True))
        return wanted_of(edited(fast), in_pool=pool(suspend=True))

    fleet = running(wanted_of(edited(2)))
    bad = wanted_of(edited(BROKEN))
    fleet.settle(bad, 6)
    made = fleet.settle(paused(BROKEN), 4)
    assert [(spec.mode, spec.generation, spec.parameters["fast"]) for _, spec in fleet.entries(A)] == [
        ("suspended", 1, 2)
    ]
    assert (made.verdicts[A].reason, made.verdicts[A].keeps) == ("BadStrategy", True)
    who = "spec.suspend is true" if whose == "its own" else "spec.suspend of its TraderPool default/pool is true"
    for words in ("generation 2 failed", "generation 1 goes on", f"; meanwhile it decides nothing: {who}"):
        assert words in made.verdicts[A].message
    made = fleet.settle(bad, 6)
    assert [(spec.mode, spec.generation, spec.parameters["fast"]) for _, spec in fleet.entries(A)] == [("active", 1, 2)]
    assert (made.verdicts[A].reason, made.verdicts[A].keeps) == ("BadStrategy", True)
    assert made.verdicts[A].message.endswith("or apply what generation 1 was)")
    assert list(fleet.doubled()) == []


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


@pytest.mark.parametrize("whose", ["the pool's", "its own"])
def test_suspending_takes_no_version_away_for_lack_of_room_for_the_next(whose: str) -> None:
    def wanted(*symbols: str, suspended: bool = False) -> Desired:
        own = trader("a", symbols=symbols, suspend=suspended and whose == "its own")
        return wanted_of(own, in_pool=pool(most=1, series=2, suspend=suspended and whose == "the pool's"))

    big = ("SOL/USDT", "ADA/USDT", "XRP/USDT")
    fleet = running(wanted(*TWO))
    fleet.settle(wanted(*big), 4)
    for suspended, mode in ((True, "suspended"), (False, "active"), (True, "suspended")):
        made = fleet.settle(wanted(*big, suspended=suspended), 4)
        ((_, spec),) = fleet.entries(A)
        assert (spec.mode, spec.generation, spec.symbols) == (mode, 1, list(TWO))
        assert (made.verdicts[A].reason, made.verdicts[A].keeps) == ("PoolFull", True)
        who = f"spec.suspend{'' if whose == 'its own' else ' of its TraderPool default/pool'} is true"
        asleep = f"; meanwhile it decides nothing: {who}" if suspended else ""
        assert made.verdicts[A].message.endswith(f" (generation 1 stays){asleep}")
        assert made.pools[POOL].pending == 0, "it has its place"
    # One that fits is taken at once.
    fleet.settle(wanted("SOL/USDT", suspended=True), 2)
    assert [(spec.mode, spec.symbols) for _, spec in fleet.entries(A)] == [("suspended", ["SOL/USDT"])]
    assert list(fleet.doubled()) == []


def test_suspending_while_a_version_takes_over_keeps_the_one_that_took_over_where_the_next_finds_no_room() -> None:
    def wanted(version: Trader, *, suspended: bool = False) -> Desired:
        return wanted_of(version, in_pool=pool(most=1, series=2, suspend=suspended))

    fleet = running(wanted(edited(2)))
    key = (POOL, "pool-0")
    while modes(fleet)[-1] != ("active", None) or len(modes(fleet)) == 1:
        fleet.plan(wanted(edited(3)))
        fleet.hear(key)
        fleet.advance(key)
        fleet.close()
        fleet.decide(key, symbol="BTC/USDT")  # the other market is silent: the old one has not said that it retired
        fleet.tell(key)
    after = fleet.entries(A)[-1][1]
    big = trader("a", symbols=["SOL/USDT", "ADA/USDT", "XRP/USDT"])
    for suspended in (True, False):
        made = fleet.settle(wanted(big, suspended=suspended), 4)
        ((_, spec),) = fleet.entries(A)
        assert (spec.generation, spec.parameters) == (after.generation, after.parameters)
        assert spec.mode == ("suspended" if suspended else "active")
        assert f"(generation {after.generation} stays)" in made.verdicts[A].message
    assert list(fleet.doubled()) == []
