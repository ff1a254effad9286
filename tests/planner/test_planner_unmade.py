"""A worker that the API server refuses to make: the last place for a Trader, and the first worker that can be missed."""

from __future__ import annotations

from collections.abc import Mapping

from chandlery.core.assignment import SeriesRef
from chandlery.operator.planner_placement import Bounds, Existing, Leaving, Placement, place
from chandlery.operator.planner_types import Delays

SERIES = frozenset({SeriesRef("BTC/USDT", "1m")})
NOW_MS = 1_000_000_000
MINUTE_MS = 60_000


def unmade(number: int, *traders: str) -> Existing:
    return Existing(number, traders, False, NOW_MS - MINUTE_MS, False, rolled_out=False, unmade=True)


def ready(number: int, *traders: str) -> Existing:
    return Existing(number, traders, True, 0, True)


def gone(number: int, *traders: str) -> Existing:
    """Not Ready for longer than is waited for."""
    return Existing(number, traders, False, NOW_MS - MINUTE_MS, True)


def placed(*existing: Existing, running: Mapping[str, Leaving] | None = None, **bounds: int) -> Placement:
    traders = {name for one in existing for name in one.traders}
    return place(
        dict.fromkeys(sorted(traders), SERIES),
        existing,
        Bounds(**{"least": 1, "most": 4, "spare": 0, "traders": 2, "series": 512, **bounds}),
        surplus_since_ms=NOW_MS - 10 * MINUTE_MS,
        now_ms=NOW_MS,
        delays=Delays(),
        running=running or {},
    )


def test_traders_of_a_lost_worker_are_moved_to_a_new_one_and_not_into_it() -> None:
    made = placed(gone(0, "a", "b"), unmade(1))
    assert made.workers[2] == ["a", "b"]


def test_traders_of_a_lost_worker_are_moved_to_one_that_starts_and_not_into_it() -> None:
    starting = Existing(2, (), False, NOW_MS - 1_000, False, rolled_out=False)
    assert placed(gone(0, "a", "b"), unmade(1), starting).workers[2] == ["a", "b"]


def test_it_goes_and_not_the_spare_one_that_is_ready() -> None:
    assert {*placed(ready(0, "a"), unmade(1), ready(2), spare=1).workers} == {0, 2}


def test_it_goes_and_not_one_that_runs_a_trader_where_there_are_to_be_fewer() -> None:
    running = {"a": Leaving(0, SERIES), "b": Leaving(2, SERIES)}
    made = placed(ready(0, "a"), unmade(1, "c"), ready(2, "b"), running=running, most=2)
    assert {*made.workers} == {0, 2}
    assert sorted(name for names in made.workers.values() for name in names) == ["a", "b", "c"]
