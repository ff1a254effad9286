"""From one incarnation to the next at a candle: each closed candle is decided by exactly one of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.workers_trader.trader_stage import BTC, ETH, STEP_MS, Player, Stage, Tell, opens, retired, told

from chandlery.core.assignment import TraderAssignment
from chandlery.core.signals import Signal
from chandlery.workers.candles import Candles
from chandlery.workers.strategy import Context


def test_an_incarnation_decides_up_to_its_end_and_retires_when_the_broker_has_all(stage: Stage) -> None:
    index = stage.series()
    stage.close(index, 0)
    player = stage.trader()
    player.settle()
    player.loop.apply(told(stage, until_ms=3 * STEP_MS, orders=2))
    player.settle()
    assert (player.state(), player.reports[-1].orders) == ("Active", 2)
    stage.close(index, 1, 2)
    player.turn(3)
    assert player.state() == "Active", "what it signalled is not acknowledged"
    stage.close(index, 3, 4)
    player.turn(3)
    assert player.state() == "Active"
    assert opens(stage.signals()) == [1, 2]
    assert retired(player)
    stage.close(index, 5)
    player.settle()
    assert (stage.signals(), player.state()) == ([], "Retired")


def test_it_retires_without_a_later_candle_once_the_last_of_its_own_is_decided(stage: Stage) -> None:
    index = stage.series()
    stage.close(index, 0)
    player = stage.trader(stage.spec(until_ms=2 * STEP_MS))
    player.settle()
    assert player.state() == "Active"
    stage.close(index, 1)
    player.turn(2)
    assert opens(stage.signals()) == [1]
    assert retired(player), "the next candle opens at its end: in a quiet market that may be long ago"


def test_over_a_gap_the_forming_candle_tells_that_nothing_of_its_own_comes(stage: Stage) -> None:
    index = stage.series()
    stage.close(index, 0)
    player = stage.trader(stage.spec(until_ms=5 * STEP_MS))
    stage.form(index, 1, 1.0)
    player.settle()
    assert player.state() == "Active"
    stage.form(index, 6, 2.0)
    assert retired(player)


def test_every_symbol_has_to_come_to_the_end(stage: Stage) -> None:
    btc, eth = stage.series(), stage.series(ETH)
    stage.close(btc, 0)
    stage.close(eth, 0)
    player = stage.trader(stage.spec(symbols=[BTC, ETH], until_ms=2 * STEP_MS))
    player.settle()
    stage.close(btc, 1, 2)
    player.settle()
    stage.signals()
    player.settle()
    assert player.state() == "Active"
    stage.close(eth, 1)
    player.turn(2)
    assert [(each.symbol, each.open_time_ms) for each in stage.signals()] == [(ETH, STEP_MS)]
    assert retired(player)
    assert player.counters()["last_open_time_ms"] == STEP_MS


def test_an_end_that_is_moved_or_taken_away_lets_it_go_on(stage: Stage) -> None:
    index = stage.series()
    stage.close(index, 0)
    player = stage.trader()
    player.settle()
    stage.close(index, 1)
    player.settle()
    # The orders come too late: candle 1 is decided, and its status says so.
    player.loop.apply(told(stage, until_ms=STEP_MS, orders=2))
    player.turn()
    assert player.counters()["last_open_time_ms"] == STEP_MS
    assert opens(stage.signals()) == [1]
    stage.close(index, 2, 3, 4)
    assert retired(player)
    player.loop.apply(told(stage, until_ms=3 * STEP_MS, orders=3))
    player.turn(2)
    assert opens(stage.signals()) == [2]
    assert retired(player)
    player.loop.apply(told(stage, orders=4))
    player.settle()
    assert opens(stage.signals()) == [3, 4]
    assert player.state() == "Active"


def test_the_next_one_stands_by_and_then_decides_also_what_closed_meanwhile(stage: Stage) -> None:
    index = stage.series()
    stage.close(index, 0, 1)
    player = stage.trader(stage.spec(mode="standby"))
    player.settle()
    stage.close(index, 2, 3, 4)
    player.settle()
    assert (player.state(), stage.signals()) == ("Warm", [])
    player.loop.apply(told(stage, from_ms=3 * STEP_MS, orders=2))
    player.settle()
    stage.close(index, 5)
    player.settle()
    signals = stage.signals()
    assert opens(signals) == [3, 4, 5]
    assert player.state() == "Active"


class Remembers(Tell):
    memory = 2


def test_it_is_warmed_by_the_candles_of_the_one_before_without_a_signal(stage: Stage) -> None:
    index = stage.series()
    stage.close(index, 0, 1, 2)  # closes 1, 2, 3
    player = stage.trader(stage.spec(mode="standby"), make=Remembers)
    player.settle()
    player.loop.apply(told(stage, from_ms=3 * STEP_MS))
    stage.close(index, 3)
    player.settle()
    (signal,) = stage.signals()
    assert signal.reason == "total 9", "two closes before its first candle, and that"


class RaisesFrom(Tell):
    """Raises where its memory holds a candle: once it has seen two."""

    memory = 2

    def on_candle(self, ctx: Context, candles: Candles) -> None:
        super().on_candle(ctx, candles)
        if self.total > candles.last.close:
            raise ValueError("on purpose")


def test_a_strategy_that_raises_does_so_in_standby_before_it_is_warm(stage: Stage) -> None:
    index = stage.series()
    stage.close(index, 0)
    player = stage.trader(stage.spec(mode="standby", strategy="tell"), make=lambda: RaisesFrom({"rows": 2}))
    player.settle()
    assert player.state() == "Ready", "not enough candles for a call"
    stage.close(index, 1, 2)
    with pytest.raises(ValueError, match="on purpose"):
        player.settle()
    assert [each.state for each in player.reports] == ["Ready"]


def test_calls_in_standby_leave_no_trace(stage: Stage) -> None:
    index = stage.series()
    stage.close(index, 0, 1, 2)
    player = stage.trader(stage.spec(mode="standby"), make=Remembers)
    player.settle()
    assert (player.state(), player.counters()["calls"], stage.signals()) == ("Warm", 0, [])
    player.loop.apply(told(stage))
    player.settle()
    stage.close(index, 3)
    player.settle()
    (signal,) = stage.signals()
    assert signal.reason == "total 9"


def test_what_is_older_than_the_ttl_at_activation_is_counted_instead(stage: Stage) -> None:
    index = stage.series()
    stage.close(index, 0)
    player = stage.trader(stage.spec(mode="standby", signal_ttl_ms=2 * STEP_MS))
    player.settle()
    stage.close(index, *range(1, 8))
    player.loop.apply(told(stage, from_ms=2 * STEP_MS))
    player.settle()
    assert opens(stage.signals()) == [5, 6, 7]
    assert player.counters()["stale"] == 3


def test_a_start_at_once_from_a_candle_decides_what_the_feed_read_as_history(stage: Stage) -> None:
    index = stage.series()
    stage.close(index, 0, 1, backfill=True, live=False)
    stage.close(index, 2, 3, 4, live=False)
    player = stage.trader(stage.spec(from_ms=3 * STEP_MS))
    player.settle()
    assert opens(stage.signals()) == [3, 4]


def test_backfill_is_history_for_whoever_begins_in_it(stage: Stage) -> None:
    index = stage.series()
    stage.close(index, 0, 1, backfill=True, live=False)
    player = stage.trader(stage.spec(from_ms=STEP_MS))
    player.settle()
    assert player.ring.position(f"{BTC} 1s") is None
    stage.close(index, 2, 3)
    player.settle()
    assert opens(stage.signals()) == [2, 3]


def test_after_a_restart_the_stored_position_counts_where_it_has_come_further(stage: Stage) -> None:
    index = stage.series()
    stage.close(index, 0, 1, 2)
    spec = stage.spec(from_ms=STEP_MS)
    stage.trader(spec).settle()
    assert opens(stage.signals()) == [1, 2]
    stage.close(index, 3)
    again = stage.trader(spec)
    again.settle()
    assert opens(stage.signals()) == [3]
    bare = stage.trader(stage.spec())
    stage.close(index, 4)
    bare.settle()
    assert opens(stage.signals()) == [4], "with the bound gone as well"


def test_a_beginning_is_kept_before_anything_is_decided(stage: Stage) -> None:
    index = stage.series()
    stage.close(index, 0)
    stage.trader(stage.spec(from_ms=2 * STEP_MS)).settle()
    stage.close(index, 1, 2, 3)
    bare = stage.trader(stage.spec())  # killed and started anew, when nobody tells the bound any more
    bare.settle()
    assert opens(stage.signals()) == [2, 3]


def test_candles_overwritten_while_it_stood_by_are_counted(tmp_path: Path) -> None:
    stage = Stage(tmp_path, rows=128)
    index = stage.series()
    stage.close(index, 0)
    player = stage.trader(stage.spec(mode="standby"))
    player.settle()
    stage.close(index, *range(1, 150))
    player.loop.apply(told(stage, from_ms=10 * STEP_MS))
    player.settle()
    decided = opens(stage.signals())
    assert decided == list(range(decided[0], 150))
    assert player.counters()["lapped"] == decided[0] - 10
    stage.writer.close()


def test_where_a_market_s_times_begin_again_a_beginning_that_lies_behind_is_no_bound(stage: Stage) -> None:
    index = stage.series()
    stage.close(index, 0, 1, 2, 3)
    spec = stage.spec(from_ms=3 * STEP_MS)
    player = stage.trader(spec)
    player.settle()
    assert opens(stage.signals()) == [3]
    stage.writer.reset(index, 2)  # a replay: the same times in a session of their own
    stage.close(index, 0, 1)
    player.settle()
    stage.trader(spec).settle()
    stage.close(index, 2)
    stage.trader(spec).settle()
    assert opens(stage.signals()) == [0, 1, 2]


def test_a_next_session_doesn_t_lift_a_beginning_that_lies_ahead(stage: Stage) -> None:
    index = stage.series()
    stage.close(index, 0)
    player = stage.trader(stage.spec(from_ms=3 * STEP_MS))
    player.settle()
    stage.writer.reset(index, 2)
    stage.close(index, 1, 2, 3)
    player.settle()
    assert opens(stage.signals()) == [3], "the ones before are decided by the one before"


def test_a_cooldown_goes_on_over_the_handover(stage: Stage) -> None:
    index = stage.series()
    stage.close(index, 0, 1)
    player = stage.trader(stage.spec(mode="standby", cooldown_ms=3 * STEP_MS))
    player.settle()
    stage.close(index, 2, 3, 4, 5)
    player.loop.apply(told(stage, from_ms=2 * STEP_MS, mode="active"))
    player.settle()
    # By the same rule the one before signalled on 0, and would have on 3.
    assert opens(stage.signals()) == [3]
    assert player.counters()["cooled_down"] == 3


@pytest.mark.parametrize("orders", [{"until_ms": 2 * STEP_MS}, {"from_ms": 3 * STEP_MS}])
def test_forming_calls_keep_to_the_bounds(stage: Stage, orders: dict[str, int]) -> None:
    index = stage.series()
    stage.close(index, 0)
    player = stage.trader(stage.spec(trigger="EveryUpdate", **orders))
    player.settle()
    stage.form(index, 1, 1.0)
    player.settle()
    first = opens(stage.signals())
    stage.close(index, 1)
    stage.form(index, 2, 1.0)
    player.turn(3)
    second = opens(stage.signals())
    stage.close(index, 2)
    stage.form(index, 3, 1.0)
    player.turn(3)
    assert (first, second, opens(stage.signals())) == (([1], [1], []) if "until_ms" in orders else ([], [], [3]))


@hypothesis_settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_the_bounds_and_restarts_each_candle_has_one_decision(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """One incarnation after another over the same candles: T by T, restarts anywhere, orders late or early."""
    count = data.draw(st.integers(6, 30), "candles")
    bounds = sorted(data.draw(st.sets(st.integers(2, count - 1), min_size=1, max_size=3), "bounds"))
    decided: list[tuple[int, int]] = []
    stage = Stage(tmp_path_factory.mktemp("handover"), rows=128)
    index = stage.series()
    stage.close(index, 0)
    spans = list(zip([0, *bounds], [*bounds, None], strict=True))
    specs = [
        stage.spec(incarnation=number + 1, mode="standby" if begin else "active")
        for number, (begin, _) in enumerate(spans)
    ]
    players = [_player(stage, spec) for spec in specs]
    for player in players:
        player.settle()
    # When each is told: its end before the candle there closes, its beginning at any time after that.
    ends = [end and data.draw(st.integers(1, end), "end told") for _, end in spans]
    begins = [
        begin and data.draw(st.integers(ends[at - 1] or 1, count), "begin told") for at, (begin, _) in enumerate(spans)
    ]
    for candle in range(1, count + 1):
        for at, (begin, end) in enumerate(spans):
            changed = False
            if begin and begins[at] == candle:
                specs[at].mode, specs[at].from_ms, changed = "active", begin * STEP_MS, True
            if end and ends[at] == candle:
                specs[at].until_ms, changed = end * STEP_MS, True
            if data.draw(st.booleans(), "restart"):
                players[at].ring.close()
                players[at] = _player(stage, specs[at])
            elif changed:
                orders = told(stage, mode=specs[at].mode, from_ms=specs[at].from_ms, until_ms=specs[at].until_ms)
                players[at].loop.apply(orders)
        if candle < count:
            stage.close(index, candle)
        for at in data.draw(st.permutations(range(len(players))), "order"):
            players[at].turn(2)
    for at, player in enumerate(players):
        player.turn(5)
        stage.ring_path = str(stage.folder / f"{at + 1}.ring")
        signals: list[Signal] = stage.signals()
        decided += [(candle, at) for candle in opens(signals)]
        if spans[at][1] is not None:
            assert retired(player)
        player.ring.close()
    expected = [(c, at) for at, (begin, end) in enumerate(spans) for c in range(max(begin, 1), end or count)]
    assert sorted(decided) == sorted(expected)
    stage.writer.close()


@hypothesis_settings(max_examples=60, deadline=None)
@given(st.data())
def test_an_incarnation_decides_what_position_bounds_and_ttl_leave_it(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """One incarnation against the rule said plainly: from its beginning or position on, before its end, not stale."""
    backfill = data.draw(st.integers(0, 3), "rows of backfill")
    begin = data.draw(st.integers(1, 12), "from")
    end = data.draw(st.one_of(st.none(), st.integers(0, 16)), "until")
    ttl = data.draw(st.integers(0, 4), "ttl")
    position = data.draw(st.one_of(st.none(), st.integers(backfill, 8)), "position")
    active_after = data.draw(st.integers(0, 3), "bursts while it stands by")
    bursts = data.draw(st.lists(st.integers(1, 5), min_size=active_after + 1, max_size=6), "bursts")
    stage = Stage(tmp_path_factory.mktemp("rule"), rows=128)
    index = stage.series()
    stage.close(index, *range(backfill), backfill=True, live=False)
    spec = stage.spec(mode="standby", from_ms=begin * STEP_MS, signal_ttl_ms=ttl * STEP_MS)
    spec.until_ms = None if end is None else end * STEP_MS
    player = _player(stage, spec)
    if position is not None:
        player.ring.set_position(f"{BTC} 1s", 1, position * STEP_MS)
    first = max(begin, backfill, -1 if position is None else position + 1)
    expected: list[int] = []
    waiting: list[int] = []
    count = backfill
    for at, burst in enumerate(bursts):
        new = range(count, count + burst)
        stage.close(index, *new, live=data.draw(st.booleans(), "live"))
        count += burst
        waiting += [row for row in new if row >= first and (end is None or row < end)]
        if at == active_after:
            spec.mode = "active"
            player.loop.apply(told(stage, from_ms=spec.from_ms, until_ms=spec.until_ms))
        if data.draw(st.booleans(), "restart"):
            player.ring.close()
            player = _player(stage, spec)
        player.turn(2)
        if spec.mode == "active":
            expected += [row for row in waiting if not ttl or count - 1 - row <= ttl]
            waiting = []
    signals = stage.signals()
    assert opens(signals) == expected
    assert retired(player) == (end is not None and (count >= end or first >= end) and count > backfill)
    player.ring.close()
    stage.writer.close()


def _player(stage: Stage, spec: TraderAssignment) -> Player:
    stage.ring_path = str(stage.folder / f"{spec.incarnation}.ring")
    return stage.trader(TraderAssignment(**{name: getattr(spec, name) for name in spec.__struct_fields__}))
