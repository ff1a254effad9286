"""What is the same for every mechanism of the fan-out: the candles, the pace, the window and what is read from it."""

from __future__ import annotations

import struct
import time
from array import array
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chandlery.core.clocks import now_ns

#: ``one``: one reader is subscribed to what changes, the others elsewhere. ``all``: all are.
Case = Literal["one", "all"]
CASES: Final[tuple[Case, ...]] = ("one", "all")
#: The window that each reader takes for each candle, candles.
WINDOW: Final = 500
COLUMNS: Final = 7
CANDLE_BYTES: Final = COLUMNS * 8
#: Candles that a reader has before the first is published.
HISTORY: Final = WINDOW
STEP_MS: Final = 60_000
EPOCH_MS: Final = 1_700_000_000_000
#: How long a reader sleeps before it looks again, s: nothing depends on it, it bounds a lost wake-up.
LOOK_AGAIN_S: Final = 1.0
#: A message peer's window moves along this many candles before it is moved back: 28 KB every 3,596 candles.
_OWN_ROOM: Final = 4_096

#: A candle as a message: the 7 columns, all as float64, in which every one of these integers is exact.
as_message: Final = struct.Struct("<7d").pack

Candle = tuple[int, float, float, float, float, float, int]
Float = NDArray[np.float64]


class Leg(NamedTuple):
    """Candles ``first`` … ``first + candles - 1`` of one case, published at an even pace."""

    case: Case
    first: int
    candles: int
    period_ns: int

    @property
    def last_open_ms(self) -> int:
        """Open time of the last candle, ms."""
        return open_ms(self.first + self.candles - 1)


def open_ms(number: int) -> int:
    """Open time of a candle, ms."""
    return EPOCH_MS + number * STEP_MS


def candles(first: int, count: int) -> list[Candle]:
    """A seeded random walk; made before the clock runs."""
    walk = np.random.default_rng(7 + first).normal(size=(count, 4))
    made: list[Candle] = []
    for at, (a, b, c, d) in enumerate(walk.tolist()):
        base = 1_000.0 + a
        made.append((open_ms(first + at), base, base + abs(b), base - abs(c), base + d, 10.0 + abs(a), 7))
    return made


def pace(count: int, period_ns: int) -> Iterator[int]:
    """Sleep until each candle is due; yields its stamp, monotonic ns.

    The stamp is the moment just before publishing. Where publishing the one before took beyond this one's time, it
    is the time at which this one was due, so that a mechanism that holds its writer up doesn't hide the wait
    (coordinated omission). The timer's own lateness, the same for all, is in no figure.
    """
    due_ns = now_ns() + period_ns
    for _ in range(count):
        early_ns = due_ns - now_ns()
        if early_ns > 0:
            time.sleep(early_ns / 1e9)
            yield now_ns()
        else:
            yield due_ns
        due_ns += period_ns


#: As ``close.sum()``, less numpy's own detour by way of Python.
_sum: Final = np.add.reduce


def strategy_input(close: Float) -> float:
    """What every reader reads, in each language and by each mechanism: the last close and the sum of all 500."""
    return float(close[-1]) + float(_sum(close))


class Log:
    """What a reader notes: which candle, when it had the window that ends with it in hand, and when it had read it."""

    def __init__(self) -> None:
        self.open_ms: list[float] = []
        self.in_hand_ns: list[int] = []
        self.read_ns: list[int] = []

    def packed(self) -> tuple[bytes, bytes, bytes]:
        """The columns, float64 and twice int64, to be sent to the parent."""
        opened, in_hand, read = array("d", self.open_ms), array("q", self.in_hand_ns), array("q", self.read_ns)
        return opened.tobytes(), in_hand.tobytes(), read.tobytes()


def read_windows(windows: Iterator[list[Float]], last_open_ms: int, log: Log) -> None:
    """The turn of a reader that keeps its own window: it comes, is read, is noted; until the last candle."""
    in_hand, opened, read = log.in_hand_ns.append, log.open_ms.append, log.read_ns.append
    for columns in windows:
        in_hand_ns = now_ns()
        strategy_input(columns[4])
        read(now_ns())
        in_hand(in_hand_ns)
        open_time_ms = columns[0][-1]
        opened(open_time_ms)
        if open_time_ms >= last_open_ms:
            return


class OwnWindow:
    """The window that a message peer's reader keeps itself: 7 columns, each of one piece, moving along."""

    def __init__(self) -> None:
        self._columns: Final[Float] = np.zeros((COLUMNS, _OWN_ROOM))
        self._end = 0
        for candle in candles(0, HISTORY):
            self._columns[:, self._end] = candle
            self._end += 1

    def push(self, message: bytes, offset: int = 0) -> list[Float]:
        """Take the candle in that a message holds; the 7 columns of the newest 500, views."""
        columns, end = self._columns, self._end
        if end == _OWN_ROOM:
            columns[:, : WINDOW - 1] = columns[:, end - WINDOW + 1 :]
            end = WINDOW - 1
        columns[:, end] = np.frombuffer(message, np.float64, COLUMNS, offset)
        self._end = end + 1
        return list(columns[:, end + 1 - WINDOW : end + 1])
