"""A feed that starts reads its way up through older sessions: what was decided there stays decided."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.workers_trader.trader_stage import Stage, opens


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    made.writer.close()


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
