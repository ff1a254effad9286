"""The summary: what reconciles, what doesn't, and its JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chandlery.console.summary import (
    LatencyFigures,
    MemoryFigures,
    Quantiles,
    SignalCounts,
    Summary,
    TradeCounts,
    count_problems,
    decode_summary,
    encode_summary,
    quantiles_us,
)

amounts = st.integers(min_value=0, max_value=10**9)


@given(counted=amounts, open_=amounts, late=amounts, duplicate=amounts, dead=amounts)
def test_trades_that_add_up_give_no_problem(counted: int, open_: int, late: int, duplicate: int, dead: int) -> None:
    total = counted + open_ + late + duplicate + dead
    trades = TradeCounts(total, total, counted, open_, late, duplicate, dead)
    assert count_problems(trades, SignalCounts()) == []


@pytest.mark.parametrize("field", ["counted", "open", "late", "duplicate", "dead"])
def test_a_trade_missing_anywhere_is_a_problem_that_names_the_numbers(field: str) -> None:
    trades = TradeCounts(ingested=15, received=15, counted=3, open=3, late=3, duplicate=3, dead=3)
    setattr(trades, field, getattr(trades, field) - 1)
    (problem,) = count_problems(trades, SignalCounts())
    assert "received 15" in problem
    assert "= 14" in problem


def test_trades_lost_between_ingest_and_aggregator_are_a_problem() -> None:
    (problem,) = count_problems(TradeCounts(ingested=11, received=10, counted=10), SignalCounts())
    assert "ingested 11, received 10" in problem


@pytest.mark.parametrize("all_read", [True, False])
def test_records_that_cannot_be_read_are_apart_from_what_ingest_appended(all_read: bool) -> None:
    trades = TradeCounts(ingested=10, received=12, counted=10, dead=2, unreadable=2)
    assert count_problems(trades, SignalCounts(), all_read=all_read) == []


def test_trades_that_a_record_that_cannot_be_read_may_hold_are_missing_all_the_same() -> None:
    trades = TradeCounts(ingested=10, received=8, counted=7, dead=1, unreadable=1)
    [problem] = count_problems(trades, SignalCounts())
    assert "ingested 10, received 7, besides 1 record that could not be read and may hold what is missing" in problem
    [problem] = count_problems(trades, SignalCounts(), all_read=False)
    assert "3 trades were not counted: ingested 10, the aggregator got to 7 of them" in problem


def test_a_trade_that_came_twice_is_not_made_up_for_by_records_that_cannot_be_read() -> None:
    [problem] = count_problems(TradeCounts(ingested=9, received=12, counted=10, dead=2, unreadable=2), SignalCounts())
    assert "ingested 9, received 10, besides 2 records that could not be read: see the dead letters" in problem


def test_dead_trades_whose_number_is_known_are_ingests_own() -> None:
    assert count_problems(TradeCounts(ingested=10, received=10, counted=7, dead=3), SignalCounts()) == []
    assert count_problems(TradeCounts(ingested=7, received=10, counted=7, dead=3), SignalCounts()) != []


def test_signals_add_up_with_what_was_carried_over_dropped_and_pending() -> None:
    signals = SignalCounts(emitted=10, carried=2, published=9, unique=9, dropped=1, pending=2)
    assert count_problems(TradeCounts(), signals) == []


def test_a_lost_signal_is_a_problem() -> None:
    (problem,) = count_problems(TradeCounts(), SignalCounts(emitted=10, published=9, unique=9))
    assert "emitted 10" in problem
    assert "published 9" in problem


def test_a_repeated_delivery_is_no_problem_but_a_signal_nobody_emitted_is() -> None:
    assert count_problems(TradeCounts(), SignalCounts(emitted=10, published=12, unique=10)) == []
    assert len(count_problems(TradeCounts(), SignalCounts(emitted=10, published=11, unique=11))) == 1


def test_the_json_reads_back_as_the_same_summary() -> None:
    summary = Summary(version="1", session=7, drops={"late": 2})
    assert decode_summary(encode_summary(summary)) == summary
    assert json.loads(encode_summary(summary))["drops"] == {"late": 2}


@given(st.lists(st.integers(min_value=0, max_value=10**12), min_size=1))
def test_quantiles_are_values_that_occurred_in_order(values_ns: list[int]) -> None:
    quantiles = quantiles_us(values_ns)
    occurred = {round(value / 1000, 1) for value in values_ns}
    assert quantiles.p50 in occurred
    assert quantiles.p99 in occurred
    assert quantiles.p50 is not None
    assert quantiles.p99 is not None
    assert quantiles.p50 <= quantiles.p99
    assert quantiles.count == len(values_ns)


def test_nearest_rank_of_a_hundred_values() -> None:
    quantiles = quantiles_us([n * 1000 for n in range(1, 101)])
    assert (quantiles.p50, quantiles.p99) == (50.0, 99.0)


def test_no_value_gives_no_quantile() -> None:
    assert quantiles_us([]).p50 is None


def test_the_documented_schema_is_the_typed_one() -> None:
    page = (Path(__file__).parents[2] / "docs" / "summary.md").read_text(encoding="utf-8")
    example = page.split("```json\n", 1)[1].split("```", 1)[0]
    documented = msgspec.json.decode(example.encode(), type=Summary, strict=True)
    empty = Quantiles()
    whole = Summary(
        version="",
        session=0,
        latency_us=LatencyFigures(stages={"appended": empty}),
        memory_bytes={"kafka": MemoryFigures(0, 0)},
    )
    assert paths(json.loads(example)) == paths(json.loads(encode_summary(whole)))
    assert count_problems(documented.trades, documented.signals) == []
    table = re.findall(r"^\| `(\w+)` \|", page.split("\n## ", 1)[0], re.MULTILINE)
    assert table == [field.name for field in msgspec.structs.fields(Summary)]


def paths(value: object, prefix: str = "") -> set[str]:
    """Dotted path of every field in a JSON value."""
    if not isinstance(value, dict):
        return {prefix}
    return {prefix}.union(*(paths(inner, f"{prefix}.{name}") for name, inner in value.items()))
