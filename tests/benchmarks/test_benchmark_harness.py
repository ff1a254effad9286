"""Rows, goals and the table of the benchmark harness."""

import math

import msgspec
import pytest
from benchmarks.harness import Row, decode_rows, encode, percentile, table


def test_a_row_says_whether_its_goal_holds_in_either_direction() -> None:
    assert Row("latency", 8.0, "ms", goal=8.0).holds is True
    assert Row("latency", 8.1, "ms", goal=8.0).holds is False
    assert Row("rate", 99.0, "1/s", goal=100.0, direction="at least").holds is False
    assert Row("rate", 100.0, "1/s", goal=100.0, direction="at least").holds is True
    assert Row("rate", 100.0, "1/s").holds is None


def test_rows_keep_name_value_unit_peer_floor_goal_and_holds_through_json() -> None:
    row = Row("fanout/p50", 12.5, "us", peer=400.0, floor=9.0, goal=100.0)
    assert decode_rows(encode([row])) == [row]


def test_a_figure_that_could_not_be_measured_costs_no_other_its_place() -> None:
    unmeasured = Row("up/p99", math.nan, "ms", peer=math.nan, goal=25.0)
    measured = Row("up/p50", 3.0, "ms", goal=8.0)
    back = decode_rows(encode([unmeasured, measured]))
    assert back[1] == measured
    assert math.isnan(back[0].value)
    assert (back[0].peer, back[0].goal, back[0].holds) == (None, 25.0, False)
    lines = table(back, {"up/p50": unmeasured}).splitlines()
    assert [line.split() for line in lines if line.startswith("up/")] == [
        ["up/p99", "–", "–", "ms", "–", "–", "≤", "25", "NO"],
        ["up/p50", "3", "–", "ms", "–", "–", "≤", "8", "yes"],
    ]


def test_what_is_no_row_is_refused() -> None:
    for text in (b"[{}]", b'[{"name": "a", "value": "3", "unit": "ms"}]', b"7", b""):
        with pytest.raises(msgspec.MsgspecError):
            decode_rows(text)


def test_the_table_names_a_missed_goal_and_the_value_before() -> None:
    text = table([Row("a/p50", 30.0, "ms", goal=25.0)], {"a/p50": Row("a/p50", 20.0, "ms")})
    line = next(line for line in text.splitlines() if line.startswith("a/p50"))
    assert line.split() == ["a/p50", "30", "20", "ms", "–", "–", "≤", "25", "NO"]


def test_percentiles_are_nearest_rank_and_stay_within_the_samples() -> None:
    samples = list(range(100, 0, -1))
    assert percentile(samples, 0.5) == 51
    assert percentile(samples, 0.99) == 100
    assert percentile([7.0], 0.99) == 7.0
