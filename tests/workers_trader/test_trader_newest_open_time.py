"""How far an incarnation has come, as its status tells: the newest candle that it has decided."""

from __future__ import annotations

import pytest
from tests.workers_trader.trader_stage import BTC, ETH, STEP_MS, Stage, retired, told


def test_the_newest_open_time_is_the_newest_over_all_symbols(stage: Stage) -> None:
    btc, eth = stage.series(), stage.series(ETH, session=2)
    spec = stage.spec(symbols=[BTC, ETH])
    stage.trader(spec).settle()
    stage.close(btc, 4)
    stage.trader(spec).settle()
    stage.close(eth, 2)
    player = stage.trader(spec)
    player.settle()
    assert player.counters()["last_open_time_ms"] == 4 * STEP_MS


@pytest.mark.parametrize(("from_ms", "inherited", "done"), [(0, 0, 4), (3 * STEP_MS, 0, 0), (3 * STEP_MS, STEP_MS, 2)])
def test_one_that_has_decided_nothing_yet_tells_where_it_begins(
    stage: Stage, from_ms: int, inherited: int, done: int
) -> None:
    btc, eth = stage.series(), stage.series(ETH)
    stage.close(btc, 0, 1, 2, 3, 4)
    stage.close(eth, 0, 1)
    player = stage.trader(stage.spec(symbols=[BTC, ETH], from_ms=from_ms, until_ms=from_ms or None))
    player.ring.set("last_open_time_ms", inherited)
    player.settle()
    assert player.counters()["calls"] == 0
    told_ms = player.counters()["last_open_time_ms"]
    assert told_ms == done * STEP_MS, "whoever bounds it knows: nothing before is its; 0: its own bound says so"


def test_one_that_meets_only_history_does_not_tell_where_it_begins(stage: Stage) -> None:
    index = stage.series()
    stage.close(index, 0, 1, 2, live=False)
    player = stage.trader()
    player.settle()
    assert player.counters()["last_open_time_ms"] == 0


def test_an_end_behind_the_beginning_is_one_candle_s_length_away_whatever_the_interval(stage: Stage) -> None:
    step_ms = 300_000
    index = stage.series(interval="5m")
    stage.close(index, 0, 1, step_ms=step_ms)
    player = stage.trader(stage.spec(interval="5m"))
    player.settle()
    assert player.counters()["last_open_time_ms"] == step_ms
    player.loop.apply(told(stage, until_ms=2 * step_ms, orders=2))
    assert retired(player), "nothing of its own is left"
    stage.close(index, 2, step_ms=step_ms)
    player.settle()
    assert stage.signals() == []


@pytest.mark.parametrize("restart", [False, True])
def test_the_newest_open_time_goes_back_once_all_symbols_have_come_to_the_next_session(
    stage: Stage, restart: bool
) -> None:
    btc, eth = stage.series(), stage.series(ETH)
    spec = stage.spec(symbols=[BTC, ETH])
    stage.close(btc, *range(50))
    stage.close(eth, *range(49))
    player = stage.trader(spec)
    player.settle()
    stage.writer.reset(btc, 2)
    stage.close(btc, 0, 1)
    player.settle()
    stage.close(eth, 49, 50)  # late, and of the session before
    player.settle()
    assert player.counters()["last_open_time_ms"] == 50 * STEP_MS
    stage.writer.reset(eth, 2)
    stage.close(eth, 0)
    stage.close(btc, 2, 3)
    if restart:
        player = stage.trader(spec)
    player.settle()
    stage.close(btc, 4)
    player.settle()
    assert player.counters()["last_open_time_ms"] == 4 * STEP_MS


def test_a_candle_whose_signal_has_left_shows_although_the_process_was_killed_before_its_position(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    index = stage.series()
    stage.close(index, 0)
    player = stage.trader()
    player.settle()
    stage.close(index, 1)
    with monkeypatch.context() as context:
        context.setattr(player.loop, "_complete", die)
        with pytest.raises(Killed):
            player.settle()
    (left,) = stage.signals()
    again = stage.trader(stage.spec(until_ms=STEP_MS))
    assert retired(again)
    assert again.counters()["last_open_time_ms"] == STEP_MS, "so the end moves behind it"
    again.loop.apply(told(stage, until_ms=2 * STEP_MS))
    again.turn(2)
    assert [each.id for each in stage.signals()] == [left.id]
    assert retired(again)
