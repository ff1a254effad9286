"""What telemetry's cost is measured by: ticks are traced and exported, pairs do equal work, the trader is a real process."""

from __future__ import annotations

import logging

import pytest
from benchmarks import telemetry_cost
from benchmarks._telemetry_ticks import Pair, Pass, exporting_us, feed_pairs, more_us, off_us, rate_ratio, trader_pairs


async def test_what_is_traced_of_ticks_leaves_within_the_pass_that_pays_for_it() -> None:
    pairs = await feed_pairs(400, 2, 0.25)
    for pair in pairs:
        assert pair.on.traces > 40, "a quarter of the live records, exported"
        assert pair.off.traces == 0
        assert pair.on.exporting_us > 10 * pair.off.exporting_us


def test_a_pairs_passes_are_compared_with_each_other_before_any_median_is_taken() -> None:
    """A machine that is three times as slow in one pair says nothing of telemetry."""
    pairs = [Pair(Pass(10.0 * slow, 0.0, 10.0 * slow, 0), Pass(10.5 * slow, 0.5, 11.0 * slow, 5)) for slow in (1, 2, 3)]
    assert rate_ratio(pairs) == pytest.approx(10 / 11)
    assert more_us(pairs) == pytest.approx(1.5)
    assert (exporting_us(pairs), off_us(pairs)) == (0.5, 20.0)


def test_a_real_traders_process_is_measured_on_both_sides() -> None:
    for off_us_each, on_us_each in trader_pairs(40, 1, 0.25):
        assert off_us_each > 1
        assert on_us_each > 1


def test_every_figure_of_ticks_has_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Pair(Pass(10.0, 0.0, 10.0, 0), Pass(10.1, 0.2, 10.4, 5))

    async def pairs(*_: object) -> list[Pair]:
        return [one]

    async def beside(_: int) -> float:
        return 100.0

    monkeypatch.setattr(logging, "disable", lambda _: None)  # it would outlast the test
    monkeypatch.setattr(telemetry_cost, "feed_pairs", pairs)
    monkeypatch.setattr(telemetry_cost, "trader_pairs", lambda *_: [(100.0, 100.2)])
    monkeypatch.setattr(telemetry_cost, "beside_us", beside)
    monkeypatch.setattr(telemetry_cost, "in_the_way_us", lambda _: 5.0)
    monkeypatch.setattr(telemetry_cost, "memory_mb", lambda _: 1.0)
    rows = {row.name.removeprefix("telemetry_cost/"): row for row in telemetry_cost.measure(True)}
    assert rows["tick"].value == pytest.approx(0.3), "the export is in it"
    assert rows["tick_export"].value == 0.2
    assert rows["tick_in_trader"].value == pytest.approx(0.2)
    assert rows["feed_ratio"].value == pytest.approx(10 / 10.4)
    assert not rows["feed_ratio"].holds
    assert rows["tick"].holds
    assert {"tick_default", "feed_ratio_ticks", "signal_beside"} <= rows.keys()
