"""The series of a segment, copied into a larger file beside it, in steps between which it is written on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from chandlery.workers.segment import _native
from chandlery.workers.segment.layout import Geometry

#: Copied in one step: at 1 to 2 GB/s, the new pages' first touch included, 1 ms or less.
STEP_BYTES: Final = 1 << 20
#: What may be left for the last step, in which nothing else happens: about 4 ms.
LAST_STEP_BYTES: Final = 4 << 20
#: Where series change faster than they are copied, as in catch-up, the last step takes what is left after so many rounds.
MOST_ROUNDS: Final = 4


Name = tuple[str, str]  # symbol, interval


class _State(NamedTuple):
    """What of a record changes whenever its rows do: while it stands still, its block does too."""

    place: int
    epoch: int
    revision: int
    rows: int


class SeriesCopy:
    """Copies the series of one mapped segment into another, larger one that nobody reads yet.

    Rows, stamps, ordinals, revisions, sessions and sequences stay what they are: only the place of a series changes. The
    old segment's writer may append, revise, add and remove between the steps; it must be this thread's.
    """

    def __init__(self, old: _native.Mapping, was: Geometry, new: _native.Mapping, geometry: Geometry) -> None:
        self._old: Final = old
        self._was: Final = was
        self._geometry: Final = geometry
        self._writer: Final = _native.Writer(new, geometry.numbers)
        self._from: Final = memoryview(old)
        self._into: Final = memoryview(new)
        self._copied: dict[Name, _State] = {}

    def rounds(self) -> Iterator[None]:
        """Copy until little is left that has changed meanwhile; yields after each step."""
        at_once = max(1, STEP_BYTES // self._was.block_bytes)
        for number in range(MOST_ROUNDS):
            changed = self._changed()
            if number and len(changed) * self._was.block_bytes <= LAST_STEP_BYTES:
                return
            for first in range(0, len(changed), at_once):
                for name, state in changed[first : first + at_once]:
                    self._copy_rows(name, state.place, state.epoch)
                yield

    def finish(self) -> list[Name]:
        """Make the copy what the old segment is now.

        Returns:
            The names of its series.
        """
        for name, state in self._changed():
            self._copy_rows(name, state.place, state.epoch)
        for name, state in self._copied.items():
            self._copy_record(state.place, self._writer.add_series(*name))
        return list(self._copied)

    def _changed(self) -> list[tuple[Name, _State]]:
        """The series whose rows aren't copied as they stand; those that are gone are taken out of the copy."""
        in_use = dict(self._in_use())
        # Before any is added: so the copy never has more series than the old segment holds at once.
        for name in self._copied.keys() - in_use.keys():
            self._writer.remove_series(*name)
            del self._copied[name]
        return [(name, state) for name, state in in_use.items() if self._copied.get(name) != state]

    def _in_use(self) -> Iterator[tuple[Name, _State]]:
        for index in range(self._was.series):
            state = self._state(index)
            if state.epoch & 1:
                at = self._was.records_offset + index * _native.RECORD_BYTES
                symbol = self._old.read(at + _native.RECORD_SYMBOL, _native.SYMBOL_BYTES)
                interval = self._old.read(at + _native.RECORD_INTERVAL, _native.INTERVAL_BYTES)
                yield (_text(symbol), _text(interval)), state

    def _state(self, index: int) -> _State:
        at = self._was.records_offset + index * _native.RECORD_BYTES
        load = self._old.load
        return _State(
            index,
            load(at + _native.RECORD_EPOCH),
            load(at + _native.RECORD_REVISION),
            load(at + _native.RECORD_COUNT),
        )

    def _copy_rows(self, name: Name, index: int, epoch: int) -> None:
        state = self._state(index)
        if state.epoch != epoch:
            return  # removed since the round began: the next one sees what is there now
        begin = self._was.data_offset + index * self._was.block_bytes
        into = self._geometry.data_offset + self._writer.add_series(*name) * self._geometry.block_bytes
        length = self._was.block_bytes
        self._into[into : into + length] = self._from[begin : begin + length]
        self._copied[name] = state

    def _copy_record(self, index: int, into: int) -> None:
        """State and forming row; names and epoch are the new record's own."""
        begin = self._was.records_offset + index * _native.RECORD_BYTES
        target = self._geometry.records_offset + into * _native.RECORD_BYTES
        first, end = _native.RECORD_REVISION, _native.RECORD_BYTES
        self._into[target + first : target + end] = self._from[begin + first : begin + end]


def _text(padded: bytes) -> str:
    return padded.rstrip(b"\0").decode()
