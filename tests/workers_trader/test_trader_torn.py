"""Data that changes while a strategy looks at it: no decision on it leaves the process."""

from __future__ import annotations

import itertools
from pathlib import Path

from tests.workers_trader.trader_stage import BTC, Stage, Tell, opens

from chandlery.workers.candles import Candles
from chandlery.workers.strategy import Context


def test_a_revision_during_the_call_discards_signals_and_state(stage: Stage) -> None:
    index = stage.series()
    player = stage.trader(stage.spec(warmup=2))
    player.settle()
    stage.close(index, 0)
    runs = itertools.count()

    def meanwhile(ctx: Context, candles: Candles) -> None:
        if next(runs) == 0:
            stage.revise(index, 0, 100.0)

    Tell.meanwhile = meanwhile
    stage.close(index, 1, 2)
    player.settle()
    signals = stage.signals()
    assert opens(signals) == [1, 2]
    assert [signal.reason for signal in signals] == ["total 2", "total 5"], "the first run's sum is forgotten"
    assert player.counters()["reruns"] == 1
    assert player.counters()["calls"] == 2


def test_rows_overwritten_during_the_call_are_not_decided_on(tmp_path: Path) -> None:
    stage = Stage(tmp_path, rows=128)
    index = stage.series()
    player = stage.trader(stage.spec(warmup=10))
    player.settle()
    stage.close(index, *range(10))
    runs = itertools.count()

    def meanwhile(ctx: Context, candles: Candles) -> None:
        if next(runs) == 0:
            stage.close(index, *range(10, 400))

    Tell.meanwhile = meanwhile
    player.settle()
    Tell.meanwhile = None
    signals = opens(stage.signals())
    counters = player.counters()
    assert counters["reruns"] == 1
    assert 9 not in signals, "its window was overwritten while the strategy looked at it"
    assert signals == list(range(signals[0], 400)), "in order and without a gap after what was lost"
    assert counters["lapped"] + len(signals) == 400 - 9, "each candle is decided or counted as lapped"


def test_a_series_that_never_rests_holds_the_loop_up_for_a_turn_only(stage: Stage) -> None:
    index = stage.series()
    player = stage.trader()
    player.settle()
    prices = itertools.count(10)
    Tell.meanwhile = lambda ctx, candles: stage.revise(index, 0, float(next(prices)))
    stage.close(index, 0)
    heartbeat = player.ring.get("heartbeat_ns")
    assert player.turn() < 0.5
    assert player.counters()["reruns"] == 8
    assert player.ring.get("heartbeat_ns") > heartbeat
    assert stage.signals() == []
    Tell.meanwhile = None
    player.settle()
    assert [signal.reason for signal in stage.signals()] == ["total 17"]


def test_a_series_removed_during_the_call_is_left_and_found_again(stage: Stage) -> None:
    index = stage.series()
    player = stage.trader()
    player.settle()
    Tell.meanwhile = lambda ctx, candles: stage.writer.remove_series(BTC, "1s")
    stage.close(index, 0)
    player.turn(3)
    assert stage.signals() == []
    Tell.meanwhile = None
    stage.close(stage.series(), 0)
    player.settle()
    assert opens(stage.signals()) == [0]
