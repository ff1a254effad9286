"""Which candles get a call, in which order, and what of a call counts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.workers_trader.trader_stage import BTC, ETH, STEP_MS, TRADER, Stage, Tell, opens

from chandlery.core.errors import StrategyError
from chandlery.core.signals import signal_id
from chandlery.workers.candles import Candles
from chandlery.workers.segment import SegmentWriter
from chandlery.workers.strategy import Context, Strategy
from chandlery.workers.trader.messages import STATE_CODES, Live


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    Tell.meanwhile = None
    made.writer.close()


def test_every_closed_candle_after_the_attach_gets_one_call_in_order(stage: Stage) -> None:
    index = stage.series()
    stage.close(index, 0, 1, 2)
    player = stage.trader()
    player.settle()
    assert stage.signals() == [], "what had closed before the first start is not decided on"
    stage.close(index, 3, 4)
    player.settle()
    stage.close(index, 5)
    player.settle()
    player.settle()
    assert opens(stage.signals()) == [3, 4, 5]
    assert player.counters()["calls"] == 3
    assert player.state() == "Active"


def test_a_series_that_was_empty_begins_at_its_first_live_candle(stage: Stage) -> None:
    index = stage.series()
    player = stage.trader()
    player.settle()
    stage.close(index, 0, 1, 2, backfill=True)
    player.settle()
    stage.close(index, 3, 4)
    player.settle()
    assert opens(stage.signals()) == [3, 4]


def test_history_beside_live_candles_never_triggers_later(stage: Stage) -> None:
    index = stage.series()
    stage.close(index, 0, 1, backfill=True)
    player = stage.trader()
    player.settle()
    stage.close(index, 2, backfill=True)
    player.settle()
    stage.close(index, 3)
    player.settle()
    assert opens(stage.signals()) == [3]


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


def test_stale_candles_get_no_call_and_are_counted(stage: Stage) -> None:
    index = stage.series()
    player = stage.trader(stage.spec(signal_ttl_ms=2 * STEP_MS))
    player.settle()
    stage.close(index, *range(10))
    player.settle()
    assert opens(stage.signals()) == [7, 8, 9], "those that closed at most 2 s before the newest"
    assert player.counters()["stale"] == 7
    assert player.counters()["calls"] == 3


def test_a_revision_during_the_call_discards_signals_and_state(stage: Stage) -> None:
    index = stage.series()
    player = stage.trader(stage.spec(warmup=2))
    player.settle()
    stage.close(index, 0)
    runs = itertools.count()

    def meanwhile(ctx: Context, candles: Candles) -> None:
        if next(runs) == 0:
            stage.revise(index, 0, 100.0)

    Tell.meanwhile = meanwhile
    stage.close(index, 1, 2)
    player.settle()
    signals = stage.signals()
    assert opens(signals) == [1, 2]
    assert [signal.reason for signal in signals] == ["total 2", "total 5"], "the first run's sum is forgotten"
    assert player.counters()["reruns"] == 1
    assert player.counters()["calls"] == 2


def test_rows_overwritten_during_the_call_are_not_decided_on(tmp_path: Path) -> None:
    stage = Stage(tmp_path, rows=128)
    index = stage.series()
    player = stage.trader(stage.spec(warmup=10))
    player.settle()
    stage.close(index, *range(10))
    runs = itertools.count()

    def meanwhile(ctx: Context, candles: Candles) -> None:
        if next(runs) == 0:
            stage.close(index, *range(10, 400))

    Tell.meanwhile = meanwhile
    player.settle()
    Tell.meanwhile = None
    signals = opens(stage.signals())
    counters = player.counters()
    assert counters["reruns"] == 1
    assert 9 not in signals, "its window was overwritten while the strategy looked at it"
    assert signals == list(range(signals[0], 400)), "in order and without a gap after what was lost"
    assert counters["lapped"] + len(signals) == 400 - 9, "each candle is decided or counted as lapped"


def test_a_series_that_never_rests_holds_the_loop_up_for_a_turn_only(stage: Stage) -> None:
    index = stage.series()
    player = stage.trader()
    player.settle()
    prices = itertools.count(10)
    Tell.meanwhile = lambda ctx, candles: stage.revise(index, 0, float(next(prices)))
    stage.close(index, 0)
    heartbeat = player.ring.get("heartbeat_ns")
    assert player.turn() < 0.5
    assert player.counters()["reruns"] == 8
    assert player.ring.get("heartbeat_ns") > heartbeat
    assert stage.signals() == []
    Tell.meanwhile = None
    player.settle()
    assert [signal.reason for signal in stage.signals()] == ["total 17"]


def test_a_series_removed_during_the_call_is_left_and_found_again(stage: Stage) -> None:
    index = stage.series()
    player = stage.trader()
    player.settle()
    Tell.meanwhile = lambda ctx, candles: stage.writer.remove_series(BTC, "1s")
    stage.close(index, 0)
    player.turn(3)
    assert stage.signals() == []
    Tell.meanwhile = None
    stage.close(stage.series(), 0)
    player.settle()
    assert opens(stage.signals()) == [0]


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
    stage.close(again, 2, 3, 4, 5, backfill=True)  # the new feed counts its rows from another one on
    player.turn()
    taken = opens(stage.signals())
    for _ in range(4):
        player.turn(2)
        taken += opens(stage.signals())
    assert taken == [0, 1, 2, 3, 4, 5]


def test_a_long_turn_gives_a_sign_of_life_after_each_call(stage: Stage) -> None:
    index = stage.series()
    player = stage.trader()
    player.settle()
    stage.close(index, *range(8))
    silent_ns: list[int] = []

    def meanwhile(_ctx: Context, _candles: Candles) -> None:
        silent_ns.append(stage.clock.time_ns - player.ring.get("heartbeat_ns"))
        stage.clock.advance(5)

    Tell.meanwhile = meanwhile
    player.settle()
    assert len(silent_ns) == 8
    assert max(silent_ns) < 1_000_000_000


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


def test_several_symbols_keep_state_and_position_apart(stage: Stage) -> None:
    btc, eth = stage.series(BTC), stage.series(ETH)
    player = stage.trader(stage.spec(symbols=[BTC, ETH]))
    player.settle()
    stage.close(btc, 0, 1)
    stage.close(eth, 5)
    player.settle()
    signals = stage.signals()
    assert [(signal.symbol, signal.reason) for signal in signals if signal.symbol == BTC] == [
        (BTC, "total 1"),
        (BTC, "total 3"),
    ]
    assert [signal.reason for signal in signals if signal.symbol == ETH] == ["total 6"]
    assert (player.ring.position(f"{BTC} 1s"), player.ring.position(f"{ETH} 1s")) == ((1, STEP_MS), (1, 5 * STEP_MS))


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


def test_standby_is_warm_and_silent_until_told(stage: Stage) -> None:
    index = stage.series()
    stage.close(index, 0)
    player = stage.trader(stage.spec(mode="standby"))
    player.settle()
    stage.close(index, 1, 2)
    player.settle()
    assert player.state() == "Warm"
    assert stage.signals() == []
    assert player.ring.position(f"{BTC} 1s") is None
    player.loop.apply(Live(2, 5, "active", stage.path, 0))
    player.settle()
    stage.close(index, 3)
    player.settle()
    signals = stage.signals()
    assert opens(signals) == [3]
    assert signals[0].incarnation == 5
    assert (player.state(), player.reports[-1].generation) == ("Active", 2)
    player.loop.apply(Live(3, 6, "standby", stage.path, 0))
    stage.close(index, 4)
    player.settle()
    assert player.state() == "Warm"
    player.loop.apply(Live(4, 7, "active", stage.path, 0))
    player.settle()
    stage.close(index, 5)
    player.settle()
    assert opens(stage.signals()) == [5], "what closed while in standby was another's to decide"


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
