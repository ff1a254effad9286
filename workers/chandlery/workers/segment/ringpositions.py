"""The positions in a signal ring: per series (symbol and interval), the last closed candle decided on."""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from typing import Final

from chandlery.core.errors import SegmentError
from chandlery.workers.segment import _native
from chandlery.workers.segment.ringfile import RingFile

_PAIR: Final = struct.Struct("<qq")
_WORD: Final = struct.Struct("<Q")
_OFFSET: Final = _native.RING_HEADER_BYTES
_VERSION: Final = _native.POSITION_VERSION
_PAIRS: Final = _native.POSITION_PAIRS
_USED_AT: Final = _native.POSITION_USED_AT
_CLOCK: Final = _native.RING_POSITION_CLOCK
_TABLE_BYTES: Final = _native.POSITION_COUNT * _native.POSITION_BYTES
_NAME_BYTES: Final = _native.POSITION_BYTES - _native.POSITION_SERIES


class RingPositions:
    """The positions table of one ring.

    An entry holds two pairs (session, open_time_ms); the lowest bit of its version says which one holds. The
    writer fills the other one and then stores the next version: killed in between, the old pair still holds.
    """

    def __init__(self, file: RingFile) -> None:
        self._file: Final = file
        # Entries of series that this process has stored: never given to another one.
        self._own: Final[dict[str, int]] = {}

    def store(self, series: str, session: int, open_time_ms: int) -> None:
        """Store a series' position; see SignalRing.set_position."""
        entry = self._own.get(series)
        if entry is None:
            entry = self._own[series] = self._claim(series)
        mapping = self._file.mapped()
        at = _OFFSET + entry * _native.POSITION_BYTES
        used_at = mapping.add(_CLOCK, 1)
        # The other pair's bit; and never a version that stood there before, whichever series had the entry: a reader
        # takes two equal copies for one that didn't change.
        version = 2 * used_at + (mapping.load(at + _VERSION) & 1 ^ 1)
        _native.fence_release()  # [POSITION] who reads any of the pair below also reads the version before it
        mapping.write(at + _PAIRS + (version & 1) * _PAIR.size, _PAIR.pack(session, open_time_ms))
        mapping.store(at + _USED_AT, used_at)
        mapping.store(at + _VERSION, version)  # [POSITION] the pair above is whole

    def load(self, series: str) -> tuple[int, int] | None:
        """A series' position, or None."""
        return self.all().get(series)

    def keep(self, wanted: Collection[str]) -> None:
        """Forget the positions of all other series; see SignalRing.keep_positions."""
        table = self._file.read(_OFFSET, _TABLE_BYTES)
        for at in range(0, _TABLE_BYTES, _native.POSITION_BYTES):
            if _WORD.unpack_from(table, at + _VERSION)[0] and _series(table, at) not in wanted:
                self._file.mapped().store(_OFFSET + at + _VERSION, 0)

    def clear(self) -> None:
        """Forget all positions, by system call: for whoever makes the ring ready for a trader."""
        self._file.write(_OFFSET, bytes(_TABLE_BYTES))

    def all(self) -> dict[str, tuple[int, int]]:
        """All positions by series. An entry that changes while it is read is read again."""
        table = self._file.read(_OFFSET, _TABLE_BYTES)
        for _ in range(16):  # its one writer stores a position per closed candle: the second reading will do
            _native.fence_acquire()  # [POSITION]
            again = self._file.read(_OFFSET, _TABLE_BYTES)
            if again == table:
                break
            table = again
        positions: dict[str, tuple[int, int]] = {}
        for at in range(0, _TABLE_BYTES, _native.POSITION_BYTES):
            (version,) = _WORD.unpack_from(table, at + _native.POSITION_VERSION)
            if version:
                pair = at + _native.POSITION_PAIRS + (version & 1) * _PAIR.size
                positions[_series(table, at)] = _PAIR.unpack_from(table, pair)
        return positions

    def _claim(self, series: str) -> int:
        """The series' entry, else a free one, else the one stored longest ago by an earlier process."""
        name = _padded(series)
        table = self._file.read(_OFFSET, _TABLE_BYTES)
        best, best_used_at = -1, 1 << 64
        for entry in range(_native.POSITION_COUNT):
            at = entry * _native.POSITION_BYTES
            (version,) = _WORD.unpack_from(table, at + _native.POSITION_VERSION)
            if version and _series(table, at) == series:
                return entry
            used_at = _WORD.unpack_from(table, at + _native.POSITION_USED_AT)[0] if version else -1
            if entry not in self._own.values() and used_at < best_used_at:
                best, best_used_at = entry, used_at
        if best < 0:
            raise SegmentError(f"series {series!r}: a ring holds positions of {_native.POSITION_COUNT} series")
        mapping = self._file.mapped()
        at = _OFFSET + best * _native.POSITION_BYTES
        mapping.store(at + _native.POSITION_VERSION, 0)  # until its first pair is whole
        _native.fence_release()  # [POSITION]
        mapping.write(at + _native.POSITION_SERIES, name)
        return best


def packed(positions: Mapping[str, tuple[int, int]]) -> bytes:
    """A table that holds these positions, for a ring that is being made.

    Raises:
        SegmentError: more than a ring holds, or a name is too long.
    """
    table = bytearray(_TABLE_BYTES)
    if len(positions) > _native.POSITION_COUNT:
        raise SegmentError(f"{len(positions)} positions; a ring holds {_native.POSITION_COUNT}")
    for entry, (series, pair) in enumerate(positions.items()):
        at = entry * _native.POSITION_BYTES
        _WORD.pack_into(table, at + _VERSION, 2)  # even: the first pair holds
        _PAIR.pack_into(table, at + _PAIRS, *pair)
        table[at + _native.POSITION_SERIES : at + _native.POSITION_BYTES] = _padded(series)
    return bytes(table)


def _padded(series: str) -> bytes:
    name = series.encode("utf-8")
    if not 1 <= len(name) < _NAME_BYTES or b"\0" in name:
        raise SegmentError(f"series {series!r}: 1 to {_NAME_BYTES - 1} bytes are possible")
    return name.ljust(_NAME_BYTES, b"\0")


def _series(table: bytes, at: int) -> str:
    name = table[at + _native.POSITION_SERIES : at + _native.POSITION_BYTES]
    return name.rstrip(b"\0").decode("utf-8", errors="replace")
