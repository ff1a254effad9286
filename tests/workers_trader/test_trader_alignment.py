"""Informative series: no look-ahead, both sides of a shared close, patience with an end."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.workers_trader.trader_stage import BTC, ETH, STEP_MS, Player, Stage

from chandlery.core.assignment import SeriesRef
from chandlery.core.errors import StrategyError
from chandlery.core.intervals import parse_interval
from chandlery.workers.candles import Candles
from chandlery.workers.strategy import Context, Strategy
from chandlery.workers.trader.alignment import newest_visible_ms

INTERVALS = ["1s", "5s", "1m", "5m", "15m", "1h", "4h", "1d", "1w", "1M", "3M"]
TIMES_MS = st.integers(min_value=0, max_value=2_000_000_000_000)


@given(st.sampled_from(INTERVALS), st.sampled_from(INTERVALS), TIMES_MS)
def test_the_newest_visible_candle_is_closed_and_the_next_is_not(own: str, other: str, time_ms: int) -> None:
    decision, informative = parse_interval(own), parse_interval(other)
    close_ms = decision.next_ms(decision.floor_ms(time_ms))
    visible_ms = newest_visible_ms(informative, close_ms)
    assert informative.next_ms(visible_ms) <= close_ms, "it has closed by then"
    following_ms = informative.next_ms(visible_ms)
    assert informative.next_ms(following_ms) > close_ms, "and it is the newest that has"


class Beside(Strategy):
    """Tells the newest open time and the number of rows of its informative series."""

    symbol = ETH
    interval = "5s"

    def on_candle(self, ctx: Context, candles: Candles) -> None:
        other = ctx.informative(self.interval, symbol=self.symbol)
        newest = int(other.open_time[-1]) if len(other) else -1
        ctx.buy(f"{newest} {float(np.sum(other.close)):g}", rule="beside")


def spec_refs() -> list[SeriesRef]:
    return [SeriesRef(ETH, "5s")]


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_whatever_the_order_of_arrival_a_decision_sees_the_same_candles(data: st.DataObject) -> None:
    """Two feeds' worth of rows in any interleaving, turns anywhere in between."""
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(Path(folder))
        own, other = stage.series(BTC), stage.series(ETH, "5s")
        player = stage.trader(stage.spec(informative=spec_refs(), warmup=3), Beside)
        player.settle()
        rows = {own: list(range(20)), other: list(range(4))}
        while rows[own] or rows[other]:
            index = data.draw(st.sampled_from([index for index in (own, other) if rows[index]]))
            at = rows[index].pop(0)
            stage.close(index, at, step_ms=STEP_MS if index == own else 5 * STEP_MS)
            if data.draw(st.booleans()):
                player.turn()
        player.settle()
        stage.writer.close()
        signals = stage.signals()
        assert [signal.open_time_ms // STEP_MS for signal in signals] == list(range(2, 20))
        for signal in signals:
            close_ms = signal.open_time_ms + STEP_MS
            closed = close_ms // (5 * STEP_MS)  # how many 5 s candles have closed by then
            newest = (closed - 1) * 5 * STEP_MS if closed else -1
            total = sum(range(max(0, closed - 3) + 1, closed + 1))
            assert signal.reason == f"{newest} {total:g}", signal
        assert player.counters()["informative_missing"] == 0


def pending(stage: Stage) -> tuple[Player, int, int]:
    """A trader whose decision at 5 s waits for the informative candle that closes then."""
    own, other = stage.series(BTC), stage.series(ETH, "5s")
    player = stage.trader(stage.spec(informative=spec_refs()), Beside)
    player.settle()
    stage.close(own, *range(5))
    wait = player.settle()
    assert wait == 0.5
    assert len(stage.signals()) == 4, "the first four don't end with an informative candle"
    return player, own, other


def test_patience_ends_and_is_counted(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    player, own, _ = pending(stage)
    stage.clock.advance(1.0)
    player.turn()
    assert stage.signals() == []
    stage.clock.advance(1.1)
    player.settle()
    assert [signal.reason for signal in stage.signals()] == ["-1 0"]
    assert player.counters()["informative_missing"] == 1
    # A series that has fallen silent is not waited for again at every candle …
    stage.close(own, *range(5, 10))
    player.settle()
    assert len(stage.signals()) == 5
    assert player.counters()["informative_missing"] == 6


def test_patience_returns_when_the_series_does(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    player, own, other = pending(stage)
    stage.clock.advance(2.5)
    player.settle()
    stage.signals()
    stage.close(other, 0, step_ms=5 * STEP_MS)
    stage.close(own, *range(5, 10))
    player.settle()
    assert len(stage.signals()) == 4, "the fifth waits again"
    stage.close(other, 1, step_ms=5 * STEP_MS)
    player.settle()
    assert [signal.reason for signal in stage.signals()] == [f"{5 * STEP_MS} 2"]


def test_a_waiting_symbol_holds_no_other_symbol_up(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    btc, eth, _ = stage.series(BTC), stage.series(ETH), stage.series(BTC, "5s")

    class OwnOnly(Strategy):
        def on_candle(self, ctx: Context, candles: Candles) -> None:
            if ctx.symbol == BTC:
                ctx.informative("5s")
            ctx.buy("1", rule="any")

    player = stage.trader(stage.spec(symbols=[BTC, ETH], informative=[SeriesRef(BTC, "5s")]), OwnOnly)
    player.settle()
    stage.close(btc, 4)
    stage.close(eth, 4)
    player.turn(3)
    assert [signal.symbol for signal in stage.signals()] == [ETH]


def test_a_revision_of_the_informative_series_reruns_the_decision(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    own, other = stage.series(BTC), stage.series(ETH, "5s")
    runs: list[float] = []

    class Watched(Strategy):
        def on_candle(self, ctx: Context, candles: Candles) -> None:
            seen = float(ctx.informative("5s", symbol=ETH).last.close)
            runs.append(seen)
            if len(runs) == 1:
                stage.revise(other, 0, 42.0, step_ms=5 * STEP_MS)
            ctx.buy(f"{seen:g}", rule="seen")

    player = stage.trader(stage.spec(informative=spec_refs()), Watched)
    player.settle()
    stage.close(other, 0, step_ms=5 * STEP_MS)
    stage.close(own, 4)
    player.settle()
    assert runs == [1.0, 42.0]
    assert [signal.reason for signal in stage.signals()] == ["42"]
    assert player.counters()["reruns"] == 1


def test_a_series_the_trader_does_not_list_is_a_clear_error(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    index = stage.series()
    player = stage.trader(make=Beside)
    player.settle()
    stage.close(index, 0)
    with pytest.raises(StrategyError, match=r"reads 5s of ETH/USDT.*market\.informative") as caught:
        player.turn()
    assert caught.value.reason == "UnknownInformative"
