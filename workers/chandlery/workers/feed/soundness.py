"""Whether the segment still is what this feed wrote; where somebody truncated, overwrote or removed it, the feed ends.

Its next process makes a new segment from the topics, and traders follow to that one. To mend it in place would be to guess
which of the words that are left can be trusted.
"""

from __future__ import annotations

from typing import Final

from chandlery.core.errors import SegmentError, SpoiledError
from chandlery.workers.feed.board import SeriesBoard
from chandlery.workers.segment import SegmentWriter

#: Looked at in one second: series, and of each as many rows. About 30 µs a series.
SERIES_A_LOOK: Final = 16
ROWS_A_LOOK: Final = 1_024


class Soundness:
    """Looks at the segment; each part of it has its turn."""

    def __init__(self, writer: SegmentWriter, board: SeriesBoard) -> None:
        self._writer = writer
        self._board = board
        self._series_at = 0
        self._rows_at = 0

    def look(self) -> None:
        """Look at file and header: a system call, to be done before each heartbeat is written.

        Raises:
            SpoiledError: somebody else has changed them.
        """
        self._tell(self._writer.spoiled())

    def look_inside(self) -> None:
        """Look at the next few series and rows.

        Raises:
            SpoiledError: somebody else has changed them.
        """
        held = self._board.held()
        for one in held[self._series_at : self._series_at + SERIES_A_LOOK]:
            self._tell(self._writer.spoiled_series(one, slice(self._rows_at, self._rows_at + ROWS_A_LOOK)))
        self._series_at += SERIES_A_LOOK
        if self._series_at >= len(held):
            self._series_at = 0
            self._rows_at += ROWS_A_LOOK
            if self._rows_at >= self._writer.rows:
                self._rows_at = 0

    def cause(self, error: BaseException) -> BaseException:
        """What made a part fail: the segment, where that is spoiled, since nothing in it can be written then."""
        if not isinstance(error, SegmentError):
            return error
        try:
            self.look()
            for one in self._board.held():
                self._tell(self._writer.spoiled_series(one, slice(0, 0)))
        except SpoiledError as spoiled:
            return spoiled
        return error

    def _tell(self, problem: str) -> None:
        if problem:
            raise SpoiledError(f"segment {self._writer.path}: {problem}, not by this feed; it is made anew")
