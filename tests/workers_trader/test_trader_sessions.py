"""Sessions of a market: what was decided in an older one stays decided, and a new one is decided from its beginning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.workers_trader.trader_stage import STEP_MS, Stage, opens

from chandlery.workers.segment import SegmentWriter


def up_through_sessions(stage: Stage, index: int, look: Callable[[], object]) -> None:
    """What a catching-up feed does to a series: session 1 again, then session 2 again with one candle more."""
    stage.writer.reset(index, 1)
    stage.close(index, 0, 1)
    look()
    stage.writer.reset(index, 2)
    stage.close(index, 10, 11, 12)
    look()


def decided_in_session_2(stage: Stage) -> int:
    """A trader's process that decided on candles 10 and 11 of session 2; returns the series."""
    index = stage.series(session=1)
    player = stage.trader()
    player.settle()
    stage.close(index, 0, 1)
    player.settle()
    stage.writer.reset(index, 2)
    stage.close(index, 10, 11)
    player.settle()
    assert opens(stage.signals()) == [0, 1, 10, 11]
    return index


def test_a_new_process_that_meets_an_older_session_decides_nothing_again(stage: Stage) -> None:
    index = decided_in_session_2(stage)
    player = stage.trader()
    up_through_sessions(stage, index, player.settle)
    assert opens(stage.signals()) == [12]
    assert player.counters()["stale"] == 0


def test_a_process_that_lives_through_it_decides_nothing_again(stage: Stage) -> None:
    index = stage.series(session=1)
    player = stage.trader()
    player.settle()
    stage.close(index, 0, 1)
    player.settle()
    stage.writer.reset(index, 2)
    stage.close(index, 10, 11)
    player.settle()
    stage.signals()
    up_through_sessions(stage, index, player.settle)
    assert opens(stage.signals()) == [12]


def decided_in_session_1(stage: Stage) -> None:
    """A trader's process decided on candles 0 and 1 of session 1, and ended."""
    index = stage.series(session=1)
    player = stage.trader()
    player.settle()
    stage.close(index, 0, 1)
    player.settle()
    assert opens(stage.signals()) == [0, 1]


def begun_while_the_feed_was_down(stage: Stage, *candles: int, history: tuple[int, ...] = ()) -> int:
    """A new feed's segment: session 1 read again, then session 2, whose candles closed while there was no feed."""
    stage.writer.close()
    stage.writer = SegmentWriter.create(stage.path, rows=stage.rows, series=8)
    index = stage.series(session=1)
    stage.close(index, 0, 1, live=False)
    stage.writer.reset(index, 2)
    stage.close(index, *history, backfill=True, live=False)
    stage.close(index, *candles, live=False)
    return index


@pytest.mark.parametrize("lives", [True, False], ids=["the process lives", "another process"])
def test_candles_of_a_session_that_began_while_the_feed_was_down_get_their_calls(stage: Stage, lives: bool) -> None:
    index = stage.series(session=1)
    player = stage.trader()
    player.settle()
    stage.close(index, 0, 1)
    player.settle()
    stage.signals()
    index = begun_while_the_feed_was_down(stage, 10, 11, history=(7, 8, 9))
    player = player if lives else stage.trader()
    player.settle()
    assert opens(stage.signals()) == [10, 11], "what the market had as history is nobody's to decide on"
    stage.close(index, 12)
    player.settle()
    assert opens(stage.signals()) == [12]
    stage.trader().settle()
    assert stage.signals() == [], "and each once"


def test_of_such_a_session_what_is_older_than_the_ttl_is_counted_instead(stage: Stage) -> None:
    decided_in_session_1(stage)
    begun_while_the_feed_was_down(stage, *range(10, 20), history=(9,))
    player = stage.trader(stage.spec(signal_ttl_ms=3 * STEP_MS))
    player.settle()
    assert opens(stage.signals()) == [16, 17, 18, 19]
    assert player.counters()["stale"] == 6


def test_of_such_a_session_what_the_segment_no_longer_holds_is_counted_too(tmp_path: Path) -> None:
    stage = Stage(tmp_path, rows=80)
    decided_in_session_1(stage)
    begun_while_the_feed_was_down(stage, *range(10, 110))
    player = stage.trader()
    player.settle()
    decided = opens(stage.signals())
    assert decided[-1] == 109
    assert len(decided) + player.counters()["lapped"] == 100
    stage.writer.close()


def test_while_only_history_of_a_new_session_is_there_nothing_is_due(stage: Stage) -> None:
    decided_in_session_1(stage)
    index = begun_while_the_feed_was_down(stage, history=(7, 8, 9))
    player = stage.trader()
    player.settle()
    assert stage.signals() == []
    stage.close(index, 10, live=False)
    player.settle()
    assert opens(stage.signals()) == [10]


def test_a_trader_that_met_only_history_before_does_not_decide_on_a_session_that_is_read_later(stage: Stage) -> None:
    """It came while the feed reads its way up through sessions: all of them are the past."""
    index = stage.series(session=1)
    stage.close(index, 0, 1, live=False)
    player = stage.trader()
    player.settle()
    stage.writer.reset(index, 2)
    stage.close(index, 10, 11, live=False)
    player.settle()
    stage.trader().settle()
    assert stage.signals() == []
    stage.close(index, 12)
    player.settle()
    assert opens(stage.signals()) == [12]


def test_a_new_session_begins_afresh_at_its_first_live_candle(stage: Stage) -> None:
    index = stage.series(session=1)
    player = stage.trader()
    player.settle()
    stage.close(index, 5, 6)
    player.settle()
    stage.writer.reset(index, 2)
    stage.close(index, 0, 1, backfill=True)
    stage.close(index, 2, 3)
    player.settle()
    signals = stage.signals()
    assert [(signal.session, signal.open_time_ms // STEP_MS) for signal in signals] == [(1, 5), (1, 6), (2, 2), (2, 3)]
    assert [signal.reason for signal in signals][2:] == ["total 3", "total 7"], "no state of the old session"


def test_a_session_that_began_while_no_process_ran_is_decided_from_its_beginning(stage: Stage) -> None:
    index = stage.series(session=1)
    player = stage.trader()
    player.settle()
    stage.close(index, 50)
    player.settle()
    stage.signals()
    stage.writer.reset(index, 2)
    stage.close(index, 0, 1)
    stage.trader().settle()
    assert opens(stage.signals()) == [0, 1]
