"""What a trader waits for before its first call, and how much history a call sees."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.workers_trader.trader_stage import Stage, Tell, opens

from chandlery.core.errors import StrategyError
from chandlery.workers.segment import SegmentWriter


def test_a_series_that_appears_later_is_waited_for(stage: Stage) -> None:
    player = stage.trader()
    assert player.turn() < 0.5
    assert player.state() == "Init"
    assert player.reports[-1].message == "waits for series BTC/USDT 1s"
    index = stage.series()
    player.settle()
    stage.close(index, 0)
    player.settle()
    assert opens(stage.signals()) == [0]


def test_a_missing_segment_is_waited_for_and_named(stage: Stage, tmp_path: Path) -> None:
    stage.writer.close()
    player = stage.trader()
    player.turn(3)
    assert player.state() == "Init"
    assert "segment" in player.reports[-1].message
    stage.writer = SegmentWriter.create(stage.path, rows=256, series=8)
    stage.series()
    player.settle()
    assert player.state() == "Ready"


def test_a_call_sees_exactly_as_many_candles_as_it_needs_and_none_before(stage: Stage) -> None:
    seen: list[list[float]] = []
    Tell.meanwhile = lambda ctx, candles: seen.append(candles.close.tolist())
    index = stage.series()
    player = stage.trader(stage.spec(warmup=2), lambda: Tell({"rows": 3}))
    player.settle()
    assert (player.state(), player.reports[-1].warm_have, player.reports[-1].warm_need) == ("Ready", 0, 3)
    stage.close(index, 0, 1)
    player.settle()
    assert player.state() == "Ready"
    stage.close(index, 2, 3)
    player.settle()
    assert player.state() == "Active"
    assert seen == [[1.0, 2.0, 3.0], [2.0, 3.0, 4.0]]
    assert opens(stage.signals()) == [2, 3]


def test_a_manifest_can_ask_for_more_history_than_the_strategy(stage: Stage) -> None:
    index = stage.series()
    player = stage.trader(stage.spec(warmup=4), lambda: Tell({"rows": 3}))
    player.settle()
    stage.close(index, *range(5))
    player.settle()
    assert opens(stage.signals()) == [3, 4]


def test_more_history_than_the_segment_keeps_is_a_clear_error(stage: Stage) -> None:
    stage.series()
    player = stage.trader(make=lambda: Tell({"rows": 4_000}))
    with pytest.raises(StrategyError, match="needs 4000 closed candles, more than the segment keeps") as caught:
        player.turn()
    assert caught.value.reason == "BadParameter"
