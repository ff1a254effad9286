"""Kinds of files that markets are read from, told by their names: captures of frames, tables of trades or candles."""

from __future__ import annotations

from typing import Final

_TABLES: Final = (".csv", ".csv.gz", ".parquet", ".feather", ".arrow")
_CAPTURES: Final = (".frames", ".frames.gz")


def is_table(path: str) -> bool:
    """Whether the file's name is that of a table."""
    return path.endswith(_TABLES)


def kind_problem(path: str) -> str | None:
    """What is wrong with the kind of a file to play back, None for nothing."""
    return None if path.endswith((*_CAPTURES, *_TABLES)) else f"replays are {_any_of((*_CAPTURES, *_TABLES))}"


def history_problem(path: str) -> str | None:
    """What is wrong with the kind of a file of candles, None for nothing."""
    return None if is_table(path) else f"files of history are {_any_of(_TABLES)}"


def _any_of(suffixes: tuple[str, ...]) -> str:
    *others, last = suffixes
    return f"{', '.join(others)} or {last}"
