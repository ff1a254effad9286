"""How far a reader of Kafka is behind."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chandlery.core.behind import Behind


def test_a_reader_that_keeps_up_is_behind_by_the_age_of_its_newest_record() -> None:
    behind = Behind()
    behind.took(1_000, 1_005)
    assert behind.ms(1_500, waits=False) == 5
    behind.look(2_000, waits=False)
    behind.look(3_000, waits=False)
    assert behind.ms(3_000, waits=False) == 0, "nothing came for a second: nothing is old"


def test_a_record_that_waits_after_a_long_silence_is_not_as_old_as_the_silence() -> None:
    behind = Behind()
    behind.took(1_000, 1_005)
    for now_ms in range(2_000, 3_600_000, 1_000):
        behind.look(now_ms, waits=False)
    assert behind.ms(3_600_200, waits=True) <= 1_200


def test_a_reader_that_takes_in_nothing_while_records_wait_falls_behind_by_the_clock() -> None:
    behind = Behind()
    behind.took(1_000, 1_010)
    for now_ms in range(2_000, 62_000, 1_000):
        behind.look(now_ms, waits=True)
    assert behind.ms(61_000, waits=True) == 60_000


def test_a_fetch_that_ends_where_the_topic_ended_long_ago_does_not_look_like_having_caught_up() -> None:
    behind = Behind()
    behind.look(50_000, waits=False)
    behind.took(20_000, 60_000)
    behind.look(60_001, waits=False)  # the end that the old fetch told of is reached
    assert behind.ms(60_002, waits=False) == 40_000


def test_one_that_never_takes_anything_in_is_behind_by_the_time_since_the_first_look() -> None:
    behind = Behind()
    assert behind.ms(5_000, waits=True) == 0, "how old what waits is, nobody has said yet"
    for now_ms in (6_000, 7_000, 30_000):
        behind.look(now_ms, waits=True)
    assert behind.ms(31_000, waits=True) == 25_000
    behind.took(1_000, 32_000)
    assert behind.ms(32_000, waits=True) == 31_000, "its first record says more"


@given(st.lists(st.tuples(st.integers(0, 5_000), st.integers(0, 20_000)), min_size=1, max_size=40))
def test_a_reader_is_never_told_to_be_further_behind_than_what_it_took_in_last(steps: list[tuple[int, int]]) -> None:
    """Records appended at growing times, each taken in after a delay."""
    behind, appended_ms, now_ms = Behind(), 1_000_000, 1_000_000
    for gap_ms, delay_ms in steps:
        appended_ms += gap_ms
        now_ms = max(now_ms, appended_ms + delay_ms)
        behind.took(appended_ms, now_ms)
        assert behind.ms(now_ms, waits=False) == now_ms - appended_ms
        behind.look(now_ms + 1, waits=True)
        assert behind.ms(now_ms + 1, waits=True) == now_ms + 1 - appended_ms
