"""A market received as messages over a socket: ``transport: Pipe``."""

from __future__ import annotations

import select
import socket
import time
from typing import Final, NamedTuple, TypeAlias, cast

import numpy as np

from chandlery.core.absence import Absence
from chandlery.core.errors import UnavailableError
from chandlery.workers.candles import Floats, Ints
from chandlery.workers.trader.patience import Patience
from chandlery.workers.windows import FormingValue, FrameSplitter, StampRow, WindowHeader, WindowMessage, decode_message

Columns7: TypeAlias = tuple[Ints, Floats, Floats, Floats, Floats, Floats, Ints]

#: Most rows kept a series; more than any strategy may ask for (parameters end at 802 candles).
MAX_ROWS: Final = 2_048
_CHUNK_BYTES: Final = 1 << 20
#: Pause after a connection that the feed ended without a word: it doesn't know this trader, and logs each attempt.
_REFUSED_S: Final = 0.1


class PipeWindow(NamedTuple):
    """Rows ``begin`` … ``end - 1``: slices of columns that nobody changes any more."""

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


class PipeSeries:
    """What was received of one series so far; the same interface as the segment's SeriesReader."""

    def __init__(self, message: WindowMessage) -> None:
        self.alive = True
        self._header = message.header
        self._columns: Columns7 = message[1:]
        self._stamps: dict[int, StampRow] = {}
        self._forming: FormingValue | None = None
        self._note(message.header)

    def _note(self, header: WindowHeader) -> None:
        self._header = header
        self._forming = header.forming
        newest = header.count - len(header.stamps)
        self._stamps.update((newest + at, row) for at, row in enumerate(header.stamps))
        for ordinal in sorted(self._stamps)[:-64]:
            del self._stamps[ordinal]

    def take(self, message: WindowMessage) -> None:
        """Take in a newer message: append where it continues what is here, else begin again with it."""
        new, held = message.header, self._header
        begin = new.count - new.rows
        if new.session == held.session and new.revision == held.revision and self.first() <= begin <= held.count:
            keep = begin - self.first()
            cut = slice(max(0, keep + new.rows - MAX_ROWS), keep)
            joined = [np.concatenate((old[cut], more)) for old, more in zip(self._columns, message[1:], strict=True)]
            self._columns = cast(Columns7, tuple(joined))
        else:
            self._columns = message[1:]
            self._stamps.clear()
        for column in self._columns:
            column.flags.writeable = False
        self._note(new)

    @property
    def life(self) -> int:
        """Of the messages that continue this series."""
        return self._header.life

    @property
    def session(self) -> int:
        return self._header.session

    @property
    def count(self) -> int:
        return self._header.count

    @property
    def revision(self) -> int:
        return self._header.revision

    @property
    def live_from_ms(self) -> int:
        return self._header.live_from_ms

    @property
    def traded_from_ms(self) -> int:
        return self._header.traded_from_ms

    @property
    def last_open_time_ms(self) -> int:
        open_time = self._columns[0]
        return int(open_time[-1]) if len(open_time) else -1

    def first(self) -> int:
        return self._header.count - len(self._columns[0])

    def lapped(self, ordinal: int) -> bool:
        return ordinal < self.first()

    def find_after(self, open_time_ms: int) -> int:
        return self.first() + int(np.searchsorted(self._columns[0], open_time_ms, side="right"))

    def window(self, end: int, length: int) -> PipeWindow:
        first = self.first()
        end = min(end, self.count)
        begin = max(first, end - length)
        cut = slice(begin - first, max(begin, end) - first)
        columns = cast(Columns7, tuple(column[cut] for column in self._columns))
        return PipeWindow(*columns, begin, end, self.session, self.revision)

    def prepare(self, end: int, length: int) -> None:
        """Nothing: its rows come with the message."""

    def valid(self, window: PipeWindow) -> bool:
        return window.session == self.session and window.revision == self.revision

    def forming(self) -> FormingValue | None:
        return self._forming

    def stamps(self, ordinal: int) -> tuple[int, ...] | None:
        return self._stamps.get(ordinal)


class PipeMarket:
    """Connects to the feed's windows socket, sends who it is (``namespace/name@3``), and takes in what comes."""

    def __init__(self, path: str, key: str) -> None:
        self.trouble = ""
        self._path = path
        self._key = key
        self._socket: socket.socket | None = None
        self._splitter = FrameSplitter()
        self._series: dict[tuple[str, str], PipeSeries] = {}
        #: Series of which the present connection has said nothing yet.
        self._unheard: set[tuple[str, str]] = set()
        self._absences: dict[tuple[str, str], Absence] = {}
        self._patience = Patience()
        self._next_attempt_s = 0.0
        self._heard = False
        self._arrivals = 0

    def _connect(self) -> bool:
        if time.monotonic() < self._next_attempt_s:
            return False
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            made.connect(self._path)
            made.sendall(self._key.encode() + b"\n")
        except OSError as error:
            made.close()
            self._patience.missed()
            self._next_attempt_s = time.monotonic() + self._patience.wait_s()
            self.trouble = f"{self._path}: the feed serves no windows: {error.strerror}"
            return False
        made.setblocking(False)
        self._next_attempt_s = 0.0
        self._socket = made
        self._splitter = FrameSplitter()
        self._unheard = set(self._series)
        self._absences.clear()
        self.trouble = ""
        return True

    def _disconnect(self, why: str) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self.trouble = why
        if self._heard:
            self._patience.found()  # until now
        self._patience.missed()
        self._next_attempt_s = time.monotonic() + (self._patience.wait_s() if self._heard else _REFUSED_S)
        self._heard = False

    def refresh(self) -> bool:
        # What was received stays usable while disconnected; a new connection starts with whole windows.
        if self._socket is None:
            self._connect()
        return False

    def series(self, symbol: str, interval: str) -> PipeSeries | None:
        return self._series.get((symbol, interval))

    def absence(self, symbol: str, interval: str) -> Absence | None:
        return self._absences.get((symbol, interval))

    def token(self) -> int:
        return self._arrivals

    def wait(self, token: int, timeout_s: float) -> None:
        if token != self._arrivals:
            return
        if self._socket is None:
            time.sleep(min(timeout_s, max(0.0, self._next_attempt_s - time.monotonic())))
            return
        readable, _, _ = select.select([self._socket], [], [], timeout_s)
        if readable:
            self._receive(self._socket)

    def _receive(self, connection: socket.socket) -> None:
        """Take in all that has arrived, so that a decision sees the newest."""
        try:
            while True:
                chunk = connection.recv(_CHUNK_BYTES)
                if not chunk:
                    self._disconnect("the feed closed the windows' connection")
                    return
                for body in self._splitter.feed(chunk):
                    self._take(decode_message(body))
        except BlockingIOError:
            return
        except (OSError, UnavailableError) as error:
            self._disconnect(str(error))

    def _take(self, message: WindowMessage | Absence) -> None:
        self._arrivals += 1
        self._heard = True
        if isinstance(message, Absence):
            key = (message.symbol, message.interval)
            self._drop(key)
            self._absences[key] = message
            return
        key = (message.header.symbol, message.header.interval)
        held = self._series.get(key)
        if held is not None and key not in self._unheard and held.life == message.header.life:
            held.take(message)
        else:
            # Perhaps of another feed, which counts its rows from another one on, or freed and made anew: ordinals
            # held are void, and a revision that is the same says nothing.
            self._drop(key)
            self._series[key] = PipeSeries(message)

    def _drop(self, key: tuple[str, str]) -> None:
        held = self._series.pop(key, None)
        if held is not None:
            held.alive = False
        self._unheard.discard(key)
        self._absences.pop(key, None)

    def redirect(self, place: str, bell: int) -> None:
        """Nothing to do: the socket's path is fixed by the rings' folder, and there is no bell."""
