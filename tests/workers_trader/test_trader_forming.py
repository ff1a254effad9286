"""Calls on forming candles: the newest only, on a copy of the state, each signal once."""

from __future__ import annotations

from pathlib import Path

from tests.workers_trader.trader_stage import STEP_MS, Stage, Tell, opens

from chandlery.workers.candles import Candles
from chandlery.workers.strategy import Context, Strategy


class Above(Strategy):
    """Buys while the last close is above 10; counts its calls in its state."""

    def start(self) -> None:
        self.calls = 0

    @property
    def warmup(self) -> int:
        return 2

    def on_candle(self, ctx: Context, candles: Candles) -> None:
        self.calls += 1
        if candles.last.close > 10:
            ctx.buy(f"call {self.calls}, {len(candles)} candles, close {candles.last.close:g}", rule="above")


def test_a_forming_signal_comes_once_and_the_close_confirms_it_with_the_same_id(stage: Stage) -> None:
    index = stage.series()
    stage.close(index, 0, 1)
    player = stage.trader(stage.spec(trigger="EveryUpdate"), Above)
    player.settle()
    for price in (5.0, 11.0, 12.0, 13.0):
        stage.form(index, 2, price)
        player.settle()
    stage.writer.append(index, 2 * STEP_MS, 11.0, 14.0, 11.0, 14.0, 1.0, 1, (0,) * 8)
    player.settle()
    signals = stage.signals()
    assert [(signal.forming, signal.price) for signal in signals] == [(True, "11"), (False, "14")]
    assert signals[0].id == signals[1].id
    assert opens(signals) == [2, 2]


def test_forming_calls_leave_no_trace_in_the_state(stage: Stage) -> None:
    index = stage.series()
    stage.close(index, 0, 1)
    player = stage.trader(stage.spec(trigger="EveryUpdate"), Above)
    player.settle()
    for price in (1.0, 2.0, 3.0, 20.0):
        stage.form(index, 2, price)
        player.settle()
    stage.writer.append(index, 2 * STEP_MS, 20.0, 20.0, 20.0, 20.0, 1.0, 1, (0,) * 8)
    player.settle()
    assert [signal.reason for signal in stage.signals()] == [
        "call 1, 2 candles, close 20",
        "call 1, 2 candles, close 20",
    ], "the closed call begins from the state before all forming ones"
    assert player.counters()["calls"] == 5


def test_only_the_newest_forming_candle_is_looked_at(stage: Stage) -> None:
    seen: list[float] = []
    Tell.meanwhile = lambda ctx, candles: seen.append(candles.last.close)
    index = stage.series()
    stage.close(index, 0)
    player = stage.trader(stage.spec(trigger="EveryUpdate"))
    player.settle()
    for price in (5.0, 6.0, 7.0):
        stage.form(index, 1, price)
    player.settle()
    player.settle()
    assert seen == [7.0]


def test_closed_candles_come_before_the_forming_one(stage: Stage) -> None:
    seen: list[tuple[float, bool]] = []
    Tell.meanwhile = lambda ctx, candles: seen.append((candles.last.close, ctx.is_forming))
    index = stage.series()
    stage.close(index, 0)
    player = stage.trader(stage.spec(trigger="EveryUpdate"))
    player.settle()
    stage.close(index, 1, 2)
    stage.form(index, 3, 99.0)
    player.settle()
    assert seen == [(2.0, False), (3.0, False), (99.0, True)]


def test_a_forming_row_of_a_candle_that_has_closed_is_ignored(stage: Stage) -> None:
    index = stage.series()
    stage.close(index, 0)
    player = stage.trader(stage.spec(trigger="EveryUpdate"))
    player.settle()
    stage.form(index, 1, 5.0)
    stage.close(index, 1)
    player.settle()
    assert [signal.forming for signal in stage.signals()] == [False]


def test_without_every_update_forming_candles_trigger_nothing(stage: Stage) -> None:
    index = stage.series()
    stage.close(index, 0)
    player = stage.trader()
    player.settle()
    stage.form(index, 1, 50.0)
    player.settle()
    assert stage.signals() == []


def test_each_candle_may_signal_again(stage: Stage) -> None:
    index = stage.series()
    stage.close(index, 0, 1)
    player = stage.trader(stage.spec(trigger="EveryUpdate"), Above)
    player.settle()
    stage.form(index, 2, 11.0)
    player.settle()
    stage.form(index, 3, 12.0)
    player.settle()
    assert opens(stage.signals()) == [2, 3]


def test_a_cooled_forming_signal_is_counted_once_a_candle(stage: Stage) -> None:
    index = stage.series()
    stage.close(index, 0, 1)
    player = stage.trader(stage.spec(trigger="EveryUpdate", cooldown_ms=5 * STEP_MS), Above)
    player.settle()
    for at in (2, 3):
        for price in (11.0, 12.0, 13.0):
            stage.form(index, at, price)
            player.settle()
    assert opens(stage.signals()) == [2]
    assert player.counters()["cooled_down"] == 1


class Twice(Tell):
    """Two signals of one rule on each candle."""

    def on_candle(self, ctx: Context, candles: Candles) -> None:
        ctx.buy("first", rule="pair")
        ctx.sell("second", rule="pair")


def test_ordinals_tell_signals_of_one_rule_apart(stage: Stage) -> None:
    index = stage.series()
    stage.close(index, 0)
    player = stage.trader(stage.spec(trigger="EveryUpdate"), Twice)
    player.settle()
    for price in (2.0, 3.0):
        stage.form(index, 1, price)
        player.settle()
    signals = stage.signals()
    assert [(signal.ordinal, signal.reason) for signal in signals] == [(0, "first"), (1, "second")]
    assert len({signal.id for signal in signals}) == 2


def test_a_full_ring_keeps_forming_signals_too(tmp_path: Path) -> None:
    stage = Stage(tmp_path, slots=1)
    index = stage.series()
    stage.close(index, 0)
    player = stage.trader(stage.spec(trigger="EveryUpdate"), Twice)
    player.settle()
    stage.form(index, 1, 2.0)
    player.turn(3)
    assert player.state() == "Blocked"
    first = stage.signals()
    player.turn()
    assert [signal.reason for signal in first + stage.signals()] == ["first", "second"]
    assert player.state() == "Active"
