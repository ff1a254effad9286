"""Tables from CSV, Parquet and Feather files, a batch of columns at a time, with exact decimals."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import io
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, Final, TextIO

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

from chandlery.core.errors import InputError
from chandlery.stream.ingest.decimals import float_text

#: Columns by lower-case name; CSV cells are text, others are what pyarrow makes of them.
Columns = dict[str, list[Any]]
#: Told how much of a file is read, 0 … 1.
Note = Callable[[float], None]

_BATCH_ROWS: Final = 4_096
#: Layout of the exchange's public trade dumps, which have no header line.
_DUMP_COLUMNS: Final = ("id", "price", "quantity", "quote_quantity", "time", "is_buyer_maker", "is_best_match")


def read_table(path: str, note: Note = lambda share: None) -> Iterator[Columns]:
    """Read a table lazily.

    Args:
        path: a ``.csv``, ``.csv.gz``, ``.parquet``, ``.feather`` or ``.arrow`` file.
        note: told before each batch how much of the file is read with it, 0 … 1.

    Yields:
        Batches of some thousand rows.

    Raises:
        InputError: unreadable, or of another form; names the file.
    """
    try:
        if path.endswith((".csv", ".csv.gz")):
            yield from _read_csv(path, note)
        elif path.endswith(".parquet"):
            with pyarrow.parquet.ParquetFile(path) as file:
                rows = 0
                for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                    rows += batch.num_rows
                    note(rows / max(1, file.metadata.num_rows))
                    yield _columns(batch)
        else:
            yield from _read_feather(path, note)
    except (OSError, pa.ArrowException, UnicodeDecodeError, csv.Error, EOFError) as error:
        raise InputError(f"{path}: can't read the table: {error}") from error


def _read_feather(path: str, note: Note) -> Iterator[Columns]:
    with pa.memory_map(path) as mapped:
        reader = pyarrow.ipc.open_file(mapped)
        for index in range(reader.num_record_batches):
            batch = reader.get_batch(index)
            for start in range(0, batch.num_rows, _BATCH_ROWS):
                read = min(1.0, (start + _BATCH_ROWS) / batch.num_rows)
                note((index + read) / reader.num_record_batches)
                yield _columns(batch.slice(start, _BATCH_ROWS))


def _columns(batch: Any) -> Columns:
    columns: Columns = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.timestamp("ms", column.type.tz), safe=False).cast(pa.int64())
        columns[name.lower()] = column.to_pylist()
    return columns


def unpacked(path: str, file: IO[bytes]) -> IO[bytes]:
    """What stands in an opened file: unpacked where its name says it is packed."""
    return gzip.open(file, "rb") if path.endswith(".gz") else file  # type: ignore[return-value]


def _text_of(path: str, file: IO[bytes]) -> TextIO:
    return io.TextIOWrapper(unpacked(path, file), encoding="utf-8", newline="")


def _read_csv(path: str, note: Note) -> Iterator[Columns]:
    size = max(1, Path(path).stat().st_size)
    with Path(path).open("rb") as packed, _text_of(path, packed) as text:
        rows = csv.reader(text)
        first = next(rows, None)
        if first is None:
            return
        batch: list[list[str]] = []
        if _is_data(first):
            names: Sequence[str] = _DUMP_COLUMNS[: len(first)]
            batch.append(first)
        else:
            names = [name.strip().lower() for name in first]
        for row in rows:
            if len(row) != len(names):
                raise InputError(f"{path}: line {rows.line_num}: {len(row)} cells where {len(names)} are due")
            batch.append(row)
            if len(batch) == _BATCH_ROWS:
                note(packed.tell() / size)
                yield _transposed(names, batch)
                batch = []
        if batch:
            yield _transposed(names, batch)


def _transposed(names: Sequence[str], rows: list[list[str]]) -> Columns:
    return {name: list(cells) for name, cells in zip(names, zip(*rows, strict=True), strict=True)}


def _is_data(row: list[str]) -> bool:
    return 5 <= len(row) <= len(_DUMP_COLUMNS) and all(cell[:1].isdigit() for cell in row[:5])


def pick(columns: Columns, path: str, names: Sequence[str]) -> list[Any]:
    """The first of these columns that is there.

    Raises:
        InputError: none is.
    """
    for name in names:
        if name in columns:
            return columns[name]
    raise InputError(f"{path}: no column {' or '.join(names)} among {', '.join(columns)}")


def pick_optional(columns: Columns, names: Sequence[str]) -> list[Any] | None:
    """The first of these columns that is there, or None."""
    return next((columns[name] for name in names if name in columns), None)


def time_ms(value: Any) -> int:
    """A time as ms since the epoch: a number of s, ms, µs or ns (told apart by size) or ISO 8601 text (UTC).

    Raises:
        ValueError: no time.
    """
    if isinstance(value, str):
        text = value.strip()
        try:
            value = int(text)
        except ValueError:
            moment = dt.datetime.fromisoformat(text)
            return round((moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp() * 1000)
    number = int(value)
    # 1e11 s is the year 5138, 1e11 ms is 1973; and so on up.
    if number < 100_000_000_000:
        return number * 1000
    while number >= 100_000_000_000_000:
        number //= 1000
    return number


def decimal_text(value: Any, places: int) -> str:
    """A cell as decimal text: text stays as it is, floats give their 15 significant digits.

    Raises:
        ValueError: no number.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return float_text(value, places)
    if isinstance(value, int | Decimal):
        return f"{value:f}" if isinstance(value, Decimal) else str(value)
    raise ValueError(f"{value!r} is no number")
