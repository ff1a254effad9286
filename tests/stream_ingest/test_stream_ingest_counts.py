"""Gaps and repetitions in trade ids."""

from hypothesis import given
from hypothesis import strategies as st

from chandlery.stream.ingest.counts import IdSequence


def _counts(*arrivals: list[int]) -> tuple[int, int, int]:
    ids = IdSequence()
    for arrival in arrivals:
        ids.take(arrival)
    return ids.last_id, ids.gap_ids, ids.duplicates


def test_ids_in_order_have_neither_gaps_nor_repetitions() -> None:
    assert _counts([5], [6, 7, 8], [9]) == (9, 0, 0)


def test_a_jump_counts_the_ids_between_as_missing() -> None:
    assert _counts([5], [9]) == (9, 3, 0)


def test_an_id_that_comes_late_fills_its_gap_once() -> None:
    assert _counts([5], [9], [7], [7]) == (9, 2, 1)


def test_a_repetition_within_a_gap_of_the_same_size_is_not_overlooked() -> None:
    assert _counts([1, 2, 2, 4]) == (4, 1, 1)


def test_a_restart_knows_where_it_was() -> None:
    ids = IdSequence(last_id=100)
    ids.take([100])
    ids.take([103])
    assert (ids.gap_ids, ids.duplicates) == (2, 1)


@given(st.lists(st.integers(0, 60), min_size=1, max_size=80), st.integers(1, 5))
def test_gaps_and_repetitions_are_those_of_a_set_of_ids(arrivals: list[int], size: int) -> None:
    ids = IdSequence(last_id=0)
    for start in range(0, len(arrivals), size):
        ids.take(arrivals[start : start + size])
    seen = {trade_id for trade_id in arrivals if trade_id > 0}
    assert ids.last_id == max(seen, default=0)
    assert ids.gap_ids == ids.last_id - len(seen)
    assert ids.duplicates == len(arrivals) - len(seen)
