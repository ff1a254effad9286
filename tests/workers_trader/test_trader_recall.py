"""A Trader whose pod has taken its positions with it decides what has closed meanwhile: by the wall clock alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.workers_trader.trader_stage import BTC, STEP_MS, Player, Stage, opens

from chandlery.core.assignment import TraderAssignment
from chandlery.core.intervals import parse_interval
from chandlery.workers.trader.messages import Live
from chandlery.workers.trader.recall import recall_from_ms

TTL_MS = 10 * STEP_MS
#: A moment of another year than the candles of these tests.
_NOW_MS = 1_750_000_000_000


def clock(stage: Stage, wall_s: float) -> None:
    """Set the wall clock; candle n closes at second n + 1."""
    stage.clock.time_ns = int(wall_s * 1e9)


def since(stage: Stage, since_s: float, **changes: Any) -> TraderAssignment:
    return stage.spec(since_ms=int(since_s * 1000), signal_ttl_ms=TTL_MS, **changes)


def test_at_its_first_start_a_trader_begins_after_the_newest_candle(stage: Stage) -> None:
    index = stage.series()
    stage.close(index, 0, 1, 2, 3, 4)
    clock(stage, 5.6)
    player = stage.trader(since(stage, 5.5))
    player.settle()
    assert (stage.signals(), player.counters()["last_open_time_ms"]) == ([], 4 * STEP_MS)
    stage.close(index, 5, 6)
    player.settle()
    assert opens(stage.signals()) == [5, 6]


@pytest.mark.parametrize("live", [True, False])
def test_what_closed_between_assignment_and_start_is_decided_from_the_candle_on_that_was_forming_then(
    stage: Stage, live: bool
) -> None:
    index = stage.series()
    stage.close(index, *range(8), live=live)
    clock(stage, 8.2)
    player = stage.trader(since(stage, 5.5))
    player.settle()
    assert opens(stage.signals()) == [5, 6, 7], "also before anything live comes"
    stage.close(index, 8)
    player.settle()
    assert opens(stage.signals()) == [8]


@pytest.mark.parametrize("first", [0, 5, 19])
def test_in_a_new_pod_it_decides_the_last_ttl_however_far_the_feed_has_read_when_it_comes(
    stage: Stage, first: int
) -> None:
    index = stage.series()
    clock(stage, 30.5)
    stage.close(index, *range(first), live=False)
    player = stage.trader(since(stage, 2.0))
    player.settle()
    assert stage.signals() == [], "the clock tells that there is more to come"
    for at in range(first, 30):
        stage.close(index, at, live=False)
        player.settle()
    stage.close(index, 30)
    player.settle()
    assert opens(stage.signals()) == list(range(19, 31))
    assert (player.counters()["stale"], player.counters()["lapped"]) == (0, 0)


def test_a_pod_that_dies_before_the_first_decision_leaves_the_next_process_what_was_due(stage: Stage) -> None:
    index = stage.series()
    clock(stage, 20.5)
    stage.close(index, 0, 1, 2, live=False)
    stage.trader(since(stage, 12.0)).settle()
    again = stage.trader(since(stage, 12.0))
    stage.close(index, *range(3, 20), live=False)
    again.settle()
    assert opens(stage.signals()) == list(range(12, 20))
    third = stage.trader(since(stage, 12.0))
    stage.close(index, 20)
    third.settle()
    assert opens(stage.signals()) == [20], "its position tells now"


def test_the_end_of_the_ttl_moves_on_while_a_feed_has_to_wait_for_its_history(stage: Stage) -> None:
    index = stage.series()
    clock(stage, 10.5)
    player = stage.trader(since(stage, 2.0))
    player.settle()
    clock(stage, 30.5)
    stage.close(index, *range(30), live=False)
    player.settle()
    assert opens(stage.signals()) == list(range(19, 30))


@pytest.mark.parametrize("live", [True, False])
def test_backfill_is_history_for_it_too(stage: Stage, live: bool) -> None:
    index = stage.series()
    clock(stage, 9.5)
    stage.close(index, *range(6), backfill=True, live=False)
    stage.close(index, 6, 7, 8, live=live)
    player = stage.trader(since(stage, 2.0))
    player.settle()
    assert opens(stage.signals()) == [6, 7, 8]


def test_one_that_was_rolled_out_begins_at_its_bound(stage: Stage) -> None:
    index = stage.series()
    clock(stage, 9.5)
    stage.close(index, *range(9), live=False)
    player = stage.trader(since(stage, 6.0, from_ms=6 * STEP_MS))
    player.settle()
    assert opens(stage.signals()) == [6, 7, 8]


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("since_ms", [_NOW_MS - 3_600_000, _NOW_MS + 60_000, 3 * STEP_MS])
def test_in_a_replay_of_another_year_it_begins_as_ever(stage: Stage, since_ms: int, live: bool) -> None:
    index = stage.series()
    clock(stage, _NOW_MS / 1000)
    stage.close(index, *range(9), live=live)
    player = stage.trader(stage.spec(since_ms=since_ms, signal_ttl_ms=TTL_MS))
    player.settle()
    assert stage.signals() == []
    stage.close(index, 9, live=False)
    player.settle()
    assert opens(stage.signals()) == ([9] if live else []), "history is no candle of its own"
    stage.close(index, 10)
    player.settle()
    assert opens(stage.signals()) == [10]


@pytest.mark.parametrize("live", [True, False])
def test_where_a_market_s_times_run_ahead_of_the_clock_it_begins_as_ever(stage: Stage, live: bool) -> None:
    index = stage.series()
    clock(stage, 5.5)
    stage.close(index, *range(9), live=live)
    player = stage.trader(since(stage, 2.0))
    player.settle()
    assert stage.signals() == []
    stage.close(index, 9)
    player.settle()
    assert opens(stage.signals()) == [9]


@pytest.mark.parametrize("changes", [{"since_ms": 0}, {"signal_ttl_ms": 0}])
def test_without_a_since_or_a_ttl_it_begins_as_ever(stage: Stage, changes: dict[str, int]) -> None:
    index = stage.series()
    clock(stage, 9.5)
    stage.close(index, *range(9))
    player = stage.trader(stage.spec(**{"since_ms": 2 * STEP_MS, "signal_ttl_ms": TTL_MS, **changes}))
    player.settle()
    stage.close(index, 9)
    player.settle()
    assert opens(stage.signals()) == [9]


@pytest.mark.parametrize("live", [True, False])
def test_one_that_becomes_active_without_a_bound_leaves_what_closed_while_it_stood_by(stage: Stage, live: bool) -> None:
    index = stage.series()
    clock(stage, 9.5)
    stage.close(index, *range(5), live=live)
    player = stage.trader(stage.spec(mode="standby", signal_ttl_ms=TTL_MS, since_ms=2 * STEP_MS))
    player.settle()
    stage.close(index, *range(5, 9), live=live)
    player.loop.apply(Live(1, "active", stage.path, 0))
    player.settle()
    stage.close(index, 9)
    player.settle()
    assert opens(stage.signals()) == [9]


def test_a_session_that_began_while_the_pod_was_gone_is_decided_from_its_first_candle_on(stage: Stage) -> None:
    index = stage.series(session=1)
    clock(stage, 20.5)
    player = stage.trader(since(stage, 2.0))
    stage.close(index, *range(14), live=False)
    player.settle()
    assert opens(stage.signals()) == [9, 10, 11, 12, 13]
    stage.writer.reset(index, 2)
    stage.close(index, *range(14, 20), live=False)
    player.settle()
    assert opens(stage.signals()) == list(range(14, 20))


def test_nothing_of_an_older_session_keeps_it_from_what_is_due_in_the_newest(stage: Stage) -> None:
    index = stage.series(session=1)
    clock(stage, 20.5)
    player = stage.trader(since(stage, 2.0))
    stage.close(index, *range(6), live=False)
    player.settle()
    assert stage.signals() == [], "too old by the clock"
    stage.writer.reset(index, 2)
    stage.close(index, *range(6, 20), live=False)
    player.settle()
    assert opens(stage.signals()) == list(range(9, 20))


@pytest.mark.parametrize("live", [True, False])
def test_what_the_pod_before_signalled_cools_as_it_did_there(stage: Stage, live: bool) -> None:
    index = stage.series()
    stage.close(index, *range(30), live=live)
    clock(stage, 30.5)
    player = stage.trader(since(stage, 12.0, cooldown_ms=5 * STEP_MS))
    player.settle()
    # The pod before signalled on 12, 17, 22 and 27; candles before 12 were nobody's.
    assert opens(stage.signals()) == [22, 27]


@pytest.mark.parametrize(("since_s", "first"), [(99.9, 99), (100.1, 100)])
def test_nothing_cools_a_new_trader_down_that_was_before_its_time(stage: Stage, since_s: float, first: int) -> None:
    index = stage.series()
    stage.close(index, *range(100))  # live for others
    clock(stage, 100.2)
    player = stage.trader(since(stage, since_s, cooldown_ms=60 * STEP_MS))
    player.settle()
    for at in range(100, 115):
        stage.close(index, at)
        player.settle()
    player = stage.trader(since(stage, since_s, cooldown_ms=60 * STEP_MS))  # nor its next process
    for at in range(115, 170):
        stage.close(index, at)
        player.settle()
    assert opens(stage.signals()) == [first, first + 60]


@pytest.mark.parametrize("positions", [True, False])
def test_a_resumed_trader_is_cooled_down_by_what_it_signalled_itself_alone(stage: Stage, positions: bool) -> None:
    index = stage.series()
    stage.close(index, *range(89))
    clock(stage, 89.1)
    cooldown_ms = 8 * STEP_MS
    if positions:  # suspended in this very pod
        before = stage.trader(since(stage, 88.5, cooldown_ms=cooldown_ms))
        before.settle()
        stage.close(index, *range(89, 99))
        before.settle()
        assert opens(stage.signals()) == [88, 96]
    else:  # or in one that is gone
        stage.close(index, *range(89, 99))
    stage.close(index, 99)
    clock(stage, 100.2)
    player = stage.trader(since(stage, 99.5, cooldown_ms=cooldown_ms))
    player.settle()
    stage.close(index, *range(100, 108))
    player.settle()
    assert opens(stage.signals()) == ([104] if positions else [99, 107])


def test_candles_overwritten_before_they_could_be_recalled_are_counted(tmp_path: Path) -> None:
    stage = Stage(tmp_path, rows=128)
    index = stage.series()
    stage.close(index, *range(300), live=False)
    clock(stage, 300.5)
    player = stage.trader(stage.spec(since_ms=50_000, signal_ttl_ms=200 * STEP_MS))
    player.settle()
    decided = opens(stage.signals())
    assert decided == list(range(decided[0], 300))
    assert player.counters()["lapped"] == decided[0] - 99
    stage.writer.close()


def test_with_an_end_it_decides_what_is_due_before_it_and_retires(stage: Stage) -> None:
    index = stage.series()
    clock(stage, 20.5)
    stage.close(index, *range(11), live=False)
    player = stage.trader(since(stage, 2.0, until_ms=14 * STEP_MS))
    player.turn(3)
    assert player.state() == "Active"
    stage.close(index, *range(11, 20), live=False)
    player.turn(3)
    assert opens(stage.signals()) == [9, 10, 11, 12, 13]
    player.turn()
    assert player.state() == "Retired"


def test_an_end_before_all_that_is_due_is_an_end(stage: Stage) -> None:
    index = stage.series()
    clock(stage, 20.5)
    stage.close(index, *range(5), live=False)
    player = stage.trader(since(stage, 2.0, until_ms=5 * STEP_MS))
    player.turn(3)
    assert (stage.signals(), player.state()) == ([], "Retired")


@given(
    text=st.sampled_from(["1s", "1m", "15m", "4h", "1d", "1w", "1M"]),
    since_ms=st.integers(1, 2_000_000_000_000),
    ttl_ms=st.integers(1, 10**10),
    wall_ms=st.integers(10**11, 2_000_000_000_000),
)
def test_what_closes_after_since_and_is_no_staler_than_the_newest_allows_is_due(
    text: str, since_ms: int, ttl_ms: int, wall_ms: int
) -> None:
    interval = parse_interval(text)
    spec = TraderAssignment(
        trader="d/a", uid="u", strategy="s", symbols=[BTC], interval=text, since_ms=since_ms, signal_ttl_ms=ttl_ms
    )
    newest_ms = interval.floor_ms(interval.floor_ms(wall_ms) - 1)
    from_ms = recall_from_ms(spec, interval, newest_ms, wall_ms)
    candle_ms = newest_ms
    for _ in range(20):
        closes_ms = interval.next_ms(candle_ms)
        is_due = closes_ms > since_ms and newest_ms - candle_ms <= ttl_ms
        assert (candle_ms >= from_ms) == is_due
        candle_ms = interval.floor_ms(candle_ms - 1)


@hypothesis_settings(max_examples=50, deadline=None)
@given(st.data())
def test_however_often_its_pod_is_lost_no_candle_within_the_ttl_is(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Pod by pod, each with nothing of the one before: what each decides is what has closed, ttl and since alone."""
    begin = data.draw(st.integers(0, 12), "assigned in candle")
    ttl = data.draw(st.integers(1, 12), "ttl")
    count = begin
    for number in range(data.draw(st.integers(1, 3), "pods")):
        count += data.draw(st.integers(0, 6), "candles while no pod is there")
        stage = Stage(tmp_path_factory.mktemp("pod"), rows=128)
        index = stage.series()
        clock(stage, count + 0.5)
        spec = stage.spec(since_ms=begin * STEP_MS + 300, signal_ttl_ms=ttl * STEP_MS)
        restart = _restarter(stage, spec)
        attach = data.draw(st.integers(0, count), "history read when it attaches")
        stage.close(index, *range(attach), live=False)
        player = restart()
        player.turn()
        for at in range(attach, count):
            stage.close(index, at, live=False)
            if data.draw(st.booleans(), f"turn {number}"):
                player.turn()
        if data.draw(st.booleans(), "the process ends"):
            player.ring.close()
            player = restart()
        player.settle()
        expected = list(range(max(begin, count - 1 - ttl), count))
        for _ in range(data.draw(st.integers(0, 5), "live candles")):
            stage.close(index, count)
            expected.append(count)
            count += 1
            clock(stage, count + 0.5)
            player.settle()
        assert opens(stage.signals()) == expected
        player.ring.close()
        stage.writer.close()


def _restarter(stage: Stage, spec: TraderAssignment) -> Callable[[], Player]:
    return lambda: stage.trader(TraderAssignment(**{name: getattr(spec, name) for name in spec.__struct_fields__}))
