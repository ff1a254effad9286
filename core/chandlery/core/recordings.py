"""Kinds of files that can be played back, told by their names: captures of frames, and tables of trades."""

from __future__ import annotations

from typing import Final

_TABLES: Final = (".csv", ".csv.gz", ".parquet", ".feather", ".arrow")
_CAPTURES: Final = (".frames", ".frames.gz")


def is_table(path: str) -> bool:
    """Whether the file's name is that of a table."""
    return path.endswith(_TABLES)


def kind_problem(path: str) -> str | None:
    """What is wrong with the kind of a file to play back, None for nothing."""
    if path.endswith((*_CAPTURES, *_TABLES)):
        return None
    *others, last = (*_CAPTURES, *_TABLES)
    return f"replays are {', '.join(others)} or {last}"
