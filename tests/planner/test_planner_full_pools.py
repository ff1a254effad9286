"""A pool that is nearly full: who grows makes do with less, and whoever runs there stays."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.planner.planner_fleet import POOL, Fleet, running, sound, wanted_of
from tests.planner.planner_worlds import World, pool, trader

from chandlery.core.assignment import Assignment, SeriesRef, encode
from chandlery.core.resources import Trader
from chandlery.operator.planner import Delays, Desired, Plan

SYMBOLS = ("BTC/USDT", "ETH/USDT", "SOL/USDT", "ADA/USDT", "XRP/USDT")


def _reading(**symbols: int) -> list[Trader]:
    """Traders, each with so many symbols of its own."""
    return [trader(name, symbols=[f"{name.upper()}{n}/USDT" for n in range(each)]) for name, each in symbols.items()]


def _sourced(**kib: int) -> Desired:
    """Traders of one pool with sources of their own, of so many KiB."""
    made = []
    for name in kib:
        source = {"configMapRef": {"name": name, "key": "s.py"}}
        made.append(trader(name, strategy={"name": "S", "source": source}))
    held = {("default", name): {"s.py": f"# {name}".ljust(size * 1024, "#")} for name, size in kib.items()}
    return wanted_of(*made, in_pool=pool(allowConfigMapStrategies=True), configmaps=held)


def _kept(made: Plan) -> list[str]:
    """Traders whose version of before stays, for want of room for that of now."""
    assert all(one.worker == "pool-0" for one in made.verdicts.values())
    kept = {name: one for name, one in made.verdicts.items() if one.keeps}
    assert all(one.reason == "PoolFull" for one in kept.values())
    return [name.partition("/")[2] for name in kept]


def test_one_that_is_edited_to_more_series_than_there_is_room_for_takes_no_other_s_place() -> None:
    tight = pool(most=1, series=3)
    fleet = running(wanted_of(*_reading(a=1, b=1, c=1), in_pool=tight))
    made = fleet.settle(wanted_of(*_reading(a=2, b=1, c=1), in_pool=tight), 4)
    assert _kept(made) == ["a"]
    assert made.verdicts["default/c"].runs_as_asked
    assert {spec.incarnation for name in "abc" for _, spec in fleet.entries(f"default/{name}")} == {1}
    sound(fleet)


def test_one_that_is_edited_to_a_bigger_source_takes_no_other_s_place() -> None:
    others = {f"t{n}": 62 for n in range(14)}
    fleet = running(_sourced(a=20, **others))
    made = fleet.settle(_sourced(a=40, **others), 4)
    assert _kept(made) == ["a"]
    assert {spec.incarnation for name in ("a", *others) for _, spec in fleet.entries(f"default/{name}")} == {1}
    sound(fleet)


def test_one_whose_bigger_source_finds_no_room_is_told_of_the_bytes_and_of_no_field_that_helps_nothing() -> None:
    others = {f"t{n}": 62 for n in range(14)}
    fleet = running(_sourced(z=20, **others))
    made = fleet.settle(_sourced(z=40, **others), 4)
    assert _kept(made) == ["z"]
    message = made.verdicts["default/z"].message
    assert "900 KiB" in message
    assert "spec.workers.max" in message
    assert "spec.tradersPerWorker" not in message
    assert "spec.segment.series" not in message
    assert (made.pools[POOL].pending, [*made.pools[POOL].lacks]) == (0, []), "it has its place"


def test_of_two_that_are_edited_to_more_than_there_is_room_for_one_gets_it_and_neither_loses_its_place() -> None:
    tight = pool(most=1, series=3)
    fleet = running(wanted_of(*_reading(a=1, d=1), in_pool=tight))
    made = fleet.settle(wanted_of(*_reading(a=3, d=2), in_pool=tight), 6)
    assert _kept(made) == ["a"], "beside what it was there is room for the other"
    sound(fleet)


def test_one_that_is_suspended_keeps_its_place_while_another_grows() -> None:
    tight = pool(most=1, series=3)
    fleet = running(wanted_of(*_reading(a=1, b=1, c=1), in_pool=tight))
    asleep = trader("c", symbols=["C0/USDT"], suspend=True)
    made = fleet.settle(wanted_of(*_reading(a=2, b=1), asleep, in_pool=tight), 4)
    assert _kept(made) == ["a"]
    assert [spec.mode for _, spec in fleet.entries("default/c")] == ["suspended"]


def test_one_that_another_makes_room_for_in_the_same_plan_does_not_wait_for_the_next() -> None:
    def fleet(a: list[str], b: list[str]) -> Desired:
        # Each has a worker's room of three series; u and a may share theirs.
        traders = [trader("a", symbols=a), trader("b", symbols=b), trader("u", symbols=["X/USDT", "Y/USDT", "Z/USDT"])]
        return wanted_of(*traders, in_pool=pool(most=2, series=3))

    world = World()
    world.step(fleet(["A/USDT"], ["P/USDT"]))
    made = world.step(fleet(["X/USDT", "Y/USDT", "Z/USDT"], ["P/USDT", "Q/USDT"]))
    assert {name: (one.worker, one.reason) for name, one in made.verdicts.items()} == {
        "default/a": ("pool-1", ""),
        "default/b": ("pool-0", ""),
        "default/u": ("pool-1", ""),
    }


def test_a_worker_that_goes_gives_its_name_to_none_that_is_made_in_the_same_plan() -> None:
    def fleet(*b: str) -> Desired:
        traders = [trader("u", symbols=["U/USDT"]), trader("b", symbols=b), trader("c", symbols=["C/USDT"])]
        return wanted_of(*traders, in_pool=pool(most=2, series=3))

    world = World()
    world.step(fleet("P/USDT", "Q/USDT"))
    assert list(world.step(fleet("P/USDT")).pools[POOL].workers) == ["pool-0", "pool-1"], "c is alone on the second"
    world.now_ms += Delays().shrink_ms
    made = world.step(fleet("P/USDT", "Q/USDT", "R/USDT"))
    assert list(made.pools[POOL].workers) == ["pool-0", "pool-2"], "it would be taken for the one that goes"
    assert made.verdicts["default/b"].worker == "pool-2"


def _series(assignment: Assignment, *, without: str = "") -> set[SeriesRef]:
    return {each for one in assignment.traders if one.trader != without for each in one.series()}


@pytest.mark.parametrize(("shrinks", "grows"), [("a", "b"), ("b", "a")])
def test_of_two_that_are_edited_at_once_one_waits_until_the_other_s_old_version_makes_room(
    shrinks: str, grows: str
) -> None:
    tight = pool(most=1, series=3)

    def wanted(many: list[str], few: list[str]) -> Desired:
        return wanted_of(trader(shrinks, symbols=many), trader(grows, symbols=few), in_pool=tight)

    fleet = running(wanted(["BTC/USDT", "ETH/USDT", "SOL/USDT"], ["BTC/USDT"]))
    after = wanted(["ADA/USDT"], ["BTC/USDT", "XRP/USDT"])
    waited = False
    for _ in range(20):
        made = fleet.late_turn(after)
        assert all(len(_series(one)) <= 3 for one in made.pools[POOL].workers.values())
        waited = waited or _kept(made) == [grows]
    assert waited
    assert all(one.runs_as_asked and one.rollout is None for one in made.verdicts.values())
    assert sorted(spec.symbols[0] for name in "ab" for _, spec in fleet.entries(f"default/{name}")) == [
        "ADA/USDT",
        "BTC/USDT",
    ]


def test_one_that_is_edited_waits_for_the_room_of_a_rollout_that_has_begun() -> None:
    tight = pool(most=1, series=3)

    def wanted(a: list[str], z: list[str]) -> Desired:
        return wanted_of(trader("a", symbols=a), trader("z", symbols=z), in_pool=tight)

    fleet = running(wanted(["BTC/USDT"], ["SOL/USDT"]))
    fleet.late_turn(wanted(["BTC/USDT"], ["ADA/USDT"]))
    assert len(fleet.entries("default/z")) == 2, "its successor stands by"
    waited = False
    for _ in range(20):
        made = fleet.late_turn(wanted(["BTC/USDT", "ETH/USDT"], ["ADA/USDT"]))
        assert all(len(_series(one)) <= 3 for one in made.pools[POOL].workers.values())
        waited = waited or _kept(made) == ["a"]
    assert waited
    assert all(one.runs_as_asked and one.rollout is None for one in made.verdicts.values())


def test_sources_that_are_edited_at_once_never_exceed_together_what_an_assignment_holds() -> None:
    others = {f"t{n}": 62 for n in range(13)}
    fleet = running(_sourced(a=20, b=60, **others))
    for _ in range(20):
        made = fleet.late_turn(_sourced(a=40, b=20, **others))
        assert all(len(encode(one)) <= 900 * 1024 for one in made.pools[POOL].workers.values())
    assert all(one.runs_as_asked and one.rollout is None for one in made.verdicts.values())
    sizes = [len(spec.source or "") // 1024 for name in "ab" for _, spec in fleet.entries(f"default/{name}")]
    assert sizes == [40, 20]


symbols = st.lists(st.sampled_from(SYMBOLS), unique=True, min_size=1, max_size=3)
edits = st.lists(st.dictionaries(st.sampled_from("abcd"), symbols, max_size=3), min_size=1, max_size=3)


@settings(max_examples=25, deadline=None)
@given(
    st.fixed_dictionaries(dict.fromkeys("abcd", symbols)), edits, st.integers(1, 2), st.integers(2, 5), st.booleans()
)
def test_whatever_is_edited_in_a_full_pool_stops_nobody_who_has_a_place_and_waits_only_for_room(
    first: dict[str, list[str]], story: list[dict[str, list[str]]], most: int, series: int, is_late: bool
) -> None:
    tight = pool(most=most, series=series)
    fleet, now = Fleet(), dict(first)
    placed: set[str] = set()
    for edit in ({}, *story):
        now |= edit
        wanted = wanted_of(*(trader(name, symbols=each) for name, each in now.items()), in_pool=tight)
        for _ in range(6):
            # Which also holds that planning its own result changes nothing.
            made = fleet.late_turn(wanted) if is_late else fleet.turn(wanted)
            assert placed <= set(made.verdicts)
            assert [name for name in sorted(placed) if made.verdicts[name].worker is None] == []
            placed = {name for name, one in made.verdicts.items() if one.worker is not None}
            for assignment in made.pools[POOL].workers.values():
                assert {one.trader for one in assignment.traders} <= placed
                assert len(_series(assignment)) <= series
    made = fleet.settle(wanted, 40)
    for name in [name for name, one in made.verdicts.items() if one.keeps]:
        asked = {SeriesRef(symbol, "1s") for symbol in now[name.partition("/")[2]]}
        for assignment in made.pools[POOL].workers.values():
            assert len(_series(assignment, without=name) | asked) > series, f"{name} waits, and there is room"
    assert all(one.rollout is None for one in made.verdicts.values())
    assert list(fleet.doubled()) == []
