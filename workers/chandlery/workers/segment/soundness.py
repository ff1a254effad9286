"""Whether a segment's file still is what its writer wrote: nobody else may write it, but who may could.

The writer alone can tell, for it knows what must be there. It looks at the file's size before it touches the mapping: to
touch it beyond the file's end is SIGBUS.
"""

from __future__ import annotations

import os
import struct
from typing import Final, NamedTuple

from chandlery.workers.segment import _native
from chandlery.workers.segment.layout import COLUMNS, Header

_COUNTS: Final = struct.Struct("<QQ")
_WORD: Final = struct.Struct("<q")


class FileIdentity(NamedTuple):
    """Which file it is, whatever its name."""

    device: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileIdentity:
        return cls(status.st_dev, status.st_ino)


def size_at(path: str, identity: FileIdentity) -> int | None:
    """Size of a file at its path, bytes; None: it isn't there any more, or another one is."""
    try:
        status = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return status.st_size if FileIdentity.of(status) == identity else None


def file_problem(path: str, identity: FileIdentity, file_bytes: int) -> str:
    """What has become of a file at its path, or empty. The mapping isn't touched."""
    try:
        status = os.stat(path, follow_symlinks=False)
    except OSError as error:
        return f"it can't be found any more ({error.strerror})"
    if FileIdentity.of(status) != identity:
        return "another file has its path"
    if status.st_size < file_bytes:
        return f"truncated to {status.st_size} bytes of {file_bytes}"
    return ""


def header_problem(mapping: _native.Mapping, packed: bytes) -> str:
    """What is wrong with a header that was written as ``packed``, or empty."""
    unchanged = (
        mapping.read(0, len(packed)) == packed
        and mapping.load(_native.HEADER_READY) == _native.READY_WORD
        and mapping.load(_native.HEADER_SUPERSEDED) == 0
    )
    return "" if unchanged else "its header was overwritten"


class Held(NamedTuple):
    """A series as its writer knows it; ``place``: its number, ``last_open_time_ms`` of its newest row, -1: it has none."""

    place: int
    symbol: str
    interval: str
    last_open_time_ms: int


def series_problem(mapping: _native.Mapping, header: Header, held: Held, rows: slice) -> str:
    """What is wrong with a series, or empty. Nothing may be written to it meanwhile.

    Args:
        rows: places of rows whose two copies are compared; what lies beyond the ring is left out.
    """
    g = header.geometry
    what = f"series {held.symbol} {held.interval}"
    found = _native.Reader(mapping, g.numbers)._find(held.symbol, held.interval)
    if found is None or found[0] != held.place:
        return f"the name of {what} was overwritten"
    at = g.records_offset + held.place * _native.RECORD_BYTES
    reserved, count = _COUNTS.unpack(mapping.read(at + _native.RECORD_RESERVED, _COUNTS.size))
    block = g.data_offset + held.place * g.block_bytes
    newest = _word(mapping, at + _native.RECORD_LAST_OPEN_TIME_MS)
    if reserved != count or newest != held.last_open_time_ms or (count == 0) != (newest < 0):
        return f"the record of {what} was overwritten"
    if count and _word(mapping, block + (count - 1) % g.rows * _native.WORD_BYTES) != newest:
        return f"rows of {what} were overwritten"
    begin, end, _ = rows.indices(g.rows)
    for column in range(len(COLUMNS)):
        first = block + column * g.column_bytes + begin * _native.WORD_BYTES
        length = max(0, end - begin) * _native.WORD_BYTES
        if mapping.read(first, length) != mapping.read(first + g.rows * _native.WORD_BYTES, length):
            return f"rows of {what} were overwritten"
    return ""


def _word(mapping: _native.Mapping, offset: int) -> int:
    (value,) = _WORD.unpack(mapping.read(offset, _WORD.size))
    return int(value)
