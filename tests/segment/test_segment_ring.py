"""A trader's ring between two honest sides: in order, nothing lost, whole over kill -9 and restarts."""

from __future__ import annotations

import os
import signal
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.segment.segment_processes import DEADLINE_S, process, push_until_killed, receive

from chandlery.core.signals import MAX_SIGNAL_BYTES
from chandlery.workers.segment import RingItem, SegmentError, SignalRing, _native


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "ns__one.ring")


def test_signals_come_out_as_they_went_in(path: str) -> None:
    trader, feed = SignalRing.create(path, trader="ns/one", slots=4), SignalRing.attach(path)
    payloads = [b"", b"x", os.urandom(SignalRing.SLOT_PAYLOAD)]
    for payload in payloads:
        assert trader.push(payload)
    assert feed.pending() == [RingItem(position, payload, "") for position, payload in enumerate(payloads)]
    assert (feed.trader, feed.depth, feed.capacity) == ("ns/one", 3, 4)


def test_a_slot_holds_the_longest_signal() -> None:
    assert SignalRing.SLOT_PAYLOAD >= MAX_SIGNAL_BYTES


def test_a_full_ring_refuses_until_the_tail_moves(path: str) -> None:
    trader, feed = SignalRing.create(path, trader="ns/one", slots=3), SignalRing.attach(path)
    assert [trader.push(b"%d" % number) for number in range(4)] == [True, True, True, False]
    assert len(feed.pending()) == 3
    assert not trader.push(b"3"), "taking is not acknowledging"
    feed.acknowledge(1)
    assert trader.push(b"3")
    assert not trader.push(b"4")
    assert [item.payload for item in feed.pending()] == [b"3"]


@settings(max_examples=60, deadline=None)
@given(
    slots=st.integers(1, 7),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("push"), st.integers(1, 9)),
            st.tuples(st.just("take"), st.integers(1, 9)),
            st.tuples(st.just("acknowledge"), st.integers(0, 9)),
            st.tuples(st.just("restart feed"), st.just(0)),
            st.tuples(st.just("restart trader"), st.just(0)),
            st.tuples(st.just("rewind"), st.just(0)),
        ),
        max_size=60,
    ),
)
def test_any_interleaving_delivers_all_in_order(
    tmp_path_factory: pytest.TempPathFactory, slots: int, steps: list[tuple[str, int]]
) -> None:
    path = str(tmp_path_factory.mktemp("ring") / "r.ring")
    trader = SignalRing.create(path, trader="ns/one", slots=slots)
    feed = SignalRing.attach(path)
    head = tail = cursor = 0
    for step, amount in steps:
        if step == "push":
            for _ in range(amount):
                pushed = trader.push(b"signal %d" % head)
                assert pushed is (head - tail < slots)
                head += pushed
        elif step == "take":
            expected = [RingItem(at, b"signal %d" % at, "") for at in range(cursor, min(head, cursor + amount))]
            assert feed.pending(amount) == expected
            cursor += len(expected)
        elif step == "acknowledge":
            tail = min(cursor, tail + amount)
            feed.acknowledge(tail)
        elif step == "rewind":
            feed.rewind()
            cursor = tail
        elif step == "restart feed":
            feed.close()
            feed = SignalRing.attach(path)
            cursor = tail
        else:
            trader.close()
            trader = SignalRing.create(path, trader="ns/one", slots=slots + 1)
            assert (trader.replaced_because, trader.capacity) == ("", slots)
        assert feed.depth == trader.depth == head - tail
    trader.close()
    feed.close()


def test_acknowledging_what_was_not_taken_is_refused(path: str) -> None:
    trader, feed = SignalRing.create(path, trader="ns/one", slots=8), SignalRing.attach(path)
    for _ in range(5):
        trader.push(b"x")
    feed.pending(3)
    with pytest.raises(SegmentError, match="acknowledge"):
        feed.acknowledge(4)
    feed.acknowledge(2)
    with pytest.raises(SegmentError, match="acknowledge"):
        feed.acknowledge(1)
    assert feed.depth == 3


def test_a_payload_too_long_is_refused(path: str) -> None:
    trader = SignalRing.create(path, trader="ns/one", slots=2)
    with pytest.raises(SegmentError, match="1009 bytes"):
        trader.push(b"x" * (SignalRing.SLOT_PAYLOAD + 1))
    assert trader.depth == 0


def test_a_trader_killed_at_any_moment_leaves_a_sound_ring(path: str) -> None:
    delivered = 0
    for _ in range(5):
        with process(push_until_killed, path) as (trader, connection):
            assert receive(connection) == "ready"
            feed = SignalRing.attach(path)
            goal = delivered + 500
            while delivered < goal:
                for item in feed.pending():
                    assert item == RingItem(delivered, b"%d" % delivered, "")
                    delivered += 1
                feed.acknowledge(delivered)
            os.kill(trader.pid or 0, signal.SIGKILL)
            trader.join(DEADLINE_S)
        # What it had pushed before it died is there, and its position covers no more than that.
        for item in feed.pending():
            assert item == RingItem(delivered, b"%d" % delivered, "")
            delivered += 1
        feed.acknowledge(delivered)
        position = feed.position("BTC/USDT")
        assert position is not None
        assert position[1] == 2 * position[0], f"a mixed position {position}"
        assert delivered - 1 <= position[0] <= delivered
        feed.close()


# ---- positions ----


def test_positions_are_seen_by_others_and_survive_restarts(path: str) -> None:
    trader, other = SignalRing.create(path, trader="ns/one"), SignalRing.attach(path)
    assert other.position("BTC/USDT") is None
    trader.set_position("BTC/USDT", 3, 1_000)
    trader.set_position("ETH/USDT", 4, -1)
    trader.set_position("BTC/USDT", 3, 2_000)
    assert other.position("BTC/USDT") == trader.position("BTC/USDT") == (3, 2_000)
    trader.close()
    again = SignalRing.create(path, trader="ns/one")
    assert again.position("BTC/USDT") == (3, 2_000)
    assert again.info()["positions"] == {"BTC/USDT": (3, 2_000), "ETH/USDT": (4, -1)}


def test_a_position_half_written_is_not_seen(path: str) -> None:
    """A kill between the pair and the version leaves the old position."""
    trader = SignalRing.create(path, trader="ns/one")
    trader.set_position("BTC/USDT", 1, 10)
    trader.set_position("BTC/USDT", 1, 20)
    before = Path(path).read_bytes()
    trader.set_position("BTC/USDT", 1, 30)
    after = Path(path).read_bytes()
    changed = [at for at in range(0, len(before), 8) if before[at : at + 8] != after[at : at + 8]]
    # The version is the entry's first word: with all other changes made and that one not, the old pair holds.
    version = min(at for at in changed if at >= 4_096)
    half = after[:version] + before[version : version + 8] + after[version + 8 :]
    Path(path).write_bytes(half)
    assert SignalRing.attach(path).position("BTC/USDT") == (1, 20)


def test_sixty_four_series_fit_and_a_sixty_fifth_is_refused(path: str) -> None:
    trader = SignalRing.create(path, trader="ns/one")
    for number in range(64):
        trader.set_position(f"S{number}", number, number)
    with pytest.raises(SegmentError, match="64 series"):
        trader.set_position("S64", 0, 0)
    assert {f"S{number}": (number, number) for number in range(64)} == trader.info()["positions"]


def test_series_of_an_earlier_life_give_way_the_oldest_first(path: str) -> None:
    first = SignalRing.create(path, trader="ns/one")
    for number in range(64):
        first.set_position(f"OLD{number}", 1, number)
    first.set_position("OLD0", 1, 100)
    first.close()
    second = SignalRing.create(path, trader="ns/one")
    second.set_position("NEW0", 2, 0)
    second.set_position("NEW1", 2, 1)
    positions = second.info()["positions"]
    assert "OLD1" not in positions
    assert "OLD2" not in positions
    assert positions["OLD0"] == (1, 100)
    assert (positions["NEW0"], positions["NEW1"]) == ((2, 0), (2, 1))
    assert len(positions) == 64


def test_no_version_of_a_position_comes_twice_whoever_has_the_entry(path: str) -> None:
    """Two equal copies of an entry are taken for one that didn't change in between."""
    trader = SignalRing.create(path, trader="ns/one")
    version_at = _native.RING_HEADER_BYTES + _native.POSITION_VERSION
    versions: list[int] = []
    for life in range(3):
        trader = SignalRing.attach(path)
        for number in range(3):
            trader.set_position(f"S{life}", life, number)
            versions.append(struct.unpack_from("<Q", Path(path).read_bytes(), version_at)[0])
        assert trader.position(f"S{life}") == (life, 2)
        trader.keep_positions([])
    assert versions == sorted(set(versions))


def test_positions_of_other_series_are_forgotten_on_demand(path: str) -> None:
    trader = SignalRing.create(path, trader="ns/one")
    for series in ("BTC/USDT 1h", "BTC/USDT 1m", "ETH/USDT 1h"):
        trader.set_position(series, 1, 10)
    trader.close()
    again = SignalRing.create(path, trader="ns/one")
    again.keep_positions({"BTC/USDT 1m", "SOL/USDT 1m"})
    assert again.info()["positions"] == {"BTC/USDT 1m": (1, 10)}
    again.set_position("BTC/USDT 1h", 2, 20)
    assert SignalRing.attach(path).position("BTC/USDT 1h") == (2, 20)


@pytest.mark.parametrize("series", ["", "B" * 80, "A\0B"])
def test_an_impossible_series_is_refused(path: str, series: str) -> None:
    with pytest.raises(SegmentError, match="bytes are possible"):
        SignalRing.create(path, trader="ns/one").set_position(series, 0, 0)


def test_the_longest_symbol_of_a_segment_has_a_position_at_any_interval(path: str) -> None:
    ring = SignalRing.create(path, trader="ns/one")
    longest = "B" * (_native.SYMBOL_BYTES - 1) + " " + "1" * (_native.INTERVAL_BYTES - 1)
    ring.set_position(longest, 1, 2)
    assert ring.position(longest) == (1, 2)


# ---- rings of an older layout ----


def as_version_1(path: str) -> None:
    """Make a ring what the first layout had made of it: no uid, and a position by symbol alone, at offset 64."""
    content = bytearray(Path(path).read_bytes())
    content[_native.RING_UID : _native.RING_UID + _native.RING_UID_BYTES] = bytes(_native.RING_UID_BYTES)
    content[_native.RING_VERSION_AT : _native.RING_VERSION_AT + 8] = (1).to_bytes(8, "little")
    entry = struct.pack("<QQqqqq16x64s", 2, 1, 7, 3_600_000, 7, 0, b"BTC/USDT")
    content[4_096 : 4_096 + len(entry)] = entry
    Path(path).write_bytes(content)


def test_a_ring_of_layout_version_1_keeps_signals_and_counters_but_no_position(path: str) -> None:
    with SignalRing.create(path, trader="ns/one") as made:
        made.push(b"waits")
        made.set("signals", 1)
    as_version_1(path)
    feed = SignalRing.attach(path)
    assert [item.payload for item in feed.pending()] == [b"waits"], "it is drained as it is"
    assert feed.info()["positions"] == {}
    ring = SignalRing.create(path, trader="ns/one", uid="u-1")
    assert ring.uid == "u-1", "whose it was nobody knows: the Trader of that name goes on with it"
    assert "layout version 1" in ring.forgot_because
    assert (ring.replaced_because, ring.depth, ring.get("signals")) == ("", 1, 1)
    assert not feed.replaced
    assert ring.info()["positions"] == {}
    ring.set_position("BTC/USDT 1m", 7, 60_000)
    feed.acknowledge(1)
    again = SignalRing.create(path, trader="ns/one", uid="u-1")
    assert again.forgot_because == ""
    assert again.info()["positions"] == {"BTC/USDT 1m": (7, 60_000)}


def test_a_ring_of_a_later_layout_is_replaced(path: str) -> None:
    SignalRing.create(path, trader="ns/one").close()
    content = bytearray(Path(path).read_bytes())
    content[_native.RING_VERSION_AT] = _native.RING_VERSION + 1
    Path(path).write_bytes(content)
    with pytest.raises(SegmentError, match="of this layout version"):
        SignalRing.attach(path)
    assert "of this layout version" in SignalRing.create(path, trader="ns/one").replaced_because


# ---- counters ----


def test_counters_are_seen_by_others_and_survive_restarts(path: str) -> None:
    trader, other = SignalRing.create(path, trader="ns/one"), SignalRing.attach(path)
    for value, name in enumerate(SignalRing.COUNTERS):
        trader.set(name, value)
    trader.add("calls")
    trader.add("calls", 5)
    trader.set("heartbeat_ns", (1 << 64) - 1)
    expected = {name: value for value, name in enumerate(SignalRing.COUNTERS)}
    expected |= {"calls": expected["calls"] + 6, "heartbeat_ns": (1 << 64) - 1}
    assert other.info()["counters"] == expected
    trader.close()
    assert SignalRing.create(path, trader="ns/one").info()["counters"] == expected


def test_unknown_counters_and_negative_values_are_refused(path: str) -> None:
    ring = SignalRing.create(path, trader="ns/one")
    with pytest.raises(SegmentError, match="no counter 'cals'"):
        ring.get("cals")
    with pytest.raises(SegmentError, match="below 0"):
        ring.set("calls", -1)
    with pytest.raises(SegmentError, match="64-bit"):
        ring.set("calls", 1 << 64)


# ---- making ----


def test_another_traders_ring_is_replaced_and_the_feed_can_tell(path: str) -> None:
    SignalRing.create(path, trader="ns/one").push(b"x")
    feed = SignalRing.attach(path)
    assert [feed.replaced] == [False]
    ring = SignalRing.create(path, trader="ns/two")
    assert "ns/one's, not ns/two's" in ring.replaced_because
    assert ring.depth == 0
    assert feed.replaced
    assert [item.payload for item in feed.pending()] == [b"x"], "the replaced file can still be drained"
    assert not SignalRing.attach(path).replaced


def test_a_ring_of_an_earlier_trader_of_the_same_name_is_replaced(path: str) -> None:
    with SignalRing.create(path, trader="ns/one", uid="first") as first:
        first.push(b"x")
        first.set_position("BTC/USDT 1m", 1, 60_000)
    with SignalRing.create(path, trader="ns/one", uid="first") as same:
        assert (same.replaced_because, same.uid, same.depth) == ("", "first", 1)
    feed = SignalRing.attach(path)
    anew = SignalRing.create(path, trader="ns/one", uid="second")
    assert "of uid 'first', not 'second'" in anew.replaced_because
    assert (SignalRing.attach(path).uid, anew.depth, anew.info()["positions"]) == ("second", 0, {})
    assert feed.replaced
    assert [item.payload for item in feed.pending()] == [b"x"], "the replaced file can still be drained"


@pytest.mark.parametrize(("trader", "slots"), [("", 4), ("n" * 400, 4), ("ns/one", 0), ("ns/one", 1 << 20)])
def test_impossible_rings_are_refused(path: str, trader: str, slots: int) -> None:
    with pytest.raises(SegmentError, match="possible"):
        SignalRing.create(path, trader=trader, slots=slots)
    assert not Path(path).exists()


def test_a_closed_ring_refuses_use(path: str) -> None:
    ring = SignalRing.create(path, trader="ns/one")
    ring.close()
    ring.close()
    for use in (lambda: ring.push(b""), ring.pending, ring.info, lambda: ring.get("calls"), lambda: ring.add("calls")):
        with pytest.raises(SegmentError, match="closed"):
            use()
