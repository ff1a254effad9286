"""The segment's layout in Python: geometry and header, with every constant taken from the extension.

layout.h is the one place where offsets stand; docs/segment.md tells them in prose.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final, NamedTuple

from chandlery.core.errors import SegmentError
from chandlery.workers.segment import _native

#: Columns of a closed or forming row; ``open_time`` (ms, UTC) and ``trades`` int64, the others float64.
COLUMNS: Final = ("open_time", "open", "high", "low", "close", "volume", "trades")
#: Stage stamps beside a row, int64 ns each (clocks: see chandlery.core.clocks); 0: not stamped.
STAMPS: Final = (
    "exchange_ns",
    "received_ns",
    "appended_ns",
    "aggregated_ns",
    "emitted_ns",
    "fed_ns",
    "published_ns",
    "recorded_skew_ns",
)

_WORDS: Final = struct.Struct("<18Q")
_CHECKSUM: Final = struct.Struct("<Q")


class Geometry(NamedTuple):
    """Where everything lies in a segment of given numbers. Offsets and sizes in bytes.

    Attributes:
        rows: closed rows a series keeps. guard_rows: of these, the oldest that readers may not take.
        series: most series. bells: number of doorbells. stamp_rows: newest rows whose stamps are kept.
    """

    rows: int
    guard_rows: int
    series: int
    bells: int
    stamp_rows: int
    hash_slots: int
    bells_offset: int
    hash_offset: int
    records_offset: int
    data_offset: int
    column_bytes: int
    block_bytes: int
    file_bytes: int

    @classmethod
    def derive(cls, *, rows: int, guard_rows: int, series: int, bells: int, stamp_rows: int) -> Geometry:
        """Compute offsets from the five numbers.

        Raises:
            SegmentError: a number is out of bounds; the message says all bounds.
        """
        try:
            return cls(*_native.geometry(rows, guard_rows, series, bells, stamp_rows))
        except OverflowError as error:
            raise SegmentError(f"a segment of rows {rows}, series {series}, bells {bells}: {error}") from error

    @property
    def numbers(self) -> _native.Numbers:
        """The five numbers from which the rest follows."""
        return self[0], self[1], self[2], self[3], self[4]


class Header(NamedTuple):
    """What a segment's header says that doesn't change once it is ready.

    Attributes:
        generation: grows with each segment under one path. writer_pid: as the writer saw itself.
        created_ns: monotonic.
    """

    geometry: Geometry
    generation: int
    writer_pid: int
    created_ns: int

    def pack(self) -> bytes:
        """The header's fixed part with its checksum, to be written at 0 before the ready word."""
        g = self.geometry
        words = _WORDS.pack(
            _native.SEGMENT_MAGIC,
            _native.LAYOUT_VERSION,
            g.file_bytes,
            self.generation,
            g.rows,
            g.guard_rows,
            g.series,
            g.bells,
            g.stamp_rows,
            g.hash_slots,
            g.bells_offset,
            g.hash_offset,
            g.records_offset,
            g.data_offset,
            g.column_bytes,
            g.block_bytes,
            self.writer_pid,
            self.created_ns,
        )
        return words + _CHECKSUM.pack(zlib.crc32(words))


def read_header(mapping: _native.Mapping) -> Header:
    """Read and check a mapped segment's header.

    The offsets in the file must be those that follow from its numbers, and all must lie within the mapping:
    after this no offset is read from the file again.

    Raises:
        SegmentError: it is no segment, of another layout version, not ready, or its offsets are wrong.
    """
    if len(mapping) < _native.HEADER_BYTES:
        raise SegmentError(f"truncated: {len(mapping)} bytes, a header alone has {_native.HEADER_BYTES}")
    if mapping.load(_native.HEADER_READY) != _native.READY_WORD:  # [READY] pairs with the store in writer.py
        raise SegmentError("not ready: its writer has not finished it, or it is no segment")
    fixed = mapping.read(0, _WORDS.size)
    words = _WORDS.unpack(fixed)
    magic, version, file_bytes, generation, rows, guard_rows, series, bells, stamp_rows = words[:9]
    if magic != _native.SEGMENT_MAGIC:
        raise SegmentError(f"no segment: it begins with {magic:#018x}")
    if version != _native.LAYOUT_VERSION:
        raise SegmentError(
            f"layout version {version}; this program reads {_native.LAYOUT_VERSION}: run feed and readers of one release"
        )
    if mapping.load(_native.HEADER_CHECKSUM) != zlib.crc32(fixed):
        raise SegmentError("its header fails its checksum")
    geometry = Geometry.derive(rows=rows, guard_rows=guard_rows, series=series, bells=bells, stamp_rows=stamp_rows)
    if geometry.file_bytes != file_bytes or geometry[5:12] != words[9:16]:
        raise SegmentError("its offsets are not those of its layout version")
    if file_bytes > len(mapping):
        raise SegmentError(f"truncated: {len(mapping)} bytes of {file_bytes}")
    return Header(geometry, generation, words[16], words[17])


class Bells(NamedTuple):
    """What a segment of any layout version tells its successor's writer, who rings its bells for the last time."""

    generation: int
    number: int


def read_bells(mapping: _native.Mapping) -> Bells:
    """Read and check what layout.h keeps in place in every version.

    Raises:
        SegmentError: it is no segment, not ready, or damaged.
    """
    if len(mapping) < _native.HEADER_BYTES or mapping.load(_native.HEADER_READY) != _native.READY_WORD:
        raise SegmentError("not ready, or no segment")
    fixed = mapping.read(0, _WORDS.size)
    words = _WORDS.unpack(fixed)
    if words[0] != _native.SEGMENT_MAGIC or mapping.load(_native.HEADER_CHECKSUM) != zlib.crc32(fixed):
        raise SegmentError("no segment, or its header fails its checksum")
    return Bells(generation=words[3], number=words[7])
