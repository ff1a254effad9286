"""Symbols that a feed's source says it doesn't have, asked for by a new version of what runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from tests.planner.planner_fleet import POOL, TWO, A, Fleet, edited, modes, running, sound, wanted_of
from tests.planner.planner_worlds import feed, pool, trader

from chandlery.core.manifests import Problem
from chandlery.core.resources import Trader
from chandlery.operator.planner import Desired

MARKET = ("default", "market")
LOST = "LOST/USDT"


def of_lost(name: str = "a", symbol: str = LOST) -> Trader:
    return trader(name, parameters={"fast": 2}, symbols=["BTC/USDT", symbol])


def told(wanted: Desired, unknown: Iterable[str] = (LOST,)) -> Desired:
    return replace(wanted, unknown_symbols={MARKET: [*unknown]})


def turns_without_market(fleet: Fleet, wanted: Desired, turns: int) -> None:
    """What reads a symbol that has no trades never gets warm."""
    for _ in range(turns):
        fleet.turn(wanted)
        for member in fleet.members.values():
            for process in member.processes.values():
                if LOST in process.spec.symbols:
                    process.reads = 2


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("symbols", ["auto", [*TWO, LOST]])
def test_an_edit_to_a_symbol_that_the_source_lacks_leaves_the_old_version_running_and_asks_for_the_symbol(
    begun: bool, symbols: Any
) -> None:
    def wanted(one: Trader) -> Desired:
        return replace(wanted_of(one), feeds={MARKET: feed(symbols=symbols)})

    fleet = running(wanted(edited(2)))
    if begun:
        turns_without_market(fleet, wanted(of_lost()), 3)
        assert modes(fleet) == [("active", None), ("standby", None)]
    for _ in range(3):
        made = fleet.turn(told(wanted(of_lost())))
        verdict = made.verdicts[A]
        assert (verdict.reason, verdict.keeps, verdict.worker, verdict.rollout) == (
            "UnknownSymbol", True, "pool-0", None,
        )  # fmt: skip
        assert verdict.message == f"the feed's source has no {LOST}: mend spec.market (generation 1 stays)"
        assert LOST in made.feeds[MARKET].symbols, "else its source would forget that it is unknown"
        assert [(spec.incarnation, spec.symbols) for _, spec in fleet.entries(A)] == [(1, list(TWO))]
    mended = fleet.settle(told(wanted(edited(3))), 8)
    assert LOST not in mended.feeds[MARKET].symbols or symbols != "auto"
    assert [spec.parameters["fast"] for _, spec in fleet.entries(A)] == [3]
    sound(fleet)


def test_a_symbol_that_comes_to_be_has_its_version_take_over() -> None:
    fleet = running(wanted_of(edited(2)))
    fleet.settle(told(wanted_of(of_lost())), 3)
    fleet.settle(told(wanted_of(of_lost()), ()), 8)
    assert [spec.symbols for _, spec in fleet.entries(A)] == [["BTC/USDT", LOST]]
    sound(fleet)


def test_a_version_without_its_symbol_holds_back_no_other_rollout_and_no_roll() -> None:
    small = pool(per_worker=4)  # room for one successor
    fleet = running(wanted_of(edited(2), edited(2, "b"), in_pool=small))
    both = wanted_of(of_lost(), edited(3, "b"), in_pool=small)
    turns_without_market(fleet, both, 8)
    assert [spec.parameters["fast"] for _, spec in fleet.entries("default/b")] == [2], "it waits for its turn"
    turns_without_market(fleet, told(both), 8)
    assert [spec.parameters["fast"] for _, spec in fleet.entries("default/b")] == [3]
    fleet.members[POOL, "pool-0"].outdated = True
    turns_without_market(fleet, told(both), 8)
    assert not fleet.members[POOL, "pool-0"].outdated
    sound(fleet)


def test_another_mistake_in_the_next_edit_goes_back_to_what_decides() -> None:
    fleet = running(wanted_of(edited(2)))
    turns_without_market(fleet, wanted_of(of_lost()), 3)
    problem = Problem("f", 1, 1, "Trader", "default", "a", "spec", "no good", "BadParameter")
    bad = wanted_of(of_lost(), problems={("default", "a"): [problem]})
    made = fleet.settle(told(bad), 2)
    assert (made.verdicts[A].reason, made.verdicts[A].keeps) == ("BadParameter", True)
    assert [spec.incarnation for _, spec in fleet.entries(A)] == [1]


def test_where_nothing_ran_before_it_runs_and_asks_for_the_symbol() -> None:
    fleet = Fleet()
    made = fleet.settle(told(wanted_of(of_lost())), 3)
    assert (made.verdicts[A].worker, made.verdicts[A].reason) == ("pool-0", "")
    assert made.feeds[MARKET].symbols == ("BTC/USDT", LOST)
    fleet.settle(told(wanted_of(edited(2))), 8)
    assert [spec.symbols for _, spec in fleet.entries(A)] == [list(TWO)], "mended"


def test_suspending_takes_effect_beside_a_symbol_that_is_not_there() -> None:
    fleet = running(wanted_of(edited(2)))
    asleep = trader("a", parameters={"fast": 2}, symbols=["BTC/USDT", LOST], suspend=True)
    made = fleet.settle(told(wanted_of(asleep)), 2)
    assert made.verdicts[A].reason == "UnknownSymbol"
    assert modes(fleet) == [("suspended", None)]
