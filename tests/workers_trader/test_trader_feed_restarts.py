"""A feed that starts again, and reads up to now what it has missed: what of that is due, and what is history."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.workers_trader.trader_stage import BTC, Stage, opens

from chandlery.workers.segment import SegmentWriter
from chandlery.workers.trader import market


def test_a_superseded_segment_is_followed_from_the_position(stage: Stage) -> None:
    index = stage.series()
    player = stage.trader()
    player.settle()
    stage.close(index, 0, 1)
    player.settle()
    stage.writer.close()
    player.turn(2)
    stage.writer = SegmentWriter.create(stage.path, rows=128, series=4)
    again = stage.writer.add_series(BTC, "1s")
    player.settle()  # the new feed has not caught up yet: an empty series of no session
    stage.writer.reset(again, 1)
    stage.close(again, 0, 1, 2, 3)
    player.settle()
    assert opens(stage.signals()) == [0, 1, 2, 3]


def test_a_spoiled_segment_that_tells_nobody_of_its_successor_is_left_for_it_all_the_same(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(market, "LOOK_AT_PATH_S", 0.0)
    index = stage.series()
    player = stage.trader()
    player.settle()
    stage.close(index, 0, 1)
    player.settle()
    with Path(stage.path).open("r+b") as file:
        file.write(b"\xff" * 64)  # its successor's writer can't know where its bells are
    stage.writer.close(unlink=False)
    stage.writer = SegmentWriter.create(stage.path, rows=stage.rows, series=8)
    again = stage.series()
    stage.close(again, 0, 1, 2)
    player.settle()
    assert opens(stage.signals()) == [0, 1, 2]


def test_a_removed_and_remade_series_is_found_again(stage: Stage) -> None:
    index = stage.series()
    player = stage.trader()
    player.settle()
    stage.close(index, 0)
    player.settle()
    stage.writer.remove_series(BTC, "1s")
    player.turn()
    assert "is gone" in player.reports[-1].message
    again = stage.series()
    stage.close(again, 0, 1)
    player.settle()
    assert opens(stage.signals()) == [0, 1]


def test_what_came_after_the_last_decision_is_due_even_where_the_feed_read_it_as_history(stage: Stage) -> None:
    index = stage.series()
    first = stage.trader()
    first.settle()
    stage.close(index, 0, 1)
    first.settle()
    assert opens(stage.signals()) == [0, 1]
    # A feed that starts again reads everything up to now in catch-up: no row of its segment is live yet.
    stage.writer.close()
    stage.writer = SegmentWriter.create(stage.path, rows=stage.rows, series=8)
    again = stage.series()
    stage.close(again, 0, 1, 2, 3, live=False)
    first.settle()
    assert opens(stage.signals()) == [2, 3]


def test_a_trader_that_comes_while_the_feed_catches_up_does_not_decide_on_the_past(stage: Stage) -> None:
    index = stage.series()
    player = stage.trader()
    player.settle()
    stage.close(index, 0, 1, live=False)
    player.settle()
    stage.close(index, 2, 3, live=False)
    player.settle()
    stage.close(index, 4)
    player.settle()
    assert opens(stage.signals()) == [4]


def test_a_restart_while_the_feed_catches_up_does_not_decide_on_the_past_either(stage: Stage) -> None:
    index = stage.series()
    stage.close(index, 0, 1, live=False)
    stage.trader().settle()
    stage.close(index, 2, 3, live=False)
    stage.trader().settle()
    stage.close(index, 4)
    stage.trader().settle()
    assert opens(stage.signals()) == [4]


def test_a_feed_that_restarts_before_the_first_decision_hides_no_candle(stage: Stage) -> None:
    index = stage.series()
    stage.close(index, 0, 1)
    player = stage.trader()
    player.settle()
    stage.writer.close()
    stage.writer = SegmentWriter.create(stage.path, rows=stage.rows, series=8)
    stage.close(stage.series(), 0, 1, 2, live=False)
    player.settle()
    assert opens(stage.signals()) == [2]


def test_what_a_feed_still_reads_up_to_the_last_decision_is_not_decided_again(stage: Stage) -> None:
    index = stage.series()
    player = stage.trader()
    player.settle()
    stage.close(index, 0, 1, 2, 3)
    player.settle()
    assert opens(stage.signals()) == [0, 1, 2, 3]
    stage.writer.close()
    stage.writer = SegmentWriter.create(stage.path, rows=stage.rows, series=8)
    again = stage.series()
    for row in range(6):
        stage.close(again, row, live=False)
        player.settle()
    assert opens(stage.signals()) == [4, 5]
