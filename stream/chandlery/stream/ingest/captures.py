"""Recorded markets: captured frames and tables of trades, as one stream by receive time."""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from operator import itemgetter, mul
from pathlib import Path
from typing import Any, Final

from chandlery.core.errors import InputError
from chandlery.core.recordings import is_table, kind_problem
from chandlery.stream.ingest.frames import LAST_SENSIBLE_MS, Frame, MalformedFrame, TradeEvent, read_frame
from chandlery.stream.ingest.options import ReplayFile
from chandlery.stream.ingest.tables import (
    Columns,
    decimal_text,
    pick,
    pick_optional,
    read_table,
    time_ms,
    unpacked,
)

#: (receive time in ns, frame). One that has no time of its own has that of the one before it in its file, else 0.
Captured = tuple[int, Frame]

_TIME: Final = ("time", "timestamp", "trade_time", "date", "t")
_PRICE: Final = ("price", "p")
_QUANTITY: Final = ("quantity", "amount", "qty", "size", "volume", "q")
_ID: Final = ("id", "trade_id", "agg_trade_id")
_SYMBOL: Final = ("symbol", "s")
_MAKER: Final = ("is_buyer_maker", "buyer_maker", "m")
# Binary floats: an exchange quotes no finer (facts about prices and sizes, not about the format).
_PRICE_PLACES: Final = 12
_QUANTITY_PLACES: Final = 8
#: How far a capture is read is noted after so many lines: a hundredth of a second of reading.
_NOTED_LINES: Final = 1_000


class UnnumberedTrade(TradeEvent):
    """A trade of a table that has no column of ids; ``t`` is 0."""


def check_files(files: Sequence[str | ReplayFile], symbols: Sequence[str]) -> list[ReplayFile]:
    """The files to replay, each with the symbol of its trades where the file itself doesn't say.

    Raises:
        InputError: none given, absent, of an unknown kind.
    """
    if not files:
        raise InputError("options of the source replay: `files` is empty; name at least one capture or table")
    only = symbols[0] if len(symbols) == 1 else ""
    checked = []
    for entry in files:
        file = ReplayFile(entry) if isinstance(entry, str) else entry
        if not Path(file.path).is_file():
            raise InputError(f"{file.path}: no such file to replay")
        if (problem := kind_problem(file.path)) is not None:
            raise InputError(f"{file.path}: {problem}")
        checked.append(ReplayFile(file.path, file.symbol or only))
    return checked


class Reading:
    """How far files are read, all together, each by its part of their bytes."""

    def __init__(self, files: Sequence[ReplayFile]) -> None:
        self._bytes = [Path(file.path).stat().st_size for file in files]
        self._shares = [0.0] * len(files)

    @property
    def share(self) -> float:
        """0 … 1."""
        whole = sum(self._bytes)
        return sum(map(mul, self._bytes, self._shares)) / whole if whole else 1.0

    def note(self, file: int, share: float) -> None:
        """So much of a file is read (its ordinal; 0 … 1)."""
        self._shares[file] = min(share, 1.0)


def read_captures(files: Sequence[ReplayFile], reading: Reading | None = None) -> Iterator[Captured]:
    """All files' frames, ascending by receive time as long as each file is; read lazily.

    Args:
        reading: of the same files; told now and then how far they are read.

    Raises:
        InputError: a file can't be read to its end.
    """
    reading = reading or Reading(files)
    streams = [_read_file(file, partial(reading.note, index)) for index, file in enumerate(files)]
    return streams[0] if len(streams) == 1 else heapq.merge(*streams, key=itemgetter(0))


def _read_file(file: ReplayFile, note: Callable[[float], None]) -> Iterator[Captured]:
    yield from _read_trades(file, note) if is_table(file.path) else _read_frames(file.path, note)
    note(1.0)


def _read_frames(path: str, note: Callable[[float], None]) -> Iterator[Captured]:
    received_ns = 0
    try:
        size = max(1, Path(path).stat().st_size)
        with Path(path).open("rb") as file, unpacked(path, file) as lines:
            for number, line in enumerate(lines, 1):
                if number % _NOTED_LINES == 0:
                    note(file.tell() / size)
                stamp, _, payload = line.partition(b" ")
                if stamp.isdigit() and payload and int(stamp) < LAST_SENSIBLE_MS * 1_000_000:
                    received_ns = int(stamp)
                    yield received_ns, read_frame(payload)
                elif line.strip():
                    yield received_ns, MalformedFrame("line")
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: can't read the capture: {error}") from error


def _read_trades(file: ReplayFile, note: Callable[[float], None]) -> Iterator[Captured]:
    received_ns = 0
    for columns in read_table(file.path, note):
        for captured in _trades(columns, file, received_ns):
            received_ns = captured[0]
            yield captured


def _trades(columns: Columns, file: ReplayFile, before_ns: int) -> Iterator[Captured]:
    """The trades of some rows. before_ns: receive time of the row before them, 0 for none."""
    times = pick(columns, file.path, _TIME)
    count = len(times)
    prices = pick(columns, file.path, _PRICE)
    quantities = pick(columns, file.path, _QUANTITY)
    ids = pick_optional(columns, _ID)
    symbols = pick_optional(columns, _SYMBOL)
    if symbols is None:
        if not file.symbol:
            raise InputError(f"{file.path}: no symbol column; write the file as {{path, symbol}} in `files`")
        symbols = [file.symbol] * count
    kind = UnnumberedTrade if ids is None else TradeEvent
    for when, price, quantity, trade_id, symbol, maker in zip(
        times, prices, quantities, ids or [0] * count, symbols, _makers(columns, count), strict=True
    ):
        moment_ms = _sensible_ms(when)
        if moment_ms is None:
            yield before_ns, MalformedFrame("time")
            continue
        before_ns = moment_ms * 1_000_000
        yield before_ns, _trade(kind, moment_ms, price, quantity, trade_id, symbol, maker)


def _sensible_ms(when: Any) -> int | None:
    """A cell's time, ms; None for none that can be believed, which would also be waited for."""
    try:
        moment_ms = time_ms(when)
    except (ValueError, TypeError, OverflowError):
        return None
    return moment_ms if 0 < moment_ms < LAST_SENSIBLE_MS else None


def _trade(
    kind: type[TradeEvent],
    moment_ms: int,
    price: Any,
    quantity: Any,
    trade_id: Any,
    symbol: Any,
    maker: bool | None,
) -> Frame:
    try:
        number = int(trade_id)
    except (ValueError, TypeError):
        return MalformedFrame("id")
    try:
        texts = decimal_text(price, _PRICE_PLACES), decimal_text(quantity, _QUANTITY_PLACES)
    except ValueError:
        return MalformedFrame("price")
    return kind(moment_ms, str(symbol).upper(), number, *texts, moment_ms, maker)


def _makers(columns: Columns, count: int) -> list[bool | None]:
    cells = pick_optional(columns, _MAKER)
    if cells is not None:
        return [str(cell).strip().lower() in ("true", "1") for cell in cells]
    sides = pick_optional(columns, ("side",))
    if sides is not None:
        # The side is the taker's: a seller who takes meets a buyer who made.
        return [str(side).strip().lower() == "sell" for side in sides]
    return [None] * count
