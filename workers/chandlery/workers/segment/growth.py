"""The series of a segment, copied into a larger file beside it, in steps between which it is written on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from chandlery.workers.segment import _native
from chandlery.workers.segment.layout import Geometry

#: Copied in one step: at 1 to 2 GB/s, the new pages' first touch included, 1 ms or less.
STEP_BYTES: Final = 1 << 20
#: Records looked at in one step, however small their blocks: about 1.5 ms.
STEP_SERIES: Final = 64
#: What may be left for the last step, in which nothing else happens: about 4 ms.
LAST_STEP_BYTES: Final = 4 << 20
#: What a record alone, copied for its forming row, counts there: 2 µs.
_RECORD_COST_BYTES: Final = 4096
#: Where series change faster than they are copied, as in catch-up, the last step takes what is left after so many rounds.
MOST_ROUNDS: Final = 4


class _Copied(NamedTuple):
    """What of the old segment's record was copied, and to which place."""

    symbol: str
    interval: str
    epoch: int
    into: int


class SeriesCopy:
    """Copies the series of one mapped segment into another, larger one that nobody reads yet.

    Rows, stamps, ordinals, revisions, sessions and sequences stay what they are: only the place of a series changes. The
    old segment's writer may append, revise, add and remove between the steps; it must be this thread's.

    Args:
        source: the old segment's writer, which knows what it has changed.
    """

    def __init__(
        self, source: _native.Writer, old: _native.Mapping, was: Geometry, new: _native.Mapping, geometry: Geometry
    ) -> None:
        self._source: Final = source
        self._old: Final = old
        self._was: Final = was
        self._geometry: Final = geometry
        self._writer: Final = _native.Writer(new, geometry.numbers)
        self._from: Final = memoryview(old)
        self._into: Final = memoryview(new)
        self._copied: dict[int, _Copied] = {}
        #: Places of which rows, or records alone, aren't copied as they stand.
        self._rows: list[int] = []
        self._records: list[int] = []

    def rounds(self) -> Iterator[None]:
        """Copy until little is left that has changed meanwhile; yields after each step."""
        at_once = max(1, min(STEP_SERIES, STEP_BYTES // self._was.block_bytes))
        self._source.take_changed()  # all of it is copied now
        self._rows = list(range(self._was.series))
        for _ in range(MOST_ROUNDS):
            rows, records = self._rows, self._records
            self._forget_gone(rows)
            for first in range(0, len(rows), at_once):
                for place in rows[first : first + at_once]:
                    self._copy(place)
                yield
            for first in range(0, len(records), STEP_SERIES):
                for place in records[first : first + STEP_SERIES]:
                    self._copy_record(place)
                yield
            self._rows, self._records = self._source.take_changed()
            if len(self._rows) * self._was.block_bytes + len(self._records) * _RECORD_COST_BYTES <= LAST_STEP_BYTES:
                return

    def finish(self) -> None:
        """Make the copy what the old segment is now; nothing may have been written since the last of the rounds."""
        self._forget_gone(self._rows)
        for place in self._rows:
            self._copy(place)
        for place in self._records:
            self._copy_record(place)

    def _forget_gone(self, places: list[int]) -> None:
        """Take those out of the copy whose place is another's by now: before any is added, for a name may have moved.

        One that moves while a round goes on is in the next one, at both of its places.
        """
        for place in places:
            self._forget_if_gone(place)

    def _forget_if_gone(self, place: int) -> None:
        copied = self._copied.get(place)
        if copied is not None and copied.epoch != self._epoch(place):
            self._writer.remove_series(copied.symbol, copied.interval)
            del self._copied[place]

    def _epoch(self, place: int) -> int:
        return self._old.load(self._was.records_offset + place * _native.RECORD_BYTES + _native.RECORD_EPOCH)

    def _copy(self, place: int) -> None:
        """Rows and record, as they stand; nothing where no series is."""
        self._forget_if_gone(place)
        epoch = self._epoch(place)
        if not epoch & 1:
            return
        at = self._was.records_offset + place * _native.RECORD_BYTES
        symbol = _text(self._old.read(at + _native.RECORD_SYMBOL, _native.SYMBOL_BYTES))
        interval = _text(self._old.read(at + _native.RECORD_INTERVAL, _native.INTERVAL_BYTES))
        copied = _Copied(symbol, interval, epoch, self._writer.add_series(symbol, interval))
        self._copied[place] = copied
        length = self._was.block_bytes
        begin = self._was.data_offset + place * length
        into = self._geometry.data_offset + copied.into * self._geometry.block_bytes
        self._into[into : into + length] = self._from[begin : begin + length]
        self._old.depopulate(begin, length)
        self._copy_record(place)

    def _copy_record(self, place: int) -> None:
        """State and forming row; names and epoch are the new record's own. Of one that is gone: nothing."""
        copied = self._copied.get(place)
        if copied is None or copied.epoch != self._epoch(place):
            return
        begin = self._was.records_offset + place * _native.RECORD_BYTES
        target = self._geometry.records_offset + copied.into * _native.RECORD_BYTES
        first, end = _native.RECORD_REVISION, _native.RECORD_BYTES
        self._into[target + first : target + end] = self._from[begin + first : begin + end]


def _text(padded: bytes) -> str:
    return padded.rstrip(b"\0").decode()
