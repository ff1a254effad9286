"""A ring whose trader lies: the feed gets items marked bad or a SegmentError, and never crashes."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chandlery.workers.segment import SegmentError, SignalRing, _native

SLOTS = 4
SLOTS_AT = _native.RING_HEADER_BYTES + _native.POSITION_COUNT * _native.POSITION_BYTES
FILE_BYTES = SLOTS_AT + SLOTS * _native.SLOT_BYTES


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "ns__liar.ring")


def filled(path: str, count: int = 3) -> SignalRing:
    """A ring with signals, as its feed sees it."""
    trader = SignalRing.create(path, trader="ns/liar", slots=SLOTS)
    for number in range(count):
        assert trader.push(b"signal %d" % number)
    trader.set_position("BTC/USDT", 1, 1)
    trader.close()
    return SignalRing.attach(path)


def spoil(path: str, offset: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def drain(feed: SignalRing) -> None:
    """Whatever a feed and a supervisor do with a ring; SegmentError is the only error that may come of it."""
    for use in (feed.info, lambda: feed.position("BTC/USDT"), lambda: feed.get("calls"), lambda: feed.replaced):
        try:
            use()
        except SegmentError:
            continue
    assert 0 <= feed.depth <= feed.capacity
    try:
        items = feed.pending()
        for item in items:
            assert (item.payload is None) is bool(item.error)
            assert item.payload is None or len(item.payload) <= SignalRing.SLOT_PAYLOAD
        if items:
            feed.acknowledge(items[-1].position + 1)
    except SegmentError:
        pass


places = st.one_of(
    st.integers(0, 1_024),
    st.sampled_from([_native.RING_HEAD, _native.RING_TAIL, _native.RING_TAIL + 8, SLOTS_AT, SLOTS_AT + 8]),
    st.integers(0, FILE_BYTES - 1),
)
spots = st.lists(st.tuples(places, st.binary(min_size=1, max_size=24)), min_size=1, max_size=20)


@settings(max_examples=250, deadline=None)
@given(spots=spots)
def test_bytes_spoiled_under_an_attached_feed_never_crash_it(
    tmp_path_factory: pytest.TempPathFactory, spots: list[tuple[int, bytes]]
) -> None:
    path = str(tmp_path_factory.mktemp("ring") / "r.ring")
    feed = filled(path)
    for offset, data in spots:
        spoil(path, offset, data[: FILE_BYTES - offset])
        drain(feed)
    feed.close()


@settings(max_examples=250, deadline=None)
@given(spots=spots)
def test_bytes_spoiled_before_attaching_never_crash_the_feed(
    tmp_path_factory: pytest.TempPathFactory, spots: list[tuple[int, bytes]]
) -> None:
    path = str(tmp_path_factory.mktemp("ring") / "r.ring")
    filled(path).close()
    for offset, data in spots:
        spoil(path, offset, data[: FILE_BYTES - offset])
    try:
        feed = SignalRing.attach(path)
    except SegmentError:
        ring = SignalRing.create(path, trader="ns/liar", slots=SLOTS)
        assert ring.replaced_because, "an unsound ring is replaced, and says why"
        assert ring.push(b"again")
        ring.close()
        return
    drain(feed)
    feed.close()


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=20_000))
def test_a_file_of_garbage_is_refused_and_then_replaced(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = str(tmp_path_factory.mktemp("ring") / "r.ring")
    Path(path).write_bytes(content)
    with pytest.raises(SegmentError):
        SignalRing.attach(path)
    ring = SignalRing.create(path, trader="ns/liar")
    assert ring.replaced_because
    ring.close()


@pytest.mark.parametrize(
    ("place", "data", "why"),
    [
        (0, struct.pack("<Q", 77), "marked 77"),
        (8, struct.pack("<I", 1_009), "length 1009"),
        (8, struct.pack("<I", 7), "checksum"),
        (12, b"\0\0\0\0", "checksum"),
        (16, b"X", "checksum"),
    ],
)
def test_one_bad_slot_is_named_and_its_neighbours_pass(path: str, place: int, data: bytes, why: str) -> None:
    feed = filled(path)
    spoil(path, SLOTS_AT + _native.SLOT_BYTES + place, data)
    before, bad, after = feed.pending()
    assert (before.payload, after.payload) == (b"signal 0", b"signal 2")
    assert bad.payload is None
    assert why in bad.error
    feed.acknowledge(3)
    assert feed.depth == 0


def test_an_old_slot_shown_again_is_named(path: str) -> None:
    """A slot's mark is its position, so the content of an earlier round can't pass for a new one."""
    feed = filled(path)
    old = Path(path).read_bytes()[SLOTS_AT : SLOTS_AT + _native.SLOT_BYTES]
    spoil(path, SLOTS_AT + _native.SLOT_BYTES, old)
    assert [item.error for item in feed.pending()] == ["", "slot is marked 0, not 1", ""]


@pytest.mark.parametrize("head", [0, 1, 7, 1 << 32, (1 << 64) - 1])
def test_an_impossible_head_is_an_error(path: str, head: int) -> None:
    feed = filled(path)
    feed.pending()
    feed.acknowledge(2)
    spoil(path, _native.RING_HEAD, struct.pack("<Q", head))
    with pytest.raises(SegmentError, match="impossible head"):
        feed.pending()


def test_the_files_tail_cannot_move_an_attached_feed(path: str) -> None:
    feed = filled(path)
    spoil(path, _native.RING_TAIL, struct.pack("<QQ", 3, 3 ^ (1 << 64) - 1))
    assert [item.payload for item in feed.pending()] == [b"signal 0", b"signal 1", b"signal 2"]


@pytest.mark.parametrize("size", [0, 1, 100, 4_095, SLOTS_AT, FILE_BYTES - 1])
def test_a_ring_truncated_under_the_feed_is_an_error_and_no_bus_error(path: str, size: int) -> None:
    feed = filled(path, SLOTS)
    os.truncate(path, size)
    with pytest.raises(SegmentError, match="truncated"):
        feed.pending()
    if size < SLOTS_AT:
        with pytest.raises(SegmentError, match="truncated"):
            feed.info()
    assert 0 <= feed.depth <= SLOTS
    with pytest.raises(SegmentError):
        SignalRing.attach(path)


def test_a_ring_of_another_size_is_refused(path: str) -> None:
    filled(path).close()
    with open(path, "ab") as file:
        file.write(b"\0" * _native.SLOT_BYTES)
    with pytest.raises(SegmentError, match="bytes; 4 slots make"):
        SignalRing.attach(path)


def test_links_pipes_and_folders_are_refused_without_blocking(tmp_path: Path) -> None:
    real, link, pipe, folder = (str(tmp_path / name) for name in ("real", "link", "pipe", "folder"))
    filled(real).close()
    os.symlink(real, link)
    os.mkfifo(pipe)
    os.mkdir(folder)
    for place in (link, pipe, folder, str(tmp_path / "absent")):
        with pytest.raises(SegmentError):
            SignalRing.attach(place)
    assert SignalRing.create(link, trader="ns/liar").replaced_because
    assert not os.path.islink(link)
    with pytest.raises(SegmentError, match="in place"):
        SignalRing.create(folder, trader="ns/liar")


def test_a_tail_torn_by_its_copy_is_not_believed_by_the_trader(path: str) -> None:
    """A tail without its complement would free slots too early; the trader goes on with the one it knew."""
    trader = SignalRing.create(path, trader="ns/liar", slots=SLOTS)
    for _ in range(SLOTS):
        assert trader.push(b"x")
    spoil(path, _native.RING_TAIL, struct.pack("<Q", 3))
    assert not trader.push(b"y")
    spoil(path, _native.RING_TAIL, struct.pack("<QQ", 3, 3 ^ (1 << 64) - 1))
    assert trader.push(b"y")


def test_a_tail_is_believed_only_while_it_stands(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copied in pieces, 1 on its way to 2 may be caught as 3, and so may its complement, when the tail is 2 already."""
    trader = SignalRing.create(path, trader="ns/liar", slots=SLOTS)
    for _ in range(SLOTS):
        assert trader.push(b"x")
    mapped = trader._file.mapped()
    complement_at = _native.RING_TAIL + _native.WORD_BYTES
    caught = {_native.RING_TAIL: [3, 2, 2, 2], complement_at: [3 ^ (1 << 64) - 1, 2 ^ (1 << 64) - 1]}

    class Caught:
        def load(self, offset: int) -> int:
            return caught[offset].pop(0) if offset in caught else mapped.load(offset)

    assert trader._mapped_tail(cast(_native.Mapping, Caught())) == 2


def test_a_trader_refuses_to_overrun_an_impossible_tail(path: str) -> None:
    trader = SignalRing.create(path, trader="ns/liar", slots=SLOTS)
    spoil(path, _native.RING_TAIL, struct.pack("<QQ", 9, 9 ^ (1 << 64) - 1))
    with pytest.raises(SegmentError, match="slots in use"):
        trader.push(b"x")
