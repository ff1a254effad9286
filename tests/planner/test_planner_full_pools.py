"""A pool that is nearly full: who grows keeps its version of before, and is told what it lacks."""

from __future__ import annotations

from tests.planner.planner_fleet import POOL, running, wanted_of
from tests.planner.planner_worlds import pool, trader

from chandlery.operator.planner import Desired, Plan


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
