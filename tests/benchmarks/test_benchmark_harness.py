"""Rows, goals and the table of the benchmark harness."""

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


def test_the_table_names_a_missed_goal_and_the_value_before() -> None:
    text = table([Row("a/p50", 30.0, "ms", goal=25.0)], {"a/p50": Row("a/p50", 20.0, "ms")})
    line = next(line for line in text.splitlines() if line.startswith("a/p50"))
    assert line.split() == ["a/p50", "30", "20", "ms", "–", "–", "≤", "25", "NO"]


def test_percentiles_are_nearest_rank_and_stay_within_the_samples() -> None:
    samples = list(range(100, 0, -1))
    assert percentile(samples, 0.5) == 51
    assert percentile(samples, 0.99) == 100
    assert percentile([7.0], 0.99) == 7.0
