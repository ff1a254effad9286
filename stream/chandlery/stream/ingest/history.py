"""History from files: closed candles of a series as backfill records."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from chandlery.core.errors import InputError
from chandlery.core.intervals import Interval, parse_interval
from chandlery.core.settings import HistoryFile
from chandlery.core.wire import BackfillRecord
from chandlery.stream.ingest.decimals import least_scale, parse_column
from chandlery.stream.ingest.tables import Columns, decimal_text, pick, pick_optional, read_table, time_ms

#: Rows a record: at most about 300 bytes each (seven columns of up to 40 digits), so 600 KB of the 1 MiB allowed.
ROWS_PER_RECORD: Final = 2_000
_TIME: Final = ("date", "time", "timestamp", "open_time")
_TRADES: Final = ("trades", "count", "number_of_trades")
_PLACES: Final = {"open": 12, "high": 12, "low": 12, "close": 12, "volume": 8}


def read_history(file: HistoryFile, session: int, market_ms: int | None) -> Iterator[BackfillRecord]:
    """Read a history file.

    Args:
        file: candles with the columns date, open, high, low, close, volume and maybe trades, ascending.
        session: the session that the records belong to.
        market_ms: where given, the candles are moved by whole intervals so that the last one closes at the
            interval's boundary at or before this exchange time; None leaves them where they are.

    Raises:
        InputError: unreadable, not ascending, or not aligned to the interval.
    """
    interval = parse_interval(file.interval)
    shift_ms = 0 if market_ms is None else _shift_ms(file, interval, market_ms)
    previous_ms = -1
    for columns in read_table(file.path):
        times = _times(columns, file)
        for open_ms in times:
            if open_ms <= previous_ms:
                raise InputError(f"{file.path}: candles must ascend: {open_ms} comes after {previous_ms}")
            if interval.floor_ms(open_ms) != open_ms:
                raise InputError(f"{file.path}: {open_ms} is no open time of a {interval} candle")
            previous_ms = open_ms
        yield from _records(columns, [open_ms + shift_ms for open_ms in times], file, session)


def _times(columns: Columns, file: HistoryFile) -> list[int]:
    try:
        return [time_ms(value) for value in pick(columns, file.path, _TIME)]
    except (ValueError, TypeError) as error:
        raise InputError(f"{file.path}: {error}") from error


def _shift_ms(file: HistoryFile, interval: Interval, market_ms: int) -> int:
    if interval.text.endswith("M"):
        raise InputError(f"{file.path}: months differ in length, so their history can't be shifted")
    last_ms: int | None = None
    for columns in read_table(file.path):
        last_ms = _times(columns, file)[-1]
    return 0 if last_ms is None else interval.floor_ms(market_ms) - interval.next_ms(last_ms)


def _records(columns: Columns, times: list[int], file: HistoryFile, session: int) -> Iterator[BackfillRecord]:
    try:
        texts = {
            name: [decimal_text(value, places) for value in pick(columns, file.path, (name,))]
            for name, places in _PLACES.items()
        }
        trades = [int(count) for count in pick_optional(columns, _TRADES) or [0] * len(times)]
        for start in range(0, len(times), ROWS_PER_RECORD):
            rows = slice(start, start + ROWS_PER_RECORD)
            yield _record(
                file, session, times[rows], {name: column[rows] for name, column in texts.items()}, trades[rows]
            )
    except (ValueError, TypeError) as error:
        raise InputError(f"{file.path}: {error}") from error


def _record(
    file: HistoryFile, session: int, times: list[int], texts: dict[str, list[str]], trades: list[int]
) -> BackfillRecord:
    rows = len(times)
    prices, price_scale = parse_column(texts["open"] + texts["high"] + texts["low"] + texts["close"])
    prices, price_scale = least_scale(prices, price_scale)
    volume, quantity_scale = least_scale(*parse_column(texts["volume"]))
    return BackfillRecord(
        file.symbol, session, file.interval, price_scale, quantity_scale, times,
        prices[:rows], prices[rows : 2 * rows], prices[2 * rows : 3 * rows], prices[3 * rows :],
        volume, trades,
    )  # fmt: skip
