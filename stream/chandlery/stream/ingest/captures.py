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
from chandlery.stream.ingest.frames import Frame, MalformedFrame, TradeEvent, read_frame
from chandlery.stream.ingest.options import ReplayFile
from chandlery.stream.ingest.tables import (
    Columns,
    decimal_text,
    is_table,
    pick,
    pick_optional,
    read_table,
    time_ms,
    unpacked,
)

#: (receive time in ns, frame)
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
        if not is_table(file.path) and not file.path.endswith((".frames", ".frames.gz")):
            raise InputError(f"{file.path}: replays are .frames, .frames.gz, .csv, .csv.gz, .parquet or .feather")
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
                if stamp.isdigit() and payload:
                    received_ns = int(stamp)
                    yield received_ns, read_frame(payload)
                elif line.strip():
                    yield received_ns, MalformedFrame("line")
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: can't read the capture: {error}") from error


def _read_trades(file: ReplayFile, note: Callable[[float], None]) -> Iterator[Captured]:
    row = 0
    for columns in read_table(file.path, note):
        for trade in _trades(columns, file, row):
            yield trade
            row += 1


def _trades(columns: Columns, file: ReplayFile, first_row: int) -> Iterator[Captured]:
    times = pick(columns, file.path, _TIME)
    count = len(times)
    prices = pick(columns, file.path, _PRICE)
    quantities = pick(columns, file.path, _QUANTITY)
    ids = pick_optional(columns, _ID) or range(first_row + 1, first_row + count + 1)
    symbols = pick_optional(columns, _SYMBOL)
    if symbols is None:
        if not file.symbol:
            raise InputError(f"{file.path}: no symbol column; write the file as {{path, symbol}} in `files`")
        symbols = [file.symbol] * count
    for when, price, quantity, trade_id, symbol, maker in zip(
        times, prices, quantities, ids, symbols, _makers(columns, count), strict=True
    ):
        yield _trade(when, price, quantity, trade_id, symbol, maker)


def _trade(when: Any, price: Any, quantity: Any, trade_id: Any, symbol: Any, maker: bool | None) -> Captured:
    try:
        moment_ms = time_ms(when)
    except (ValueError, TypeError):
        return 0, MalformedFrame("time")
    received_ns = moment_ms * 1_000_000
    try:
        number = int(trade_id)
    except (ValueError, TypeError):
        return received_ns, MalformedFrame("id")
    try:
        texts = decimal_text(price, _PRICE_PLACES), decimal_text(quantity, _QUANTITY_PLACES)
    except ValueError:
        return received_ns, MalformedFrame("price")
    return received_ns, TradeEvent(moment_ms, str(symbol).upper(), number, *texts, moment_ms, maker)


def _makers(columns: Columns, count: int) -> list[bool | None]:
    cells = pick_optional(columns, _MAKER)
    if cells is not None:
        return [str(cell).strip().lower() in ("true", "1") for cell in cells]
    sides = pick_optional(columns, ("side",))
    if sides is not None:
        # The side is the taker's: a seller who takes meets a buyer who made.
        return [str(side).strip().lower() == "sell" for side in sides]
    return [None] * count
