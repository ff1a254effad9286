"""A worker that the API server refuses to make: nothing is moved into it."""

from __future__ import annotations

from chandlery.core.assignment import SeriesRef
from chandlery.operator.planner_placement import Bounds, Existing, Placement, place
from chandlery.operator.planner_types import Delays

SERIES = frozenset({SeriesRef("BTC/USDT", "1m")})
NOW_MS = 1_000_000_000
MINUTE_MS = 60_000


def unmade(number: int, *traders: str) -> Existing:
    return Existing(number, traders, False, NOW_MS - MINUTE_MS, False, rolled_out=False, unmade=True)


def gone(number: int, *traders: str) -> Existing:
    """Not Ready for longer than is waited for."""
    return Existing(number, traders, False, NOW_MS - MINUTE_MS, True)


def placed(*existing: Existing, spare: int = 0, delays: Delays | None = None) -> Placement:
    traders = {name for one in existing for name in one.traders}
    return place(
        dict.fromkeys(sorted(traders), SERIES),
        existing,
        Bounds(least=1, most=4, spare=spare, traders=2, series=512),
        surplus_since_ms=None,
        now_ms=NOW_MS,
        delays=delays or Delays(),
    )


def test_traders_of_a_lost_worker_are_moved_to_a_new_one_and_not_into_it() -> None:
    made = placed(gone(0, "a", "b"), unmade(1))
    assert made.workers[2] == ["a", "b"]


def test_traders_of_a_lost_worker_are_moved_to_one_that_starts_and_not_into_it() -> None:
    starting = Existing(2, (), False, NOW_MS - 1_000, False, rolled_out=False)
    assert placed(gone(0, "a", "b"), unmade(1), starting).workers[2] == ["a", "b"]


def test_of_two_empty_workers_the_one_that_can_not_be_made_goes_whatever_their_numbers() -> None:
    spare = Existing(2, (), True, NOW_MS - MINUTE_MS, True)
    full = Existing(0, ("a", "b"), True, NOW_MS - MINUTE_MS, True)
    assert list(placed(full, unmade(1), spare, spare=1, delays=Delays(shrink_ms=0)).workers) == [0, 2]
