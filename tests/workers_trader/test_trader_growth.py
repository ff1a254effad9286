"""A segment that grows under a trader: no candle is missed, none is decided twice, a call in between runs again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.workers_trader.trader_stage import BTC, ETH, Stage, Tell, informative, opens

from chandlery.workers.candles import Candles
from chandlery.workers.strategy import Context


@pytest.fixture(autouse=True)
def _nothing_meanwhile() -> Iterator[None]:
    yield
    Tell.meanwhile = None


def grow(stage: Stage) -> None:
    for _ in stage.writer.grow(stage.writer.capacity + 3):
        pass


def test_a_trader_follows_a_grown_segment_from_where_it_was(stage: Stage) -> None:
    index = stage.series()
    player = stage.trader()
    player.settle()
    stage.close(index, 0, 1)
    player.settle()
    grow(stage)
    index = stage.writer.add_series(BTC, "1s")
    player.settle()
    stage.close(index, 2, 3)
    grow(stage)
    index = stage.writer.add_series(BTC, "1s")
    stage.close(index, 4)
    player.settle()
    assert opens(stage.signals()) == [0, 1, 2, 3, 4]
    assert [signal.reason for signal in stage.signals()] == []
    assert player.state() == "Active"
    assert {"lapped": 0, "stale": 0, "reruns": 0}.items() <= player.counters().items()


def test_what_the_strategy_remembers_outlives_a_growth(stage: Stage) -> None:
    index = stage.series()
    player = stage.trader()
    player.settle()
    stage.close(index, 0, 1)
    player.settle()
    grow(stage)
    stage.close(stage.writer.add_series(BTC, "1s"), 2)
    player.settle()
    assert [signal.reason for signal in stage.signals()] == ["total 1", "total 3", "total 6"]


def test_a_long_call_during_the_growth_runs_again_once_on_what_is_true_now(stage: Stage) -> None:
    index = stage.series()
    player = stage.trader()
    player.settle()
    shown: list[float] = []

    def meanwhile(_: Context, candles: Candles) -> None:
        if not shown:
            grow(stage)
            stage.revise(stage.writer.add_series(BTC, "1s"), 0, 50.0)
        # The old file stays readable for as long as the call takes.
        shown.append(float(candles.close[-1]))

    Tell.meanwhile = meanwhile
    stage.close(index, 0)
    player.settle()
    assert shown == [1.0, 50.0]
    assert [(signal.open_time_ms, signal.price) for signal in stage.signals()] == [(0, "50")]
    assert player.counters()["reruns"] == 1
    assert player.counters()["calls"] == 1


class Remembers(Tell):
    """Its state goes back three candles."""

    memory = 3


@pytest.mark.parametrize("trigger", ["CandleClose", "EveryUpdate"])
def test_a_growth_in_the_middle_of_a_rehearsal_leaves_no_half_of_a_memory(stage: Stage, trigger: str) -> None:
    index = stage.series()
    stage.close(index, *range(5))
    rehearsed: list[int] = []

    def meanwhile(_: Context, candles: Candles) -> None:
        rehearsed.append(int(candles.open_time[-1]))
        if len(rehearsed) == 2:
            grow(stage)

    player = stage.trader(stage.spec(trigger=trigger), make=Remembers)
    player.settle()
    Tell.meanwhile = meanwhile
    if trigger == "EveryUpdate":
        stage.form(index, 5, 6.0)
    else:
        stage.close(index, 5)
    player.settle()
    player.settle()  # the growth has rung
    assert [signal.reason for signal in stage.signals()] == ["total 18"]  # 3 + 4 + 5, and 6
    assert rehearsed == [2000, 3000, 2000, 3000, 4000, 5000]


def test_a_growth_between_candles_that_wait_loses_and_doubles_none(stage: Stage) -> None:
    index = stage.series()
    player = stage.trader()
    player.settle()
    calls: list[int] = []

    def meanwhile(_: Context, candles: Candles) -> None:
        calls.append(int(candles.open_time[-1]))
        if len(calls) in (3, 7):
            grow(stage)

    Tell.meanwhile = meanwhile
    stage.close(index, *range(10))
    player.settle()
    assert opens(stage.signals()) == list(range(10))
    assert player.counters()["reruns"] == 2


def test_a_forming_candle_that_was_seen_is_not_seen_again_in_the_grown_segment(stage: Stage) -> None:
    index = stage.series()
    stage.close(index, 0)
    player = stage.trader(stage.spec(trigger="EveryUpdate"))
    player.settle()
    stage.form(index, 1, 5.0)
    player.settle()
    calls = player.counters()["calls"]
    grow(stage)
    player.settle()
    player.settle()
    assert player.counters()["calls"] == calls
    stage.form(stage.writer.add_series(BTC, "1s"), 1, 6.0)
    player.settle()
    assert player.counters()["calls"] == calls + 1
    grow(stage)
    stage.close(stage.writer.add_series(BTC, "1s"), 1)
    player.settle()
    assert [(signal.forming, signal.open_time_ms) for signal in stage.signals()] == [(True, 1000), (False, 1000)]
    assert player.counters()["calls"] == calls + 2


def test_informative_series_are_found_again_too(stage: Stage) -> None:
    stage.series(ETH, "1s")
    index = stage.series()
    player = stage.trader(stage.spec(informative=informative(ETH, "1s")))
    player.settle()
    grow(stage)
    assert player.settle() == 0.5
    assert player.state() != "Init"
    stage.close(stage.writer.add_series(BTC, "1s"), 0)
    player.settle()
    assert opens(stage.signals()) == [0]
    assert index == stage.writer.add_series(BTC, "1s")


def test_a_call_on_a_series_that_is_taken_away_meanwhile_is_not_run_in_vain(stage: Stage) -> None:
    index = stage.series()
    player = stage.trader()
    player.settle()
    calls: list[int] = []

    def meanwhile(_: Context, candles: Candles) -> None:
        calls.append(int(candles.open_time[-1]))
        stage.writer.remove_series(BTC, "1s")

    Tell.meanwhile = meanwhile
    stage.close(index, 0)
    player.turn(3)
    assert len(calls) == 1
    assert stage.signals() == []
