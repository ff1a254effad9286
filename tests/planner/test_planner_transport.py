"""What an assignment says of a Trader's transport: no more than it must, and nothing new where nothing changes."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.planner.planner_worlds import World, desired, feed, pool, trader

from chandlery.core.assignment import Assignment, TraderAssignment, content_hash, decode_assignment, encode
from chandlery.core.resources import APPROVE_ANNOTATION, Trader, TraderPool
from chandlery.core.transports import Transport, transport_of
from chandlery.operator.planner import Memory, Plan

POOL = ("default", "pool")
SAID: tuple[Transport, ...] = ("SharedMemory", "Pipe")


def saying(transport: Transport | None, **more: object) -> Trader:
    return trader("a", **more) if transport is None else trader("a", transport=transport, **more)  # type: ignore[arg-type]


def assignment_of(made: Plan) -> Assignment:
    return made.pools[POOL].workers["pool-0"]


def one_of(made: Plan) -> TraderAssignment:
    (one,) = assignment_of(made).traders
    return one


def assigned_with(world: World, transport: Transport | None) -> None:
    """As a version would have assigned it that said what the Trader says, whatever its pool has."""
    now = world.workers[POOL]["pool-0"]
    traders = [msgspec.structs.replace(one, transport=transport) for one in now.assignment.traders]
    kept = Assignment(now.assignment.worker, now.assignment.sequence, content_hash(traders), traders)
    world.workers[POOL]["pool-0"] = replace(now, assignment=kept)


def taken_by_an_older_worker(assignment: Assignment) -> bool:
    """Whether a worker takes it that doesn't know the field: it reads all others, and looks at the hash."""
    body = msgspec.json.decode(encode(assignment))
    for one in body["traders"]:
        one.pop("transport", None)
    known = decode_assignment(msgspec.json.encode(body))
    return content_hash(known.traders) == assignment.hash


@pytest.mark.parametrize("of_pool", SAID)
def test_saying_what_the_pool_has_anyway_restarts_nothing_and_neither_does_leaving_it_out_again(
    of_pool: Transport,
) -> None:
    world, mine = World(), pool(transport=of_pool)
    silent = assignment_of(world.step(desired(feed(), mine, saying(None))))
    assert assignment_of(world.step(desired(feed(), mine, saying(of_pool)))) is silent
    assert assignment_of(world.step(desired(feed(), mine, saying(None)))) is silent


@pytest.mark.parametrize("of_pool", SAID)
def test_a_worker_that_does_not_know_the_field_takes_a_trader_that_says_what_its_pool_has(of_pool: Transport) -> None:
    (other,) = set(SAID) - {of_pool}
    mine = pool(transport=of_pool)
    for said in (None, of_pool):
        assert taken_by_an_older_worker(assignment_of(World().step(desired(feed(), mine, saying(said)))))
    assert not taken_by_an_older_worker(assignment_of(World().step(desired(feed(), mine, saying(other)))))


@pytest.mark.parametrize("said", [None, *SAID])
def test_what_was_assigned_in_the_other_way_of_saying_it_runs_on_untouched(said: Transport | None) -> None:
    world = World()
    mine = saying("SharedMemory") if said is None else saying(said)
    world.step(desired(feed(), pool(), mine))
    assigned_with(world, "SharedMemory" if said is None else said)
    kept = world.workers[POOL]["pool-0"].assignment
    assert assignment_of(world.step(desired(feed(), pool(), mine))) is kept


def test_a_manual_trader_that_runs_waits_for_no_approval_of_a_transport_that_is_its_pools() -> None:
    world = World()
    world.step(desired(feed(), pool(), saying(None, rollout="Manual", metadata={"generation": 1})))
    made = world.step(desired(feed(), pool(), saying("SharedMemory", rollout="Manual", metadata={"generation": 2})))
    assert (made.verdicts["default/a"].reason, one_of(made).generation) == ("", 2)
    other = saying("Pipe", rollout="Manual", metadata={"generation": 3})
    assert world.step(desired(feed(), pool(), other)).verdicts["default/a"].reason == "AwaitingApproval"


def test_a_manual_trader_whose_workers_are_gone_comes_back_without_approval_however_it_was_said() -> None:
    world = World()
    approved = {"generation": 1, "annotations": {APPROVE_ANNOTATION: "1"}}
    first = desired(feed(), pool(), saying("SharedMemory", rollout="Manual", metadata=approved))
    world.step(first)
    assigned_with(world, "SharedMemory")
    world.memory = Memory()
    world.step(first)
    world.workers.clear()
    again = saying("SharedMemory", rollout="Manual", metadata={"generation": 2})
    assert world.step(desired(feed(), pool(), again)).verdicts["default/a"].reason == ""


def test_a_pool_that_changes_its_transport_changes_nothing_for_who_says_its_own() -> None:
    world = World()
    before = one_of(world.step(desired(feed(), pool(), saying("SharedMemory"))))
    after = one_of(world.step(desired(feed(), pool(transport="Pipe"), saying("SharedMemory"))))
    assert (before.transport, after.transport) == (None, "SharedMemory"), "now it must be said"
    back = one_of(world.step(desired(feed(), pool(), saying("SharedMemory"))))
    assert back == after, "and once it is said, it stays"


Turn = tuple[Transport, Transport | None, int]
turns = st.lists(st.tuples(st.sampled_from(SAID), st.sampled_from([None, *SAID]), st.integers(2, 3)), max_size=8)


@settings(max_examples=150, deadline=None)
@given(turns)
def test_each_trader_has_the_transport_it_shall_have_and_starts_anew_only_for_a_change(story: list[Turn]) -> None:
    world = World()
    last: tuple[TraderPool, Transport, int, TraderAssignment] | None = None
    for of_pool, said, fast in story:
        mine = pool(transport=of_pool)
        wanted = desired(feed(), mine, saying(said, parameters={"fast": fast}))
        made = world.step(wanted)
        one, effective = one_of(made), transport_of(said, of_pool)
        assert transport_of(one.transport, of_pool) == effective
        if last is not None and last[:3] == (mine, effective, fast):
            assert one == last[3]
        assert assignment_of(world.step(wanted)) is assignment_of(made), "planning its own result changes nothing"
        last = (mine, effective, fast, one)
