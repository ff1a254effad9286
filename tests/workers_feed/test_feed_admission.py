"""What a ring's item must be to become a signal, without a ring."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.workers_feed.feed_setup import signal

from chandlery.core.signals import Decided, Life, Signal, SignalStamps, encode
from chandlery.workers.feed.admission import RecentIds, admit
from chandlery.workers.feed.assignments import Fence
from chandlery.workers.feed.forming_signals import FormingSignals, MissedCloses
from chandlery.workers.feed.ring_drain import RingDrain, Tally
from chandlery.workers.segment import SignalRing

BTC = "BTC/USDT"


def admitted(**changes: Any) -> tuple[Signal | None, str, str]:
    one = signal("a", 1, **changes)
    fence = Fence(one.incarnation, "active", frozenset({BTC}), one.interval)
    found = admit(encode(one), one.trader, fence, RecentIds(), FormingSignals(), MissedCloses())
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
    found = admit(payload, "a", fence, RecentIds(), FormingSignals(), MissedCloses())
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


class Closing:
    """A ring whose trader has signalled on two forming candles; what the feed tells as it takes slot by slot."""

    def __init__(self, folder: Path) -> None:
        self.path = path = folder / "a.ring"
        self.ring = SignalRing.create(str(path), trader="desk/a", slots=32)
        self.tally = Tally()
        self.fence = Fence(1, "active", frozenset({BTC}), "1m")
        self._drain = RingDrain("desk/a@1", path, path.stat().st_ino, self.tally, Counter())
        self._ids, self._forming = RecentIds(), FormingSignals()
        self.tell(signal("a", 1, forming=True), signal("a", 2, forming=True))

    def tell(self, *items: Signal | Decided | bytes, mode: str = "active") -> list[str]:
        """The states of what is told of what is put into the ring now."""
        for item in items:
            assert self.ring.push(item if isinstance(item, bytes) else encode(item))
        fence = msgspec.structs.replace(self.fence, mode=mode)
        taken = self._drain.take(fence, self._ids, self._forming)
        return [entry.record.state for entry in taken if isinstance(entry.record, Life)]


def decided(number: int) -> Decided:
    return Decided("desk/a", "c", BTC, "1m", number, 0, incarnation=1, at_wall_ms=900 + number)


def test_a_close_whose_signals_were_fenced_withdraws_nothing_though_it_ends_when_the_fence_is_open(
    tmp_path: Path,
) -> None:
    closing = Closing(tmp_path)
    assert closing.tell(signal("a", 1), mode="standby") == []
    assert closing.tell(decided(1)) == []
    assert closing.tally.lives == {"incomplete": 1}
    assert closing.tell(decided(2)) == ["invalidated"], "another close lacks nothing"
    assert closing.tell(signal("a", 1), decided(1)) == ["confirmed"], "who decides on it anew may tell"


@pytest.mark.parametrize("bad", [b"no signal", encode(signal("a", 1, price="much"))])
def test_a_close_of_which_a_slot_is_no_signal_withdraws_nothing(tmp_path: Path, bad: bytes) -> None:
    closing = Closing(tmp_path)
    assert closing.tell(bad) == []
    assert closing.tell(decided(1)) == []
    assert closing.tell(decided(1), decided(2)) == ["invalidated", "invalidated"]
    assert (closing.tally.lives, closing.tally.dropped) == ({"incomplete": 1}, {"bad_signal": 1})


def test_a_close_of_which_a_slot_is_torn_withdraws_nothing(tmp_path: Path) -> None:
    closing = Closing(tmp_path)
    torn = encode(signal("a", 1))
    assert closing.ring.push(torn)
    with closing.path.open("r+b") as file:
        file.seek(closing.path.read_bytes().index(torn))
        file.write(b"X")
    assert closing.tell() == []
    assert closing.tell(decided(1), decided(2)) == ["invalidated"], "that of the second, which lacks nothing"
    assert (closing.tally.lives, closing.tally.dropped) == ({"incomplete": 1}, {"bad_slot": 1})


def test_a_dropped_signal_on_a_forming_candle_is_none_that_its_close_lacks(tmp_path: Path) -> None:
    closing = Closing(tmp_path)
    assert closing.tell(signal("a", 1, forming=True, price="much"), decided(1)) == ["invalidated"]
