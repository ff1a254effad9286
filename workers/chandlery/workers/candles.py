"""Candles as a strategy sees them: read-only numpy columns over shared memory or over a copy."""

from __future__ import annotations

from typing import Any, Final, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

COLUMNS: Final = ("open_time", "open", "high", "low", "close", "volume", "trades")


class Columns(Protocol):
    """Anything with the seven columns: a segment's window, a received window, :class:`Candles` itself."""

    @property
    def open_time(self) -> Ints: ...
    @property
    def open(self) -> Floats: ...
    @property
    def high(self) -> Floats: ...
    @property
    def low(self) -> Floats: ...
    @property
    def close(self) -> Floats: ...
    @property
    def volume(self) -> Floats: ...
    @property
    def trades(self) -> Ints: ...


class FormingValues(Protocol):
    """The values of one forming candle."""

    @property
    def open_time_ms(self) -> int: ...
    @property
    def open(self) -> float: ...
    @property
    def high(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def close(self) -> float: ...
    @property
    def volume(self) -> float: ...
    @property
    def trades(self) -> int: ...


class Candle(NamedTuple):
    """One candle. ``open_time`` in ms since the epoch (UTC); prices in quote, ``volume`` in base currency."""

    open_time: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    trades: int


class Candles:
    """A window of consecutive candles, oldest first.

    Attributes:
        open_time: int64, ms since the epoch (UTC), shape (n,).
        open, high, low, close, volume: float64, shape (n,).
        trades: int64, number of trades, shape (n,).

    All columns are read-only. They are views: valid during the call, so copy what shall outlive it.
    """

    __slots__ = (*COLUMNS, "_columns")

    open_time: Ints
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    trades: Ints

    _columns: Columns

    def __init__(self, columns: Columns) -> None:
        # All at once: seven views cost less than the one call that would make a view when it is asked for.
        self.open_time = columns.open_time
        self.open = columns.open
        self.high = columns.high
        self.low = columns.low
        self.close = columns.close
        self.volume = columns.volume
        self.trades = columns.trades

    def __getattr__(self, name: str) -> Any:
        # Only asked for a slot that is empty: of candles that :func:`with_forming` puts together, a column that the
        # strategy hasn't looked at yet.
        if name not in COLUMNS:
            raise AttributeError(f"candles have no {name}; there are {', '.join(COLUMNS)}")
        column = getattr(self._columns, name)
        setattr(self, name, column)
        return column

    @classmethod
    def of(cls, **columns: ArrayLike) -> Candles:
        """Candles over copies of the given columns (backtests, tests); each of the seven by its name."""
        made = cls.__new__(cls)
        for name in COLUMNS:
            kind: Any = np.int64 if name in ("open_time", "trades") else np.float64
            column = np.array(columns[name], dtype=kind)
            column.flags.writeable = False
            setattr(made, name, column)
        return made

    def __len__(self) -> int:
        return len(self.open_time)

    def __getitem__(self, index: int) -> Candle:
        return Candle(
            int(self.open_time[index]),
            float(self.open[index]),
            float(self.high[index]),
            float(self.low[index]),
            float(self.close[index]),
            float(self.volume[index]),
            int(self.trades[index]),
        )

    @property
    def last(self) -> Candle:
        """The candle decided on: the newest closed one, or the forming one in a forming call."""
        return self[-1]


class _WithForming:
    """Closed columns with a forming candle as their last row; each column is put together when it is asked for."""

    __slots__ = ("_closed", "_forming", "_length")

    def __init__(self, closed: Columns, forming: FormingValues, length: int) -> None:
        self._closed = closed
        self._forming = forming
        self._length = length

    def __getattr__(self, name: str) -> NDArray[Any]:
        # Copying and pickling ask an empty object for methods of theirs.
        if name not in COLUMNS:
            raise AttributeError(name)
        before = getattr(self._closed, name)
        if self._length <= len(before):
            before = before[len(before) - self._length + 1 :]
        column = np.empty(len(before) + 1, dtype=before.dtype)
        column[:-1] = before
        column[-1] = self._forming.open_time_ms if name == "open_time" else getattr(self._forming, name)
        column.flags.writeable = False
        return column


def with_forming(closed: Columns, forming: FormingValues, length: int) -> Candles:
    """The last ``length`` candles of ``closed`` with the forming one behind them, as copies.

    A column is copied when it is first looked at: whoever acts on what was computed from it asks before whether
    ``closed`` still held by then.
    """
    made = Candles.__new__(Candles)
    made._columns = _WithForming(closed, forming, length)
    return made
