"""Where a trader's candles come from: one interface, a segment or received windows behind it."""

from __future__ import annotations

import time
from typing import Any, Final, Protocol

from chandlery.core.absence import Absence
from chandlery.core.errors import SegmentError
from chandlery.workers.candles import Columns, FormingValues
from chandlery.workers.segment import SegmentReader
from chandlery.workers.trader.patience import Patience

#: A segment that somebody has spoiled may tell nobody of its successor: its path is looked at this often.
LOOK_AT_PATH_S: Final = 1.0


class Window(Columns, Protocol):
    """Closed rows with ordinals ``begin`` … ``end - 1`` of one session."""

    @property
    def begin(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def session(self) -> int: ...


class Forming(FormingValues, Protocol):
    """The forming candle, copied out, with its stage stamps."""

    @property
    def stamps(self) -> tuple[int, ...]: ...
    @property
    def sequence(self) -> int: ...


class SeriesView(Protocol):
    """One series; the meaning of each member is the segment's SeriesReader's."""

    @property
    def alive(self) -> bool: ...
    @property
    def session(self) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def revision(self) -> int: ...
    @property
    def live_from_ms(self) -> int: ...
    @property
    def traded_from_ms(self) -> int: ...
    @property
    def last_open_time_ms(self) -> int: ...
    def first(self) -> int: ...
    def find_after(self, open_time_ms: int) -> int: ...
    def lapped(self, ordinal: int) -> bool: ...
    def window(self, end: int, length: int) -> Window: ...
    def prepare(self, end: int, length: int) -> None: ...

    # Any: each implementation takes the windows that it has handed out itself.
    def valid(self, window: Any) -> bool: ...
    def forming(self) -> Forming | None: ...
    def stamps(self, ordinal: int) -> tuple[int, ...] | None: ...


class MarketView(Protocol):
    """A source of series that says when something may have changed."""

    #: Why there is no market right now, or empty.
    trouble: str

    def refresh(self) -> bool:
        """Follow a replaced source. True: every SeriesView handed out before must be looked up again."""

    def series(self, symbol: str, interval: str) -> SeriesView | None:
        """The series, or None while it isn't there."""

    def absence(self, symbol: str, interval: str) -> Absence | None:
        """What there is instead of a series that isn't there; None where nothing is known of it. Not for each turn."""

    def token(self) -> int:
        """Take this before looking at series, and give it to :meth:`wait`: no change in between is missed."""

    def wait(self, token: int, timeout_s: float) -> None:
        """Wait for a change since ``token``, at most ``timeout_s``."""

    def redirect(self, place: str, bell: int) -> None:
        """The feed has moved the segment or given the trader another bell."""


class SegmentMarket:
    """A market over the shared segment; follows its successor when the feed swaps the file."""

    def __init__(self, path: str, bell: int) -> None:
        self.trouble = ""
        self._path = path
        self._bell = bell
        self._reader: SegmentReader | None = None
        self._changed = False
        self._patience = Patience()
        self._looked_s = 0.0
        # Whose bell the last token is of: another file's may stand at the same value, and mean something else.
        self._token_of: SegmentReader | None = None
        self._open()

    def _open(self) -> bool:
        try:
            reader = SegmentReader.open(self._path)
        except SegmentError as error:
            return self._missed(str(error))
        if reader.superseded:  # and its successor not there yet, or killed before it was
            reader.close()
            return self._missed(f"segment {self._path}: superseded, and its successor is not there yet")
        self._reader = reader
        self.trouble = ""
        self._patience.found()
        return True

    def _missed(self, why: str) -> bool:
        self._reader = None
        self.trouble = why
        self._patience.missed()
        return False

    def refresh(self) -> bool:
        if self._changed:
            self._changed = False
            self._close()
            return True
        if self._reader is None:
            return self._open()
        if not (self._is_lost(self._reader) or self._reader.superseded):
            return False
        self._close()
        self._open()
        return True

    def _is_lost(self, reader: SegmentReader) -> bool:
        now_s = time.monotonic()
        if now_s - self._looked_s < LOOK_AT_PATH_S:
            return False
        self._looked_s = now_s
        return reader.is_lost()

    def _close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def series(self, symbol: str, interval: str) -> SeriesView | None:
        return None if self._reader is None else self._reader.series(symbol, interval)

    def absence(self, symbol: str, interval: str) -> Absence | None:
        return None if self._reader is None else self._reader.absence(symbol, interval)

    def token(self) -> int:
        self._token_of = self._reader
        return 0 if self._reader is None else self._reader.bell(self._bell)

    def wait(self, token: int, timeout_s: float) -> None:
        if self._reader is None:
            time.sleep(min(timeout_s, self._patience.wait_s()))
        elif self._token_of is self._reader:
            self._reader.wait(self._bell, token, timeout_s)

    def redirect(self, place: str, bell: int) -> None:
        if (place, bell) != (self._path, self._bell):
            self._path, self._bell = place, bell
            self._changed = True
