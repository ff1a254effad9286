"""A Trader whose interval changes: what it had decided at the other one says nothing of this one."""

from __future__ import annotations

from tests.workers_trader.trader_stage import BTC, ETH, Stage, opens

MINUTE_MS = 60_000


def test_another_interval_begins_after_the_newest_candle_and_so_does_the_way_back(stage: Stage) -> None:
    seconds, minutes = stage.series(BTC, "1s"), stage.series(BTC, "1m")
    stage.close(seconds, 0)
    stage.close(minutes, 0, step_ms=MINUTE_MS)
    first = stage.trader(stage.spec(interval="1m"))
    first.settle()
    stage.close(minutes, 1, step_ms=MINUTE_MS)
    first.settle()
    assert [each.open_time_ms for each in stage.signals()] == [MINUTE_MS]
    # Every one of these seconds is newer than the minute decided last, and none is this Trader's to decide.
    stage.close(seconds, 61, 62, 119)
    edited = stage.trader(stage.spec(interval="1s", generation=2))
    edited.settle()
    assert stage.signals() == []
    stage.close(seconds, 120)
    edited.settle()
    assert opens(stage.signals()) == [120]
    stage.close(minutes, 2, 3, step_ms=MINUTE_MS)
    back = stage.trader(stage.spec(interval="1m", generation=3))
    back.settle()
    assert stage.signals() == []
    stage.close(minutes, 4, step_ms=MINUTE_MS)
    back.settle()
    assert [each.open_time_ms for each in stage.signals()] == [4 * MINUTE_MS]


def test_a_symbol_that_comes_back_begins_anew_and_the_one_that_stayed_goes_on(stage: Stage) -> None:
    btc, eth = stage.series(BTC), stage.series(ETH)
    both = stage.trader(stage.spec(symbols=[BTC, ETH]))
    both.settle()
    stage.close(btc, 0)
    stage.close(eth, 0)
    both.settle()
    stage.trader(stage.spec(generation=2)).settle()
    stage.signals()
    stage.close(btc, 1)
    stage.close(eth, 1)
    again = stage.trader(stage.spec(symbols=[BTC, ETH], generation=3))
    again.settle()
    stage.close(eth, 2)
    again.settle()
    signals = stage.signals()
    assert opens([each for each in signals if each.symbol == BTC]) == [1]
    assert opens([each for each in signals if each.symbol == ETH]) == [2]
