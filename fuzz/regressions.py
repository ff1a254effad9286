"""Hostile inputs told in code: made anew with the layout of the day, so that they go on meaning what they say.

They are the first inputs of a run, and tests. What a run finds and can't be told so stands in ``corpus/`` as a file.
"""

from __future__ import annotations

import random
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from chandlery.workers.segment import Geometry, SegmentWriter, SignalRing, _native
from fuzz import inputs
from fuzz.inputs import Input, Poke
from fuzz.words import real_words

CORPUS: Final = Path(__file__).with_name("corpus")
_ALL_ONES: Final = (1 << 64) - 1
_STAMPS: Final = (1, 2, 3, 4, 5, 6, 7, 8)


class _Segment:
    """A segment of two series that have wrapped; offsets of what is spoiled in it."""

    def __init__(self) -> None:
        with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="chandlery-fuzz-") as folder:
            path = Path(folder, "segment")
            writer = SegmentWriter.create(str(path), rows=4, series=2, guard_rows=1, bells=1, stamp_rows=2)
            for symbol in "AB":
                index = writer.add_series(symbol, "1s")
                for ordinal in range(7):
                    writer.append(index, ordinal, 1.0, 2.0, 3.0, 4.0, float(ordinal), 6, _STAMPS)
                writer.set_forming(index, 7, 1.0, 2.0, 3.0, 4.0, 5.0, 6, _STAMPS)
            writer.close(unlink=False)
            self.data = bytearray(path.read_bytes())
        self.g = Geometry.derive(**inputs.numbers_in(self.data))
        self.record = self.g.records_offset
        self.slots = [self.g.hash_offset + slot * 8 for slot in range(self.g.hash_slots)]

    def set(self, at: int, value: int) -> _Segment:
        inputs.set_word(self.data, at, value)
        return self

    def words(self, places: list[int]) -> list[int]:
        return [inputs.word(self.data, at) for at in places]


def _full_hash_that_always_changes() -> Input:
    segment = _Segment()
    tag = next(entry for entry in segment.words(segment.slots) if entry) >> 32
    for place, at in enumerate(segment.slots):
        segment.set(at, tag << 32 | (1 << 31) + place)
    return Input(bytes(segment.set(_native.HEADER_TABLE_VERSION, 1).data))


def _index_one_beyond_the_last() -> Input:
    segment = _Segment()
    for at, entry in zip(segment.slots, segment.words(segment.slots), strict=True):
        if entry:
            segment.set(at, entry >> 32 << 32 | segment.g.series + 1)
    return Input(bytes(segment.data))


def _last_generation() -> Input:
    segment = _Segment().set(_native.HEADER_GENERATION, _ALL_ONES)
    inputs.seal(segment.data)
    return Input(bytes(segment.data))


def _odd_sequences() -> Input:
    segment = _Segment()
    for record in (segment.record, segment.record + _native.RECORD_BYTES):
        segment.set(record + _native.RECORD_REVISION, 7).set(record + _native.RECORD_FORMING_SEQUENCE, 9)
    return Input(bytes(segment.data))


def _count(value: int) -> Input:
    segment = _Segment()
    segment.set(segment.record + _native.RECORD_COUNT, value).set(segment.record + _native.RECORD_RESERVED, 0)
    return Input(bytes(segment.data))


def _revised_while_read() -> Input:
    segment = _Segment()
    at = segment.record + _native.RECORD_REVISION
    return Input(bytes(segment.data), tuple(Poke(5 * turn + 3, at, 2 * turn) for turn in range(inputs.MOST_POKES)))


def _name_that_is_no_text() -> Input:
    segment = _Segment()
    at = segment.record + _native.RECORD_SYMBOL
    segment.data[at : at + _native.SYMBOL_BYTES] = b"\xff" * _native.SYMBOL_BYTES
    return Input(bytes(segment.data))


def _ring() -> bytearray:
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="chandlery-fuzz-") as folder:
        path = Path(folder, "a.ring")
        with SignalRing.create(str(path), trader="ns/liar", uid="u", slots=3) as ring:
            for number in range(3):
                ring.push(b"signal %d" % number)
            ring.set_position("S0/USDT 1m", 1, 2)
        return bytearray(path.read_bytes())


def _spoiled_ring(at: int, data: bytes) -> Input:
    ring = _ring()
    ring[at : at + len(data)] = data
    return Input(bytes(ring))


def _ring_at_the_last_position() -> Input:
    ring = _ring()
    inputs.set_word(ring, _native.RING_HEAD, _ALL_ONES)
    inputs.set_word(ring, _native.RING_TAIL, _ALL_ONES - 1)
    inputs.set_word(ring, _native.RING_TAIL + 8, 1)
    return Input(bytes(ring))


def _message(header: bytes) -> Input:
    return Input(struct.pack("<II", 4 + len(header), len(header)) + header)


def _number_beyond_64_bits() -> Input:
    draw = random.Random(1)
    while b'"session":0' not in (signal := real_words(draw)):
        continue
    return Input(signal.replace(b'"session":0', b'"session":' + b"9" * 40))


_FIRST_POSITION: Final = _native.RING_HEADER_BYTES
_SERIES_A: Final = b"\xa1A\xa21s"
_LARGEST: Final = b"\xcf" + b"\xff" * 8

INPUTS: Final[dict[str, Callable[[], Input]]] = {
    "segment-plain": lambda: Input(bytes(_Segment().data)),
    "segment-count-beyond-63-bits": lambda: _count(1 << 63),
    "segment-count-all-ones": lambda: _count(_ALL_ONES),
    "segment-last-generation": _last_generation,
    "segment-full-hash-that-always-changes": _full_hash_that_always_changes,
    "segment-index-one-beyond-the-last": _index_one_beyond_the_last,
    "segment-odd-sequences": _odd_sequences,
    "segment-revised-while-read": _revised_while_read,
    "segment-cut-before-its-last-word": lambda: Input(bytes(_Segment().data[:-8])),
    "segment-name-that-is-no-text": _name_that_is_no_text,
    "ring-plain": lambda: Input(bytes(_ring())),
    "ring-at-the-last-position": _ring_at_the_last_position,
    "ring-position-of-the-last-version": lambda: _spoiled_ring(_FIRST_POSITION + _native.POSITION_VERSION, b"\xff" * 8),
    "ring-position-of-no-text": lambda: _spoiled_ring(_FIRST_POSITION + _native.POSITION_SERIES, b"\xff" * 80),
    "ring-trader-of-no-text": lambda: _spoiled_ring(_native.RING_TRADER, b"\xff"),
    "ring-cut-while-drained": lambda: Input(bytes(_ring()), (Poke(6, inputs.TRUNCATE, 5_000),)),
    "ring-head-behind-the-cursor": lambda: Input(bytes(_ring()), (Poke(7, _native.RING_HEAD, 1),)),
    "messages-plain": lambda: Input(inputs.real_messages(random.Random(1))),
    "messages-nested-without-end": lambda: _message(
        b"\x9b" + _SERIES_A + b"\0" * 6 + b"\x90\xc0" + b"\x91" * 5_000 + b"\xc0"
    ),
    "messages-more-rows-than-memory": lambda: _message(
        b"\x9a" + _SERIES_A + b"\0" + _LARGEST + b"\0\0\0" + _LARGEST + b"\x90\xc0"
    ),
    "words-nested-without-end": lambda: Input(b'{"trader":"ns/liar","x":' + b"[" * 1_000),
    "words-number-beyond-64-bits": _number_beyond_64_bits,
    "messages-length-beyond-the-bound": lambda: Input(b"\xff\xff\xff\xff" + b"x" * 10),
}


def written(folder: Path) -> list[Path]:
    """All of them as files of a folder, those of the corpus among them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in INPUTS.items():
        (folder / name).write_bytes(make().pack())
    for found in CORPUS.glob("*-*"):
        (folder / found.name).write_bytes(found.read_bytes())
    return sorted(folder.iterdir())
