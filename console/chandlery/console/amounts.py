"""Amounts as a person reads them: durations, sizes, counts, times."""

from __future__ import annotations

import datetime as dt


def duration_us(value: float | None) -> str:
    """Microseconds with a fitting unit: ``85 µs``, ``4.2 ms``, ``1.27 s``; a dash for None."""
    if value is None:
        return "–"
    if abs(value) < 1_000:
        return f"{value:.0f} µs"
    if abs(value) < 10_000:
        return f"{value / 1_000:.2f} ms"
    if abs(value) < 1_000_000:
        return f"{value / 1_000:.1f} ms"
    return f"{value / 1_000_000:.2f} s"


def size(value_bytes: int) -> str:
    """Bytes with a fitting unit: ``312 kB``, ``9.8 MB``; a dash for 0."""
    if value_bytes <= 0:
        return "–"
    if value_bytes < 1_000_000:
        return f"{value_bytes / 1_000:.0f} kB"
    if value_bytes < 1_000_000_000:
        return f"{value_bytes / 1_000_000:.1f} MB"
    return f"{value_bytes / 1_000_000_000:.2f} GB"


def count(value: int) -> str:
    """A count with thin separators: ``1,234,567``."""
    return f"{value:,}"


def clock_time(wall_ms: int) -> str:
    """Time of day, UTC, to the second; a dash for 0 and below."""
    if wall_ms <= 0:
        return "–"
    return dt.datetime.fromtimestamp(wall_ms / 1000, dt.UTC).strftime("%H:%M:%S")


def timestamp(wall_ms: int) -> str:
    """Date and time, UTC, ISO 8601 with milliseconds; a dash for 0 and below."""
    if wall_ms <= 0:
        return "–"
    return dt.datetime.fromtimestamp(wall_ms / 1000, dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
