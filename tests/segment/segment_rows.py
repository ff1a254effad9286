"""Rows whose every field follows from (session, ordinal, version): a torn row can't agree with itself."""

from __future__ import annotations

import numpy as np

from chandlery.workers.segment import FormingRow, SegmentWriter, Window

STEP_MS = 1_000
#: Sessions are this far apart, so that a row tells its session.
SESSION_MS = 1_000_000_000

Row = tuple[int, float, float, float, float, float, int]


def row(session: int, ordinal: int, version: int = 0) -> Row:
    """(open_time_ms, open, high, low, close, volume, trades) of one row."""
    key = float(ordinal * 1_000 + version)
    return (
        session * SESSION_MS + ordinal * STEP_MS,
        key,
        key + 0.5,
        key - 0.5,
        -key,
        key * 2,
        ordinal * 1_000 + version,
    )


def stamps(session: int, ordinal: int) -> tuple[int, ...]:
    """Eight stamps that tell session and ordinal."""
    return tuple(session * 1_000_000 + ordinal * 8 + place for place in range(8))


def append(
    writer: SegmentWriter, series: int, session: int, ordinal: int, *, backfill: bool = False, live: bool = True
) -> None:
    """Append the row of an ordinal."""
    writer.append(series, *row(session, ordinal), stamps(session, ordinal), backfill, live)


def flaw(window: Window) -> str:
    """What is wrong with a window's rows, or empty: ordinals, session, and fields that don't belong together."""
    ordinals = np.arange(window.begin, window.end)
    expected = window.session * SESSION_MS + ordinals * STEP_MS
    if not np.array_equal(window.open_time, expected):
        return f"open times {window.open_time} of rows {window.begin} … {window.end}, session {window.session}"
    keys = window.open.copy()
    if not np.array_equal(keys // 1_000, ordinals):
        return f"keys {keys} of rows {window.begin} … {window.end}"
    same = (
        (window.high == keys + 0.5)
        & (window.low == keys - 0.5)
        & (window.close == -keys)
        & (window.volume == keys * 2)
        & (window.trades == keys.astype(np.int64))
    )
    return "" if same.all() else f"rows {ordinals[~same]} mix versions"


def forming_flaw(forming: FormingRow) -> str:
    """What is wrong with a forming row, or empty."""
    session, rest = divmod(forming.open_time_ms, SESSION_MS)
    ordinal, version = divmod(forming.trades, 1_000)
    whole = forming[:7] == row(session, ordinal, version) and rest == ordinal * STEP_MS
    return "" if whole and forming.stamps == stamps(session, ordinal) else f"torn forming row {forming}"
