"""Inputs of the Python side: real files and messages, then spoiled; pure but for making the real ones.

An input is what a file holds, then pokes of 16 bytes (uint32 when, uint32 offset, uint64 value) and their number in a
last uint32: the same form as target.c takes. A poke is a store by another process between two operations of the reader.
"""

from __future__ import annotations

import random
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from chandlery.core.absence import Absence
from chandlery.workers.segment import Geometry, SegmentError, SegmentWriter, SignalRing, _native
from chandlery.workers.windows import encode_absence, encode_window

_WORD: Final = struct.Struct("<Q")
_COUNT: Final = struct.Struct("<I")
_POKE: Final = struct.Struct("<IIQ")
_PAIR: Final = struct.Struct("<QQ")
_ALL_BITS: Final = (1 << 64) - 1
MOST_POKES: Final = 8
#: A poke with this offset cuts the file at ``value`` bytes (rings alone: a trader can, a segment's writer doesn't).
TRUNCATE: Final = 0xFFFF_FFFF
#: Longest file: every operation must stay quick, so that many inputs are tried.
MOST_BYTES: Final = 64 * 1024
_VALUES: Final = (0, 1, 2, 63, 64, 1 << 31, 1 << 32, (1 << 32) - 1, (1 << 63) - 1, 1 << 63, _ALL_BITS)
_BINARY_STARTS: Final = (b"\xff", b"\x80", b"\xc0\x80", b"\xed\xa0\x80")


class Poke(NamedTuple):
    """A store between operations: the word at ``offset`` becomes ``value`` before operation ``when``."""

    when: int
    offset: int
    value: int


class Input(NamedTuple):
    """A file's content and what happens to it meanwhile."""

    content: bytes
    pokes: tuple[Poke, ...] = ()

    def pack(self) -> bytes:
        """As one string, to be kept as a file."""
        return self.content + b"".join(_POKE.pack(*poke) for poke in self.pokes) + _COUNT.pack(len(self.pokes))

    @classmethod
    def unpack(cls, packed: bytes) -> Input:
        """The inverse; what has no pokes at its end is all content."""
        if len(packed) < _COUNT.size:
            return cls(packed)
        (count,) = _COUNT.unpack_from(packed, len(packed) - _COUNT.size)
        end = len(packed) - _COUNT.size - count * _POKE.size
        if count > MOST_POKES or end < 0:
            return cls(packed)
        return cls(packed[:end], tuple(Poke(*found) for found in _POKE.iter_unpack(packed[end : -_COUNT.size])))


# ---- real ones ----


def real_segment(draw: random.Random) -> bytes:
    """A small segment as a writer leaves it."""
    rows = draw.choice((2, 3, 7, 8, 16))
    series = draw.randint(1, 4)
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="chandlery-fuzz-") as folder:
        path = Path(folder, "segment")
        writer = SegmentWriter.create(
            str(path),
            rows=rows,
            series=series,
            guard_rows=draw.randrange(1, rows),
            bells=draw.randint(1, 3),
            stamp_rows=draw.randint(1, rows),
        )
        for symbol in "ABCD"[: draw.randint(1, series)]:
            index = writer.add_series(symbol, "1s")
            count = draw.randrange(3 * rows)
            for ordinal in range(count):
                writer.append(index, ordinal, 1.0, 2.0, 3.0, 4.0, float(ordinal), 6, (1, 2, 3, 4, 5, 6, 7, 8))
            if draw.random() < 0.5:
                writer.set_forming(index, count, 1.0, 2.0, 3.0, 4.0, 5.0, 6, (1, 2, 3, 4, 5, 6, 7, 8))
        writer.close(unlink=False)
        return path.read_bytes()


def real_ring(draw: random.Random) -> bytes:
    """A small ring with signals and positions, as a trader leaves it."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="chandlery-fuzz-") as folder:
        path = Path(folder, "a.ring")
        with SignalRing.create(str(path), trader="ns/liar", uid="u", slots=draw.randint(1, 5)) as ring:
            for number in range(draw.randrange(9)):
                if not ring.push(b"signal %d" % number * draw.randint(1, 20)):
                    ring.acknowledge(ring.pending(draw.randint(1, 3))[-1].position + 1)
            for number in range(draw.choice((0, 1, 3, 64))):
                ring.set_position(f"S{number}/USDT 1m", number, number * 60_000)
            ring.add("calls", draw.randrange(1 << 40))
        return path.read_bytes()


def real_messages(draw: random.Random) -> bytes:
    """A stream of window messages of a few series, as a feed sends them."""
    stream = b""
    for _ in range(draw.randint(1, 4)):
        rows = draw.randrange(6)
        count = rows + draw.choice((0, 0, 3))
        forming = (count, 1.0, 2.0, 3.0, 4.0, 5.0, 6, (1,) * 8, 2)
        stream += encode_window(
            _Columns(rows) if rows else None,
            symbol=draw.choice(("A", "B")),
            interval="1s",
            session=draw.randrange(2),
            count=count,
            live_from_ms=-1,
            traded_from_ms=0,
            revision=draw.choice((0, 2)),
            stamps=[(1, 2, 3, 4, 5, 6, 7, 8)] * min(rows, draw.randrange(3)),
            forming=forming if draw.random() < 0.5 else None,
            life=draw.choice((0, 0, 1)),
        )
        if draw.random() < 0.2:
            stream += encode_absence(Absence.among(draw.choice(("A", "B")), "1s", [("C", "1m"), ("A", "5m")]))
    return stream


class _Columns:
    """Rows of a window; the columns' names are those of a segment's Window."""

    def __init__(self, rows: int) -> None:
        self.open_time = np.arange(rows)
        self.trades = np.arange(rows)
        self.open = self.high = self.low = self.close = self.volume = np.arange(rows, dtype="<f8")


# ---- spoiled ones ----


def spoil_segment(draw: random.Random, given: Input) -> Input:
    """Another segment near the given one; as a rule its header still passes its checksum."""
    data = bytearray(given.content)
    kind = draw.random()
    if kind < 0.15 or len(data) < _native.HEADER_BYTES:
        return Input(_cut_or_grown(draw, data), given.pokes)
    geometry = _geometry(data)
    if kind < 0.35:
        return Input(bytes(data), _draw_pokes(draw, lambda: _segment_place(draw, geometry, len(data))))
    for _ in range(draw.randint(1, 4)):
        if draw.random() < 0.1:
            _spoil_name(draw, data, geometry)
            continue
        at = _segment_place(draw, geometry, len(data))
        set_word(data, at, _value(draw, word(data, at)))
    if draw.random() < 0.1:
        _fill_hash(draw, data, geometry)
    if draw.random() < 0.9:
        seal(data)
    return Input(bytes(data), given.pokes)


def spoil_ring(draw: random.Random, given: Input) -> Input:
    """Another ring near the given one."""
    data = bytearray(given.content)
    kind = draw.random()
    if kind < 0.1 or len(data) < _native.RING_HEADER_BYTES:
        return Input(_cut_or_grown(draw, data), given.pokes)
    if kind < 0.5:
        pokes = _draw_pokes(draw, lambda: _ring_place(draw, len(data)))
        if draw.random() < 0.3:
            pokes = (*pokes[:4], Poke(draw.randrange(20), TRUNCATE, draw.randrange(len(data))))
        return Input(bytes(data), pokes)
    for _ in range(draw.randint(1, 4)):
        at = _ring_place(draw, len(data))
        set_word(data, at, _value(draw, word(data, at)))
        if at in (_native.RING_TAIL, _native.RING_HEAD) and draw.random() < 0.7:
            tail = _value(draw, word(data, _native.RING_TAIL))
            data[_native.RING_TAIL : _native.RING_TAIL + _PAIR.size] = _PAIR.pack(tail, tail ^ _ALL_BITS)
            if draw.random() < 0.7:
                set_word(data, _native.RING_HEAD, (tail + draw.randrange(6)) & _ALL_BITS)
    if draw.random() < 0.2:
        at = draw.choice((_native.RING_TRADER, _native.RING_UID))
        name = draw.choice(_BINARY_STARTS)
        data[at : at + len(name)] = name
    return Input(bytes(data), given.pokes)


def spoil_messages(draw: random.Random, given: Input) -> Input:
    """Another stream near the given one; its lengths as a rule still agree."""
    data = bytearray(given.content)
    kind = draw.random()
    if kind < 0.1:
        return Input(_deep_message(draw))
    if kind < 0.2 or not data:
        return Input(_cut_or_grown(draw, data))
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(data))
        if draw.random() < 0.3:
            # Where a msgpack value may begin: another type, or an integer at its bounds.
            value = bytes([draw.choice((0xC0, 0xC4, 0xCB, 0xCF, 0xD3, 0xDC, 0xDD, 0xDF, 0x90, 0x9F, 0xA0))])
            data[at : at + 1] = value + draw.choice((b"", b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\0" * 8))
        else:
            data[at] = draw.randrange(256)
    if draw.random() < 0.8:
        _measure(data)
    return Input(bytes(data))


def _deep_message(draw: random.Random) -> bytes:
    """A header whose value nests deeper than any decoder follows."""
    opening = draw.choice((b"\x91", b"\x81\xa1x", b"\x9b\xa1A\xa21s\x00\x00\x00\x00\x00\x00\x90\xc0\x91"))
    header = opening + b"\x91" * draw.choice((10, 1_000, 60_000)) + b"\xc0"
    return _COUNT.pack(4 + len(header)) + _COUNT.pack(len(header)) + header


def _measure(data: bytearray) -> None:
    """Give the first message the length that it has, when it is the only one left."""
    if len(data) >= 4:
        (length,) = _COUNT.unpack_from(data)
        if length > len(data) - 4:
            _COUNT.pack_into(data, 0, len(data) - 4)


def _cut_or_grown(draw: random.Random, data: bytearray) -> bytes:
    if draw.random() < 0.6:
        return bytes(data[: draw.randrange(len(data) + 1)])
    return bytes(data + draw.randbytes(draw.randrange(1, 300)))[:MOST_BYTES]


def _draw_pokes(draw: random.Random, place: Callable[[], int]) -> tuple[Poke, ...]:
    return tuple(
        Poke(draw.randrange(40), place(), _value(draw, draw.randrange(64))) for _ in range(draw.randint(1, MOST_POKES))
    )


def _value(draw: random.Random, was: int) -> int:
    kind = draw.randrange(5)
    if kind == 0:
        return draw.choice(_VALUES)
    if kind == 1:
        return (was + draw.choice((-1, 1))) & _ALL_BITS
    if kind == 2:
        return was ^ 1 << draw.randrange(64)
    if kind == 3:
        return draw.randrange(100)
    return draw.getrandbits(64)


def word(data: bytes | bytearray, at: int) -> int:
    """The word at an offset."""
    return int(_WORD.unpack_from(data, at)[0])


def set_word(data: bytearray, at: int, value: int) -> None:
    """Change the word at an offset."""
    _WORD.pack_into(data, at, value)


def numbers_in(data: bytes | bytearray) -> dict[str, int]:
    """The five numbers of a segment's header, as Geometry.derive() takes them."""
    return {
        "rows": word(data, _native.HEADER_ROWS),
        "guard_rows": word(data, _native.HEADER_GUARD_ROWS),
        "series": word(data, _native.HEADER_SERIES),
        "bells": word(data, _native.HEADER_BELLS),
        "stamp_rows": word(data, _native.HEADER_STAMP_ROWS),
    }


def _geometry(data: bytes | bytearray) -> Geometry:
    try:
        found = Geometry.derive(**numbers_in(data))
    except SegmentError:
        found = None
    if found is None or found.file_bytes > 2 * MOST_BYTES:
        return Geometry.derive(rows=8, guard_rows=2, series=2, bells=1, stamp_rows=4)
    return found


def _segment_place(draw: random.Random, g: Geometry, size: int) -> int:
    """The offset of a word that means something, within ``size`` bytes."""
    record = g.records_offset + draw.randrange(g.series) * _native.RECORD_BYTES
    at = draw.choice(
        (
            draw.randrange(_native.HEADER_CHECKSUM // 8) * 8,
            draw.choice((_native.HEADER_READY, _native.HEADER_TABLE_VERSION, _native.HEADER_SUPERSEDED)),
            g.hash_offset + draw.randrange(g.hash_slots) * 8,
            record + draw.randrange(_native.RECORD_BYTES // 8) * 8,
            record + draw.choice((_native.RECORD_COUNT, _native.RECORD_REVISION, _native.RECORD_EPOCH)),
            draw.randrange(size // 8) * 8,
        )
    )
    return at if at + 8 <= size else draw.randrange(size // 8) * 8


def _ring_place(draw: random.Random, size: int) -> int:
    slots_at = _native.RING_HEADER_BYTES + _native.POSITION_COUNT * _native.POSITION_BYTES
    entry = _native.RING_HEADER_BYTES + draw.randrange(_native.POSITION_COUNT) * _native.POSITION_BYTES
    at = draw.choice(
        (
            draw.randrange(7) * 8,
            _native.RING_HEAD,
            _native.RING_TAIL,
            _native.RING_POSITION_CLOCK,
            _native.RING_COUNTERS + draw.randrange(_native.RING_COUNTER_COUNT) * 8,
            entry + draw.randrange(_native.POSITION_BYTES // 8) * 8,
            slots_at + draw.randrange(5) * _native.SLOT_BYTES + draw.randrange(4) * 8,
            draw.randrange(size // 8) * 8,
        )
    )
    return at if at + 8 <= size else draw.randrange(size // 8) * 8


def _spoil_name(draw: random.Random, data: bytearray, g: Geometry) -> None:
    at = g.records_offset + draw.randrange(g.series) * _native.RECORD_BYTES
    at += draw.choice((_native.RECORD_SYMBOL, _native.RECORD_INTERVAL))
    name = draw.choice((*_BINARY_STARTS, b"A" * 64, b"\x1b[2J", b"", b"A\0B")).ljust(16, b"\0")
    if at + len(name) <= len(data):
        data[at : at + len(name)] = name


def _fill_hash(draw: random.Random, data: bytearray, g: Geometry) -> None:
    """Every slot taken, by the hash of an entry that is there: a look-up has to probe them all."""
    if g.records_offset > len(data):
        return
    slots = [g.hash_offset + slot * 8 for slot in range(g.hash_slots)]
    tags = [word(data, at) >> 32 for at in slots if word(data, at)] or [1]
    for at in slots:
        set_word(data, at, draw.choice(tags) << 32 | draw.randrange(g.series + 3))
    if draw.random() < 0.5:
        set_word(data, _native.HEADER_TABLE_VERSION, 1)


def seal(data: bytearray) -> None:
    """Offsets, checksum and ready word as they follow from the five numbers, where these are possible."""
    try:
        g = Geometry.derive(**numbers_in(data))
    except SegmentError:
        g = _geometry(data)
    set_word(data, _native.HEADER_MAGIC, _native.SEGMENT_MAGIC)
    set_word(data, _native.HEADER_VERSION, _native.LAYOUT_VERSION)
    set_word(data, _native.HEADER_FILE_BYTES, g.file_bytes)
    for at, value in zip(range(_native.HEADER_ROWS, _native.HEADER_WRITER_PID, 8), g[:12], strict=True):
        set_word(data, at, value)
    set_word(data, _native.HEADER_CHECKSUM, zlib.crc32(data[: _native.HEADER_CHECKSUM]))
    set_word(data, _native.HEADER_READY, _native.READY_WORD)
