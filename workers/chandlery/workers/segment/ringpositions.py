"""The positions in a signal ring: per symbol, the last closed candle decided on."""

from __future__ import annotations

import struct
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


class RingPositions:
    """The positions table of one ring.

    An entry holds two pairs (session, open_time_ms); the lowest bit of its version says which one holds. The
    writer fills the other one and then stores the next version: killed in between, the old pair still holds.
    """

    def __init__(self, file: RingFile) -> None:
        self._file: Final = file
        # Entries of symbols that this process has stored: never given to another symbol.
        self._own: Final[dict[str, int]] = {}

    def store(self, symbol: str, session: int, open_time_ms: int) -> None:
        """Store a symbol's position; see SignalRing.set_position."""
        entry = self._own.get(symbol)
        if entry is None:
            entry = self._own[symbol] = self._claim(symbol)
        mapping = self._file.mapped()
        at = _OFFSET + entry * _native.POSITION_BYTES
        version = mapping.load(at + _VERSION) + 1
        mapping.write(at + _PAIRS + (version & 1) * _PAIR.size, _PAIR.pack(session, open_time_ms))
        mapping.store(at + _USED_AT, mapping.add(_CLOCK, 1))
        mapping.store(at + _VERSION, version)  # [POSITION] the pair above is whole

    def load(self, symbol: str) -> tuple[int, int] | None:
        """A symbol's position, or None."""
        return self.all().get(symbol)

    def all(self) -> dict[str, tuple[int, int]]:
        """All positions by symbol. An entry that changes while it is read is read again."""
        size = _native.POSITION_COUNT * _native.POSITION_BYTES
        table = self._file.read(_OFFSET, size)
        for _ in range(16):  # its one writer stores a position per closed candle: the second reading will do
            _native.fence_acquire()  # [POSITION]
            again = self._file.read(_OFFSET, size)
            if again == table:
                break
            table = again
        positions: dict[str, tuple[int, int]] = {}
        for at in range(0, size, _native.POSITION_BYTES):
            (version,) = _WORD.unpack_from(table, at + _native.POSITION_VERSION)
            if version:
                pair = at + _native.POSITION_PAIRS + (version & 1) * _PAIR.size
                positions[_symbol(table, at)] = _PAIR.unpack_from(table, pair)
        return positions

    def _claim(self, symbol: str) -> int:
        """The symbol's entry, else a free one, else the one stored longest ago by an earlier process."""
        name = symbol.encode("utf-8")
        if not 1 <= len(name) < _native.POSITION_BYTES - _native.POSITION_SYMBOL or b"\0" in name:
            raise SegmentError(f"symbol {symbol!r}: 1 to 63 bytes are possible")
        table = self._file.read(_OFFSET, _native.POSITION_COUNT * _native.POSITION_BYTES)
        best, best_used_at = -1, 1 << 64
        for entry in range(_native.POSITION_COUNT):
            at = entry * _native.POSITION_BYTES
            (version,) = _WORD.unpack_from(table, at + _native.POSITION_VERSION)
            if version and _symbol(table, at) == symbol:
                return entry
            used_at = _WORD.unpack_from(table, at + _native.POSITION_USED_AT)[0] if version else -1
            if entry not in self._own.values() and used_at < best_used_at:
                best, best_used_at = entry, used_at
        if best < 0:
            raise SegmentError(f"symbol {symbol!r}: a ring holds positions of {_native.POSITION_COUNT} symbols")
        mapping = self._file.mapped()
        at = _OFFSET + best * _native.POSITION_BYTES
        mapping.store(at + _native.POSITION_VERSION, 0)  # until its first pair is whole
        _native.fence_release()  # [POSITION]
        mapping.write(at + _native.POSITION_SYMBOL, name.ljust(_native.POSITION_BYTES - _native.POSITION_SYMBOL, b"\0"))
        return best


def _symbol(table: bytes, at: int) -> str:
    name = table[at + _native.POSITION_SYMBOL : at + _native.POSITION_BYTES]
    return name.rstrip(b"\0").decode("utf-8", errors="replace")
