"""A Trader's way from one worker to the next: emptied, rolled and lost workers, each candle decided once."""

from __future__ import annotations

from tests.planner.planner_fleet import (
    BROKEN,
    EPOCH_MS,
    POOL,
    STEP_MS,
    A,
    edited,
    running,
    sound,
    wanted_of,
)
from tests.planner.planner_worlds import pool

from chandlery.operator.planner import Delays, plan

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


def test_beside_a_worker_that_can_not_be_made_the_others_are_rolled_and_nothing_moves_into_it() -> None:
    wanted = wanted_of(*(edited(2, name) for name in ("a", "b", "c")), in_pool=pool(least=3, most=3, per_worker=2))
    fleet = running(wanted)
    for name in ("pool-0", "pool-1"):
        fleet.members[POOL, name].outdated = True
    fleet.unmake((POOL, "pool-2"))
    rolled: list[str] = []
    for _ in range(30):
        made = fleet.turn(wanted)
        assert made.pools[POOL].workers["pool-2"].traders == []
        rolled.extend(made.pools[POOL].to_roll)
    assert sorted(rolled) == ["pool-0", "pool-1"]
    sound(fleet)


def test_a_worker_that_can_not_be_made_is_the_last_to_take_in_traders_and_the_first_to_go() -> None:
    roomy = pool(least=1, most=2, per_worker=2)
    fleet = running(wanted_of(*(edited(2, name) for name in ("a", "b", "c")), in_pool=roomy))
    fleet.unmake((POOL, "pool-0"))
    left = wanted_of(edited(2, "b"), edited(2, "c"), in_pool=roomy, delays=Delays(shrink_ms=0))
    made = plan(left, fleet.current, now_ms=fleet.now_ms)
    rollouts = {name: one.rollout.worker for name, one in made.verdicts.items() if one.rollout is not None}
    assert rollouts == {"default/b": "pool-1"}
    fleet.plan(wanted_of(*(edited(2, name) for name in ("b", "c", "d")), in_pool=roomy))
    assert [worker for worker, _ in fleet.entries("default/d")] == ["pool-1"]
    fleet.plan(wanted_of(*(edited(2, name) for name in ("b", "c", "d", "e")), in_pool=roomy))
    assert [worker for worker, _ in fleet.entries("default/e")] == ["pool-0"], "a place all the same"


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
