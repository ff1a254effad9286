"""Which candles get a call, in which order, and what of a call counts."""

from __future__ import annotations

from tests.workers_trader.trader_stage import BTC, ETH, STEP_MS, Stage, Tell, opens

from chandlery.workers.candles import Candles
from chandlery.workers.strategy import Context
from chandlery.workers.trader.messages import Live


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


def test_stale_candles_get_no_call_and_are_counted(stage: Stage) -> None:
    index = stage.series()
    player = stage.trader(stage.spec(signal_ttl_ms=2 * STEP_MS))
    player.settle()
    stage.close(index, *range(10))
    player.settle()
    assert opens(stage.signals()) == [7, 8, 9], "those that closed at most 2 s before the newest"
    assert player.counters()["stale"] == 7
    assert player.counters()["calls"] == 3


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
    player.loop.apply(Live(2, "active", stage.path, 0))
    player.settle()
    stage.close(index, 3)
    player.settle()
    signals = stage.signals()
    assert opens(signals) == [3]
    assert signals[0].incarnation == 1
    assert (player.state(), player.reports[-1].generation) == ("Active", 2)
    player.loop.apply(Live(3, "standby", stage.path, 0))
    stage.close(index, 4)
    player.settle()
    assert player.state() == "Warm"
    player.loop.apply(Live(4, "active", stage.path, 0))
    player.settle()
    stage.close(index, 5)
    player.settle()
    assert opens(stage.signals()) == [5], "what closed while in standby was another's to decide"


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


def test_the_copy_laid_by_for_the_next_call_is_of_the_state_that_counts_then(stage: Stage) -> None:
    index = stage.series()
    stage.close(index, 0)
    player = stage.trader()
    player.settle()
    for at in range(1, 4):
        stage.close(index, at)
        player.settle()
    assert [signal.reason for signal in stage.signals()] == ["total 2", "total 5", "total 9"]

    def revise(_: Context, candles: Candles) -> None:
        Tell.meanwhile = None
        stage.revise(index, 4, 50.0)

    stage.close(index, 4)
    Tell.meanwhile = revise
    player.settle()
    assert [signal.reason for signal in stage.signals()] == ["total 59"], (
        "the call that counts for nothing left its sum"
    )
    assert player.counters()["reruns"] == 1
