"""A reader's side of one series: windows over closed rows, the forming row, stamps."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from chandlery.workers.segment import _native
from chandlery.workers.segment.layout import Geometry

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

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


class Window:
    """Closed rows [begin, end) of a series: read-only views into the segment, not copies.

    The writer may overwrite what they show; ask :meth:`SeriesReader.valid` after use, before acting on it. The
    views keep the mapping alive, also after the reader is closed.

    Attributes:
        open_time: int64, shape (n,), ms UTC, ascending. trades: int64, shape (n,).
        open, high, low, close, volume: float64, shape (n,).
        begin, end: ordinals. session: of the series when the window was taken. revision: likewise.
    """

    __slots__ = (
        "begin",
        "close",
        "end",
        "high",
        "low",
        "open",
        "open_time",
        "revision",
        "session",
        "trades",
        "volume",
    )

    open_time: Ints
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    trades: Ints
    begin: int
    end: int
    session: int
    revision: int

    def __len__(self) -> int:
        return self.end - self.begin


class SeriesReader(_native.Series):
    """One series as a trader sees it; made by :meth:`SegmentReader.series`.

    An ordinal counts closed rows since the last reset, from 0. Stays usable after its reader is closed (it
    keeps the mapping), but not ``alive`` beyond the series' removal.
    """

    def __init__(
        self, mapping: _native.Mapping, geometry: Geometry, index: int, epoch: int, symbol: str, interval: str
    ) -> None:
        super().__init__(mapping, geometry.numbers, index, epoch)
        self.symbol: Final = symbol
        self.interval: Final = interval
        self._rows: Final = geometry.rows
        memory = memoryview(mapping)  # an array on it keeps the mapping, and so the memory, alive
        block = geometry.data_offset + index * geometry.block_bytes

        def ints(column: int) -> Ints:
            return np.frombuffer(memory, _INT, 2 * geometry.rows, block + column * geometry.column_bytes)

        def floats(column: int) -> Floats:
            return np.frombuffer(memory, _FLOAT, 2 * geometry.rows, block + column * geometry.column_bytes)

        self._open_time: Final = ints(0)
        self._open: Final = floats(1)
        self._high: Final = floats(2)
        self._low: Final = floats(3)
        self._close: Final = floats(4)
        self._volume: Final = floats(5)
        self._trades: Final = ints(6)

    def window(self, end: int, length: int) -> Window:
        """Rows [end - length, end), without a copy.

        Clipped to what can be read: it ends at the count and begins at :meth:`first`, so it may be shorter than
        asked for, or empty.

        Raises:
            SegmentError: ``length`` is above ``rows - guard_rows``, or an argument is negative.
        """
        window = Window.__new__(Window)
        begin, stop, window.session, window.revision = self._bounds(end, length)
        window.begin, window.end = begin, stop
        low = begin % self._rows
        high = low + stop - begin  # at most low + rows - guard_rows: within the doubled ring
        window.open_time = self._open_time[low:high]
        window.open = self._open[low:high]
        window.high = self._high[low:high]
        window.low = self._low[low:high]
        window.close = self._close[low:high]
        window.volume = self._volume[low:high]
        window.trades = self._trades[low:high]
        return window

    def valid(self, window: Window) -> bool:
        """Whether all that was read from the window since it was taken was whole and is still true.

        False when a row of it was overwritten, the series was revised (any row), reset or removed. Ask after
        the computation; commit its results only if True, else take the window anew.
        """
        return self._unchanged(window.begin, window.revision)

    def forming(self) -> FormingRow | None:
        """A consistent copy of the forming row; None when there is none (or its writer died writing it).

        Take it before the window that goes with it: a candle is never seen closed first and forming later.
        """
        copied = self._forming()
        return None if copied is None else FormingRow._make(copied)
