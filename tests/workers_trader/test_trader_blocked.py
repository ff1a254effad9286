"""A full signal ring: the trader pauses, and decides on every candle all the same."""

from __future__ import annotations

from pathlib import Path

from tests.workers_trader.trader_stage import Stage, opens

from chandlery.workers.segment import SegmentWriter
from chandlery.workers.trader.messages import STATE_CODES


def test_a_full_ring_pauses_the_trader_and_loses_nothing(tmp_path: Path) -> None:
    stage = Stage(tmp_path, slots=4)
    index = stage.series()
    player = stage.trader()
    player.settle()
    stage.close(index, *range(11))
    taken: list[int] = []
    for _ in range(40):
        if player.turn() >= 0.5:
            break
        if player.state() == "Blocked":
            player.turn(3)
            assert player.ring.depth == 4
            assert player.ring.get("state") == STATE_CODES["Blocked"]
            taken += opens(stage.signals())
    taken += opens(stage.signals())
    assert taken == list(range(11))
    assert player.state() == "Active"
    assert player.counters()["blocked"] == 2


def test_a_feed_that_restarts_while_the_ring_is_full_loses_no_candle(tmp_path: Path) -> None:
    stage = Stage(tmp_path, slots=2)
    index = stage.series()
    player = stage.trader()
    player.settle()
    stage.close(index, 0, 1, 2, 3)
    player.turn()
    assert player.state() == "Blocked"
    stage.writer.close()
    stage.writer = SegmentWriter.create(stage.path, rows=stage.rows, series=8)
    again = stage.series()
    stage.close(again, 2, 3, 4, 5, live=False)  # the new feed counts its rows from another one on
    player.turn()
    taken = opens(stage.signals())
    for _ in range(4):
        player.turn(2)
        taken += opens(stage.signals())
    assert taken == [0, 1, 2, 3, 4, 5]


def test_a_crash_while_blocked_decides_the_candle_again(tmp_path: Path) -> None:
    stage = Stage(tmp_path, slots=2)
    index = stage.series()
    player = stage.trader()
    player.settle()
    stage.close(index, *range(4))
    player.turn(2)
    assert player.state() == "Blocked"
    first = opens(stage.signals())
    stage.trader().settle()
    assert first + opens(stage.signals()) == [0, 1, 2, 3]
