"""A symbol of what runs that its source no longer has: it goes on with its others, and no rollout waits for that one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.planner.planner_fleet import BROKEN, POOL, A, Fleet, edited, modes, running, sound, wanted_of
from tests.planner.planner_worlds import pool, trader

from chandlery.core.resources import Trader
from chandlery.operator.planner import Desired, Plan

MARKET = ("default", "market")
GONE = "ETH/USDT"
PAIR = pool(least=2, most=2, per_worker=2)


def told(wanted: Desired, unknown: Iterable[str] = (GONE,)) -> Desired:
    return replace(wanted, unknown_symbols={MARKET: [*unknown]})


def delisted(wanted: Desired) -> Fleet:
    """A fleet whose market has one symbol less than when all began."""
    fleet = running(wanted)
    fleet.delisted[GONE] = fleet.closed
    return fleet


def settle(fleet: Fleet, wanted: Desired, turns: int = 12) -> Plan:
    """So many turns, each later than whatever is waited for."""
    for _ in range(turns):
        made = fleet.turn(wanted)
        fleet.now_ms = max(fleet.now_ms, made.plan_again_ms or 0)
    return made


def without_gone(name: str = "a", fast: int = 3) -> Trader:
    return trader(name, parameters={"fast": fast}, symbols=["BTC/USDT"])


def decides(fleet: Fleet, name: str = A) -> bool:
    """Whether what a Trader runs has decided the newest candle of the symbol that is left."""
    return (name, "BTC/USDT", fleet.closed - 1) in fleet.decided


def versions(fleet: Fleet, name: str = A) -> list[int]:
    return [spec.parameters["fast"] for _, spec in fleet.entries(name)]


@pytest.mark.parametrize("keeps", [True, False])
def test_an_edit_takes_over_whether_or_not_it_keeps_the_symbol(keeps: bool) -> None:
    fleet = delisted(wanted_of(edited(2)))
    asked = told(wanted_of(edited(3) if keeps else without_gone()))
    made = settle(fleet, asked)
    assert made.verdicts[A].rollout is None
    assert versions(fleet) == [3]
    assert decides(fleet)
    sound(fleet)


def test_a_roll_moves_it_and_goes_on() -> None:
    fleet = delisted(wanted_of(edited(2), without_gone("b"), in_pool=PAIR))
    fleet.members[POOL, "pool-0"].outdated = True
    made = settle(fleet, told(wanted_of(edited(2), without_gone("b"), in_pool=PAIR)))
    assert not fleet.members[POOL, "pool-0"].outdated
    assert all(one.rollout is None for one in made.verdicts.values())
    assert [worker for worker, _ in fleet.entries(A)] == ["pool-1"]
    assert decides(fleet)
    assert decides(fleet, "default/b")
    sound(fleet)


def test_edits_behind_it_get_their_turn() -> None:
    small = pool(per_worker=4)  # room for one successor
    fleet = delisted(wanted_of(edited(2), without_gone("b", 2), in_pool=small))
    settle(fleet, told(wanted_of(edited(3), without_gone("b"), in_pool=small)))
    assert (versions(fleet), versions(fleet, "default/b")) == ([3], [3])
    sound(fleet)


def test_nothing_ends_for_a_successor_that_can_not_be_loaded() -> None:
    fleet = delisted(wanted_of(edited(2), in_pool=PAIR))
    fleet.broken_on = {"pool-1"}
    fleet.members[POOL, "pool-0"].outdated = True
    for _ in range(8):
        fleet.turn(told(wanted_of(edited(2), in_pool=PAIR)))
        assert next(spec.until_ms for _, spec in fleet.entries(A)) is None
        assert decides(fleet)


def test_what_its_source_has_is_waited_for_until_it_is_warm() -> None:
    fleet = delisted(wanted_of(edited(2)))
    fleet.settle(wanted_of(edited(3)), 8)
    assert modes(fleet) == [("active", None), ("standby", None)], "nobody has said that the symbol is gone"
    settle(fleet, told(wanted_of(edited(3))))
    assert versions(fleet) == [3]
    sound(fleet)


def test_an_edit_that_fails_leaves_what_decides_running() -> None:
    fleet = delisted(wanted_of(edited(2)))
    for _ in range(10):
        verdict = fleet.turn(told(wanted_of(edited(BROKEN)))).verdicts[A]
        assert decides(fleet)
    assert verdict.failed is not None
    sound(fleet)


actions = st.lists(
    st.one_of(
        st.tuples(st.just("edit"), st.integers(2, 4)),
        st.tuples(st.just("outdated"), st.integers(0, 1)),
        st.tuples(st.sampled_from(["turn", "late", "forget", "delist", "tell"]), st.just(0)),
    ),
    max_size=25,
)


@settings(max_examples=100, deadline=None)
@given(actions)
def test_each_candle_is_decided_once_and_all_is_as_asked_in_the_end(story: Iterable[tuple[str, int]]) -> None:
    fleet, fast, unknown = running(wanted_of(edited(2), in_pool=PAIR)), 2, set[str]()

    def wanted() -> Desired:
        return told(wanted_of(edited(fast), in_pool=PAIR), unknown)

    for what, number in story:
        if what == "edit":
            fast = number
        elif what == "outdated":
            fleet.members[POOL, f"pool-{number}"].outdated = True
        elif what == "delist":
            fleet.delisted.setdefault(GONE, fleet.closed)
        elif what == "tell":
            unknown = {GONE} & fleet.delisted.keys()
        elif what == "forget":
            fleet.forget()
        elif what in ("turn", "late"):
            (fleet.turn if what == "turn" else fleet.late_turn)(wanted())
    unknown = {GONE} & fleet.delisted.keys()
    made = settle(fleet, wanted(), 40)
    assert list(fleet.doubled()) == []
    assert made.verdicts[A].rollout is None
    assert versions(fleet) == [fast]
    assert decides(fleet)
    assert not any(member.outdated for member in fleet.members.values())
