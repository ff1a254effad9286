"""A reader's side of one series: windows over closed rows, the forming row, stamps."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from chandlery.workers.segment import _native
from chandlery.workers.segment.layout import Geometry

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

Window = _native.Window

_INT: Final = np.dtype("<i8")
_FLOAT: Final = np.dtype("<f8")


class FormingRow(NamedTuple):
    """A consistent copy of the forming candle.

    Attributes:
        stamps: 8 integers, see STAMPS. sequence: grows with each change of the forming row (by 2).
    """

    open_time_ms: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    trades: int
    stamps: tuple[int, ...]
    sequence: int


class SeriesReader(_native.Series):
    """One series as a trader sees it; made by :meth:`SegmentReader.series`.

    An ordinal counts closed rows since the last reset, from 0.

    Lifetime: it keeps the mapping, so it stays usable after its reader is closed, but not ``alive`` beyond the series'
    removal. A window's arrays are views: each of them, and each slice or buffer of one, keeps the memory mapped by itself,
    whatever becomes of window, series, reader and file; in a forked child too. ``np.array(window.close)`` is a copy, which
    the writer doesn't change, and so are :meth:`forming` and ``stamps()``.

    In the extension are:

    * ``window(end, length) -> Window``: rows [end - length, end), seven read-only views into the segment, not copies.
      Clipped to what can be read: it ends at the count and begins at ``first()``, so it may be shorter than asked for,
      or empty. SegmentError when ``length`` is above ``rows - guard_rows``, or an argument is negative.
    * ``valid(window) -> bool``: whether all that was read from the window since it was taken was whole and is still
      true. False when a row of it was overwritten, the series was revised (any row), reset or removed. Ask after the
      computation; commit its results only if True, else take the window anew.
    * ``prepare(end, length)``: makes the views of ``window(end, length)`` before those rows are there. Called before a
      wait, it leaves less to do after the wake-up; whether and how often it is called changes no window.
    """

    def __init__(
        self, mapping: _native.Mapping, geometry: Geometry, index: int, epoch: int, symbol: str, interval: str
    ) -> None:
        super().__init__(mapping, geometry.numbers, index, epoch)
        self.symbol: Final = symbol
        self.interval: Final = interval
        memory = memoryview(mapping)  # an array on it keeps the mapping, and so the memory, alive
        block = geometry.data_offset + index * geometry.block_bytes

        def ints(column: int) -> Ints:
            return np.frombuffer(memory, _INT, 2 * geometry.rows, block + column * geometry.column_bytes)

        def floats(column: int) -> Floats:
            return np.frombuffer(memory, _FLOAT, 2 * geometry.rows, block + column * geometry.column_bytes)

        self._attach((ints(0), floats(1), floats(2), floats(3), floats(4), floats(5), ints(6)))

    def forming(self) -> FormingRow | None:
        """A consistent copy of the forming row; None when there is none (or its writer died writing it).

        Take it before the window that goes with it: who sees a candle forming sees all that closed before it. The
        window may hold the candle itself, if it closed in between: compare the open times.
        """
        copied = self._forming()
        return None if copied is None else FormingRow._make(copied)
