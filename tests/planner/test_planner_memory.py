"""Traders' memory limits against what the container of a worker's traders has: its end would be the end of all."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.planner.planner_fleet import Fleet
from tests.planner.planner_worlds import World, desired, feed, placed, pool, trader

from chandlery.core.resources import Trader
from chandlery.operator.planner import Desired, Plan

POOL = ("default", "pool")
MEBIBYTE = 2**20


def large(name: str, mebibytes: int, **spec: object) -> Trader:
    return trader(name, resources={"memory": f"{mebibytes}Mi"}, **spec)  # type: ignore[arg-type]


def wanted(*traders: Trader, room: int | None = 1_024, most: int = 2) -> Desired:
    memory = {} if room is None else {POOL: room * MEBIBYTE}
    return desired(feed(), pool(most=most, per_worker=8), *traders, memory=memory)


def sound(fleet: Fleet) -> None:
    assert (list(fleet.doubled()), list(fleet.missed())) == ([], [])


def together(made: Plan) -> list[int]:
    return [
        sum(one.memory_bytes for one in assignment.traders if one.mode != "suspended") // MEBIBYTE
        for assignment in made.pools[POOL].workers.values()
    ]


def test_traders_whose_limits_pass_the_containers_get_another_worker() -> None:
    made = World().step(wanted(large("a", 600), large("b", 400), large("c", 100)))
    assert placed(made) == {"pool-0": ["a", "b"], "pool-1": ["c"]}


def test_the_next_trader_that_still_fits_fills_up_what_a_large_one_leaves() -> None:
    made = World().step(wanted(large("a", 900), large("b", 400), large("c", 100)))
    assert placed(made) == {"pool-0": ["a", "c"], "pool-1": ["b"]}


def test_a_trader_that_waits_for_memory_names_the_fields_to_change() -> None:
    verdict = World().step(wanted(large("a", 600), large("b", 600), large("c", 600))).verdicts["default/c"]
    assert (verdict.worker, verdict.reason) == (None, "PoolFull")
    for words in ("spec.resources.memory (600Mi)", "spec.workers.max", "resources.limits.memory", "spec.podTemplate"):
        assert words in verdict.message


def test_a_suspended_trader_takes_no_memory_until_it_is_resumed() -> None:
    world = World()
    made = world.step(wanted(large("a", 600, suspend=True), large("b", 600), most=1))
    assert placed(made) == {"pool-0": ["a", "b"]}
    resumed = world.step(wanted(large("a", 600), large("b", 600), most=1))
    assert resumed.verdicts["default/a"].reason == "PoolFull"
    assert resumed.verdicts["default/b"].worker == "pool-0"


def test_where_no_limit_is_set_any_sum_goes() -> None:
    made = World().step(wanted(large("a", 4_000), large("b", 4_000), room=None, most=1))
    assert placed(made) == {"pool-0": ["a", "b"]}


def test_a_limit_that_is_lowered_ends_nothing_that_runs_and_takes_nothing_new() -> None:
    world = World()
    world.step(wanted(large("a", 600), large("b", 400), most=1))
    made = world.step(wanted(large("a", 600), large("b", 400), large("c", 32), room=500, most=1))
    assert placed(made) == {"pool-0": ["a", "b"]}
    assert made.verdicts["default/c"].reason == "PoolFull"


def test_an_edit_that_asks_for_more_memory_than_there_is_leaves_the_old_version_running() -> None:
    fleet = Fleet()
    fleet.settle(wanted(large("a", 600), large("b", 400), most=1), 6)
    made = fleet.settle(wanted(large("a", 700), large("b", 400), most=1), 6)
    verdict = made.verdicts["default/a"]
    assert (verdict.reason, verdict.keeps) == ("PoolFull", True)
    assert "resources.limits.memory" in verdict.message
    assert [spec.memory_bytes // MEBIBYTE for _, spec in fleet.entries("default/a")] == [600]
    sound(fleet)


def test_a_change_without_memory_for_both_versions_is_made_one_after_the_other() -> None:
    fleet = Fleet()
    fleet.settle(wanted(large("a", 600), most=1), 6)
    new = wanted(large("a", 600, parameters={"fast": 3}), most=1)
    for _ in range(8):
        fleet.turn(new)
        assert len(fleet.entries("default/a")) == 1
    ((_, spec),) = fleet.entries("default/a")
    assert (spec.parameters, spec.incarnation) == ({"fast": 3}, 2)
    sound(fleet)


@given(st.lists(st.lists(st.tuples(st.integers(0, 9), st.integers(32, 1_200)), max_size=8), min_size=1, max_size=5))
def test_limits_never_add_up_to_more_than_the_containers(story: list[list[tuple[int, int]]]) -> None:
    world = World()
    for some in story:
        asked = [large(f"t{number}", mebibytes) for number, mebibytes in dict(some).items()]
        made = world.step(wanted(*asked))
        assert all(sum_ <= 1_024 for sum_ in together(made)), together(made)
        for name, verdict in made.verdicts.items():
            assert verdict.worker is not None or (verdict.reason, verdict.message) != ("", ""), name
