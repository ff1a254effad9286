"""What a ring's item must be to become a signal, without a ring."""

from __future__ import annotations

from typing import Any

import pytest
from tests.workers_feed.feed_setup import signal

from chandlery.core.signals import Signal, SignalStamps, encode
from chandlery.workers.feed.admission import RecentIds, admit
from chandlery.workers.feed.assignments import Fence
from chandlery.workers.feed.forming_signals import FormingSignals
from chandlery.workers.segment import SignalRing

BTC = "BTC/USDT"


def admitted(**changes: Any) -> tuple[Signal | None, str, str]:
    one = signal("a", 1, **changes)
    fence = Fence(one.incarnation, "active", frozenset({BTC}), one.interval)
    found = admit(encode(one), one.trader, fence, RecentIds(), FormingSignals())
    taken = found.records[0] if found.records else None
    assert taken is None or isinstance(taken, Signal)
    return taken, found.reason, found.message


@pytest.mark.parametrize("field", SignalStamps.__struct_fields__)
@pytest.mark.parametrize("said", [10**400, 2**63, -(2**63)])
def test_a_time_beyond_64_bits_is_no_signals(field: str, said: int) -> None:
    taken, counter, why = admitted(stamps=SignalStamps(**{field: said}))
    assert (taken, counter) == (None, "bad_signal")
    assert "64 bits" in why
    assert admitted(strategy_ns=said)[1] == "bad_signal"
    assert admitted(ttl_ms=said)[1] == "bad_signal"


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_a_payload_nested_deeper_than_any_decoder_follows_is_no_signal_and_no_end_of_the_feed(opening: bytes) -> None:
    """A slot holds a thousand brackets: one trader must not end the feed of all by them."""
    payload = (b'{"trader":"a","x":' + opening * 1_000)[: SignalRing.SLOT_PAYLOAD]
    fence = Fence(1, "active", frozenset({BTC}), "1s")
    found = admit(payload, "a", fence, RecentIds(), FormingSignals())
    assert (found.records, found.reason) == ((), "bad_signal")
    assert "undecodable" in found.message


@pytest.mark.parametrize("field", ["open_time_ms", "emitted_wall_ms", "session", "revision", "ordinal"])
def test_a_number_beyond_64_bits_is_no_signals(field: str) -> None:
    for said in (10**400, 2**63, -(2**63)):
        taken, counter, why = admitted(**{field: said})
        assert (taken, counter) == (None, "bad_signal")
        assert "64 bits" in why
    assert admitted(**{field: 2**63 - 1})[0] is not None


def test_the_largest_times_pass() -> None:
    taken, counter, _ = admitted(stamps=SignalStamps(*[2**63 - 1] * 17), strategy_ns=2**63 - 1)
    assert (taken is not None, counter) == (True, "")
