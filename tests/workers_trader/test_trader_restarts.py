"""A trader's process that starts again: it goes on where the one before was, in what it decides and what it remembers."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.workers_trader.trader_stage import BTC, STEP_MS, TRADER, Stage, Tell, opens

from chandlery.core.signals import signal_id
from chandlery.workers.candles import Candles
from chandlery.workers.strategy import Context, Strategy


def test_a_restart_goes_on_after_the_last_decision(stage: Stage) -> None:
    index = stage.series()
    first = stage.trader()
    first.settle()
    stage.close(index, 0, 1)
    first.settle()
    stage.close(index, 2, 3, 4)  # while no process runs
    second = stage.trader()
    second.settle()
    stage.close(index, 5)
    second.settle()
    assert opens(stage.signals()) == [0, 1, 2, 3, 4, 5]
    assert second.counters()["calls"] == 6, "counters start with the Trader, not with its process"


def test_a_restart_before_the_first_decision_misses_nothing(stage: Stage) -> None:
    index = stage.series()
    stage.close(index, 0, 1)
    stage.trader().settle()
    stage.close(index, 2)
    stage.trader().settle()
    assert opens(stage.signals()) == [2]


def test_a_decision_repeated_after_a_crash_has_the_same_ids(stage: Stage) -> None:
    """Killed between push and position: the candle is decided again, and deduplicates by id."""
    index = stage.series()
    player = stage.trader()
    player.settle()
    stage.close(index, 0)
    player.settle()
    before = stage.signals()
    player.ring.set_position(f"{BTC} 1s", 1, -1)
    stage.trader().settle()
    again = stage.signals()
    assert [signal.id for signal in again] == [signal.id for signal in before]
    assert before[0].id == signal_id(
        trader=TRADER,
        uid="u-1",
        code="c0de",
        symbol=BTC,
        interval="1s",
        open_time_ms=0,
        rule="tell",
        ordinal=0,
    )


def test_a_restart_that_comes_too_late_counts_what_it_lost(tmp_path: Path) -> None:
    stage = Stage(tmp_path, rows=128)
    index = stage.series()
    player = stage.trader()
    player.settle()
    stage.close(index, 0)
    player.settle()
    stage.signals()
    stage.close(index, *range(1, 500))
    late = stage.trader()
    late.settle()
    signals = opens(stage.signals())
    assert signals == list(range(signals[0], 500))
    assert late.counters()["lapped"] == signals[0] - 1


def test_cooldown_by_event_time_is_per_rule_and_survives_a_restart(stage: Stage) -> None:
    index = stage.series()
    spec = stage.spec(cooldown_ms=3 * STEP_MS)
    player = stage.trader(spec)
    player.settle()
    stage.close(index, *range(5))
    player.settle()
    stage.close(index, 5, 6)
    again = stage.trader(spec)
    again.settle()
    assert opens(stage.signals()) == [0, 3, 6]
    assert again.counters()["cooled_down"] == 4
    assert again.counters()["calls"] == 7


class Remembering(Tell):
    """Its state is the sum of the last three closes."""

    memory = 3

    def start(self) -> None:
        self.closes: list[float] = []

    def on_candle(self, ctx: Context, candles: Candles) -> None:
        self.closes = [*self.closes, candles.last.close][-3:]
        ctx.buy(f"sum {sum(self.closes):g}", rule="sum")


def test_state_with_a_memory_is_rebuilt_after_a_restart(stage: Stage) -> None:
    index = stage.series()
    player = stage.trader(make=Remembering)
    player.settle()
    stage.close(index, *range(5))
    player.settle()
    stage.close(index, 5)
    stage.trader(make=Remembering).settle()
    signals = stage.signals()
    assert [signal.reason for signal in signals] == ["sum 1", "sum 3", "sum 6", "sum 9", "sum 12", "sum 15"]
    assert opens(signals) == [0, 1, 2, 3, 4, 5], "running again in silence emits nothing"


class Raising(Strategy):
    """Fails on every candle."""

    def on_candle(self, ctx: Context, candles: Candles) -> None:
        ctx.buy("never leaves")
        raise RuntimeError("on purpose")


def test_a_call_that_raises_leaves_position_and_ring_alone(stage: Stage) -> None:
    index = stage.series()
    player = stage.trader(make=Raising)
    player.settle()
    stage.close(index, 0)
    with pytest.raises(RuntimeError, match="on purpose"):
        player.turn()
    assert stage.signals() == []
    assert player.ring.position(f"{BTC} 1s") == (1, -1)
    assert player.ring.get("busy_since_ns") == 0
    stage.trader().settle()
    assert opens(stage.signals()) == [0]
