"""Signals as they stand in the ring: stamps, size, text."""

from __future__ import annotations

import socket
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.workers_trader.trader_stage import STAMPS, Stage

from chandlery.core.assignment import TraderAssignment
from chandlery.core.errors import InvariantError, StrategyError
from chandlery.core.signals import MAX_SIGNAL_BYTES, Signal, SignalStamps, decode_signal
from chandlery.workers.trader.signal_writer import check_room, decimal_text, encode_signal


def test_a_signal_carries_its_whole_account_and_no_stage_runs_backwards(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    index = stage.series()
    player = stage.trader()
    player.settle()
    published_ns = stage.clock.time_ns + 5_000_000
    woken_ns = stage.clock.time_ns
    stage.clock.advance(0.01)
    stage.writer.append(index, 0, 1.0, 1.0, 1.0, 61_837.6, 1.0, 1, (*STAMPS[:6], published_ns, -3))
    player.loop.turn(woken_ns)
    (signal,) = stage.signals()
    stamps = signal.stamps
    stages = [getattr(stamps, name) for name in SignalStamps.__struct_fields__[:10]]
    assert stages[:7] == [*STAMPS[:6], published_ns]
    assert stages == sorted(stages), "woken before published would be a negative stage"
    assert (stamps.recorded_skew_ns, stamps.wall_offset_ns) == (-3, 7)
    assert signal.emitted_wall_ms == (stamps.signalled_ns + 7) // 1_000_000
    assert signal.strategy_ns > 0
    assert signal.price == "61837.6"
    assert (signal.strategy, signal.code, signal.trader) == ("tell", "c0de", "desk/alpha")


def test_rows_without_stamps_still_give_signals(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    index = stage.series()
    player = stage.trader()
    player.settle()
    stage.close(index, *range(100))  # the segment keeps stamps of the newest 64
    player.settle()
    signals = stage.signals()
    assert len(signals) == 100
    assert signals[0].stamps.exchange_ns == 0
    assert signals[-1].stamps.exchange_ns == STAMPS[0]


def test_the_feed_is_told_with_one_byte(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bell:
        bell.bind(str(tmp_path / "bell.sock"))
        bell.settimeout(5)
        index = stage.series()
        player = stage.trader()
        player.settle()
        stage.close(index, 0)
        player.settle()
        assert len(bell.recv(100)) == 1


def make_signal(reason: str, rule: str = "rule", trader: str = "desk/alpha") -> Signal:
    wall, monotonic = 1_900_000_000_000_000_000, 300_000_000_000_000_000  # the host is up for ten years
    return Signal(
        id="f" * 32,
        trader=trader,
        strategy="bollinger-breakout",
        code="c" * 16,
        rule=rule,
        ordinal=0,
        action="custom",
        symbol="1000SATS/USDT:USDT",
        interval="15m",
        open_time_ms=1_900_000_000_000,
        session=1_900_000_000_000,
        price="0.00000012345",
        strength=0.123457,
        reason=reason,
        forming=True,
        incarnation=1_000,
        revision=1_000_000,
        emitted_wall_ms=1_900_000_000_000,
        strategy_ns=123_456_789,
        stamps=SignalStamps(*[wall, monotonic, wall], *[monotonic] * 7, *[0, -monotonic, wall]),
    )


@given(st.text(max_size=200))
def test_a_signal_always_fits_its_slot_and_the_reason_gives_way(reason: str) -> None:
    payload = encode_signal(make_signal(reason, "r" * 32, "n" * 63 + "/" + "t" * 63))
    assert len(payload) <= MAX_SIGNAL_BYTES
    assert reason.startswith(decode_signal(payload).reason)


def test_names_that_leave_no_room_are_refused_before_the_first_signal() -> None:
    spec = TraderAssignment("n" * 63 + "/" + "t" * 253, "u", "s" * 64, ["BTC/USDT"], "1m")
    with pytest.raises(StrategyError, match="too long") as caught:
        check_room(spec, "s" * 64)
    assert caught.value.reason == "BadParameter"
    check_room(TraderAssignment("desk/alpha", "u", "sma-cross", ["1000SATS/USDT:USDT"], "15m"), "bollinger-breakout")


def test_a_reason_that_fits_is_kept_whole() -> None:
    reason = "SMA10 61837.63 crossed above SMA30 61800.1"
    assert decode_signal(encode_signal(make_signal(reason))).reason == reason


def test_what_can_never_fit_is_a_defect_and_not_a_loop() -> None:
    with pytest.raises(InvariantError, match="without a reason"):
        encode_signal(make_signal("why", rule="r" * 900))


@given(st.floats(min_value=1e-12, max_value=1e12))
def test_prices_are_exact_plain_decimals(value: float) -> None:
    text = decimal_text(value)
    assert float(text) == value
    assert set(text) <= set("0123456789.")
    assert not text.endswith(".")


def test_control_characters_never_reach_a_terminal(tmp_path: Path) -> None:
    from chandlery.workers.trader.signal_writer import _one_line

    assert _one_line("a\x1b[31mb\nc") == "a [31mb c"
    assert len(_one_line("x" * 500)) == 200
    assert msgspec.json.encode(_one_line("\u2028"))


def test_a_full_announcement_queue_costs_no_new_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(tmp_path)
    made: list[int] = []
    real = socket.socket

    def counted(*words: int) -> socket.socket:
        made.append(1)
        return real(*words)

    with real(socket.AF_UNIX, socket.SOCK_DGRAM) as bell:
        bell.bind(str(tmp_path / "bell.sock"))  # nobody takes anything off
        index = stage.series()
        player = stage.trader()
        player.settle()
        monkeypatch.setattr("chandlery.workers.trader.signal_writer.socket.socket", counted)
        for at in range(1_000):
            stage.close(index, at)
            player.turn()
            stage.signals()
    assert len(made) == 1
