"""A symbol of what runs that its source no longer has: what starts with it never gets warm, so nothing waits for that."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.planner.planner_fleet import POOL, TWO, A, Fleet, edited, modes, running, sound, wanted_of
from tests.planner.planner_worlds import pool, trader

from chandlery.core.resources import Trader, TraderPool
from chandlery.operator.planner import Delays, Desired, Plan

MARKET = ("default", "market")
GONE = "ETH/USDT"
PAIR = pool(least=2, most=2, per_worker=2)


def delist(fleet: Fleet) -> None:
    fleet.delisted[GONE] = fleet.closed


def told(wanted: Desired, unknown: Iterable[str] = (GONE,)) -> Desired:
    return replace(wanted, unknown_symbols={MARKET: [*unknown]})


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


@pytest.mark.parametrize("begun", [False, True])
def test_an_edit_that_keeps_the_symbol_leaves_what_decides_running(begun: bool) -> None:
    fleet = running(wanted_of(edited(2)))
    delist(fleet)
    if begun:
        fleet.settle(wanted_of(edited(3)), 4)
        assert modes(fleet) == [("active", None), ("standby", None)]
    for _ in range(3):
        verdict = fleet.turn(told(wanted_of(edited(3)))).verdicts[A]
        assert (verdict.reason, verdict.keeps, verdict.rollout) == ("UnknownSymbol", True, None)
        assert verdict.message == f"the feed's source has no {GONE}: mend spec.market (generation 1 stays)"
        assert [spec.incarnation for _, spec in fleet.entries(A)] == [1]
        assert decides(fleet)
    sound(fleet)


def test_what_the_next_edit_asks_for_is_gone_back_to_or_rolled_out() -> None:
    fleet = running(wanted_of(edited(2)))
    delist(fleet)
    assert fleet.settle(told(wanted_of(edited(3))), 3).verdicts[A].reason == "UnknownSymbol"
    verdict = fleet.settle(told(wanted_of(edited(2))), 3).verdicts[A]
    assert (verdict.reason, verdict.keeps, verdict.incarnation) == ("", False, 1), "it is what runs: nothing is kept"
    made = settle(fleet, told(wanted_of(without_gone(fast=4))))
    assert (versions(fleet), made.verdicts[A].rollout) == ([4], None)
    assert decides(fleet)
    sound(fleet)


def test_edits_and_the_roll_behind_it_go_on() -> None:
    small = pool(per_worker=4)  # room for one successor
    fleet = running(wanted_of(edited(2), without_gone("b", 2), in_pool=small))
    delist(fleet)
    both = wanted_of(edited(3), without_gone("b"), in_pool=small)
    fleet.settle(both, 8)
    assert versions(fleet, "default/b") == [2], "it waits for its turn"
    fleet.settle(told(both), 8)
    assert (versions(fleet), versions(fleet, "default/b")) == ([2], [3])
    fleet.members[POOL, "pool-0"].outdated = True
    settle(fleet, told(both), 4)
    assert not fleet.members[POOL, "pool-0"].outdated
    sound(fleet)


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("fast", [2, 3])
def test_a_roll_moves_it_without_a_warm_successor_and_goes_on(begun: bool, fast: int) -> None:
    fleet = running(wanted_of(edited(2), without_gone("b"), in_pool=PAIR))
    asked = wanted_of(edited(fast), without_gone("b"), in_pool=PAIR)
    delist(fleet)
    fleet.members[POOL, "pool-0"].outdated = True
    if begun:
        settle(fleet, wanted_of(edited(2), without_gone("b"), in_pool=PAIR), 8)
        assert fleet.members[POOL, "pool-0"].outdated, "it waits for what never gets warm"
    made = settle(fleet, told(asked))
    assert not fleet.members[POOL, "pool-0"].outdated
    assert all(one.rollout is None for one in made.verdicts.values())
    assert versions(fleet) == [fast], "where nothing decides any more the newest version waits for the symbol"
    assert [worker for worker, _ in fleet.entries(A)] == ["pool-1"]
    assert decides(fleet, "default/b")
    sound(fleet)


def test_it_decides_until_its_move_and_no_candle_twice() -> None:
    fleet = running(wanted_of(edited(2), in_pool=PAIR))
    delist(fleet)
    fleet.members[POOL, "pool-0"].outdated = True
    wanted = told(wanted_of(edited(2), in_pool=PAIR))
    fleet.turn(wanted)
    assert [(worker, spec.mode) for worker, spec in fleet.entries(A)] == [("pool-0", "active"), ("pool-1", "standby")]
    assert decides(fleet)
    settle(fleet, wanted)
    assert [worker for worker, _ in fleet.entries(A)] == ["pool-1"]
    fleet.delisted.clear()
    settle(fleet, wanted_of(edited(2), in_pool=PAIR))
    assert decides(fleet)
    assert list(fleet.doubled()) == []
    assert {symbol for _, symbol, _ in fleet.missed()} <= {GONE}


def test_a_symbol_that_comes_back_has_the_edit_take_over() -> None:
    fleet = running(wanted_of(edited(2)))
    delist(fleet)
    fleet.settle(told(wanted_of(edited(3))), 3)
    assert (modes(fleet), versions(fleet)) == ([("active", None)], [2])
    fleet.delisted.clear()
    fleet.settle(told(wanted_of(edited(3)), ()), 8)
    assert versions(fleet) == [3]
    sound(fleet)


@pytest.mark.parametrize("asked", [edited(3), without_gone()])
def test_one_that_decides_no_more_since_its_pod_was_lost_gives_way_at_once(asked: Trader) -> None:
    fleet = running(wanted_of(edited(2)))
    delist(fleet)
    fleet.settle(told(wanted_of(edited(2))), 2)
    fleet.lose_pod((POOL, "pool-0"))
    fleet.settle(told(wanted_of(edited(2))), 5)
    assert [process.state for process in fleet.members[POOL, "pool-0"].processes.values()] == ["Ready"]
    verdict = fleet.plan(told(wanted_of(asked))).verdicts[A]
    assert (versions(fleet), verdict.rollout, verdict.reason) == ([3], None, "")


def test_a_successor_takes_over_at_once_from_one_that_decides_no_more() -> None:
    fleet = running(wanted_of(edited(2)))
    delist(fleet)
    fleet.lose_pod((POOL, "pool-0"))
    fleet.settle(wanted_of(edited(2)), 5)
    fleet.settle(wanted_of(edited(3)), 4)
    fleet.plan(told(wanted_of(edited(3))))
    assert [(spec.mode, spec.parameters["fast"]) for _, spec in fleet.entries(A)] == [("active", 3)]


def test_suspending_it_takes_the_newest_version() -> None:
    fleet = running(wanted_of(edited(2)))
    delist(fleet)
    fleet.settle(told(wanted_of(edited(3))), 3)
    assert versions(fleet) == [2]
    asleep = trader("a", parameters={"fast": 3}, symbols=TWO, suspend=True)
    fleet.settle(told(wanted_of(asleep)), 2)
    assert (modes(fleet), versions(fleet)) == ([("suspended", None)], [3])


def test_no_worker_ends_because_it_is_not_needed_while_that_would_end_what_decides() -> None:
    small = pool(most=2, per_worker=2)
    three = [edited(2, name) for name in ("a", "b", "c")]
    fleet = running(wanted_of(*three, in_pool=small))
    delist(fleet)
    left = told(wanted_of(three[0], three[2], in_pool=small))
    fleet.settle(left, 2)
    fleet.now_ms += 2 * Delays().shrink_ms
    fleet.settle(left, 3)
    assert [worker for worker, _ in fleet.entries("default/c")] == ["pool-1"]
    assert decides(fleet, "default/c")
    fleet.delisted.clear()
    again = told(left, ())
    fleet.settle(again, 2)
    fleet.now_ms += 2 * Delays().shrink_ms
    fleet.settle(again, 12)
    assert [worker for worker, _ in fleet.entries("default/c")] == ["pool-0"]
    sound(fleet)


# Whatever happens -----------------------------------------------------------------------------------------------

actions = st.lists(
    st.one_of(
        st.tuples(st.just("edit"), st.sampled_from(["a", "b"]), st.integers(2, 4)),
        st.tuples(st.sampled_from(["gone", "back", "said", "unsaid", "turn", "late", "forget"]), st.just(""), st.just(0)),
        st.tuples(st.sampled_from(["hear", "advance", "decide", "tell", "up", "outdated"]), st.just(""), st.integers(0, 2)),
        st.tuples(st.just("wait"), st.just(""), st.integers(1, 400_000)),
    ),
    max_size=30,
)  # fmt: skip


class Rolled(Fleet):
    """Workers whose new pods tell of no candle before their Traders have decided one there."""

    def roll(self, key: tuple[tuple[str, str], str]) -> None:
        super().roll(key)
        for process in self.members[key].processes.values():
            process.last_ms = 0


class Story:
    """Two Traders on a symbol that comes and goes, which is heard of sooner or later, and one that doesn't read it."""

    def __init__(self, in_pool: TraderPool) -> None:
        self.pool, self.fleet, self.unknown = in_pool, Rolled(), [""]
        self.asked = {"a": 2, "b": 2}
        self.fleet.settle(self.wanted, 6)

    @property
    def wanted(self) -> Desired:
        both = (edited(fast, name) for name, fast in self.asked.items())
        return told(wanted_of(*both, without_gone("c"), in_pool=self.pool), self.unknown)

    def tell(self, what: str, name: str, number: int) -> None:
        fleet, keys = self.fleet, sorted(self.fleet.members)
        if what == "edit":
            self.asked[name] = number
        elif what == "gone":
            fleet.delisted.setdefault(GONE, fleet.closed)
        elif what == "back":
            fleet.delisted.clear()
        elif what in ("said", "unsaid"):
            self.unknown = [GONE] if what == "said" else []
        elif what in ("turn", "late"):
            (fleet.turn if what == "turn" else fleet.late_turn)(self.wanted)
        elif what == "forget":
            fleet.forget()
        elif what == "wait":
            fleet.now_ms += number
        elif what == "outdated":
            fleet.members[keys[number % len(keys)]].outdated = True
        else:
            getattr(fleet, what)(keys[number % len(keys)])


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([PAIR, pool(per_worker=3), pool(least=1, most=3, spare=1, per_worker=2)]), actions)
def test_whenever_a_symbol_goes_and_whenever_that_is_told_all_rolls_end_and_no_candle_is_decided_twice(
    in_pool: TraderPool, story: list[tuple[str, str, int]]
) -> None:
    it = Story(in_pool)
    for what, name, number in story:
        it.tell(what, name, number)
    it.unknown = sorted(it.fleet.delisted)
    made = settle(it.fleet, it.wanted, 40)
    assert {name: one.rollout for name, one in made.verdicts.items() if one.rollout is not None} == {}
    assert not any(member.outdated for member in it.fleet.members.values())
    assert list(it.fleet.doubled()) == []
    for name, fast in {**it.asked, "c": 3}.items():
        verdict = made.verdicts[f"default/{name}"]
        assert verdict.worker is not None
        assert versions(it.fleet, f"default/{name}") == [fast] or verdict.reason == "UnknownSymbol"
        if verdict.keeps or not it.fleet.delisted or name == "c":
            assert decides(it.fleet, f"default/{name}")
