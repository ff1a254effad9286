"""What a segment holds, as plain data: for ``chandlery debug segment`` and the feed's API."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, TypedDict

from chandlery.workers.segment import _native
from chandlery.workers.segment.layout import Header

_STATE: Final = struct.Struct("<QQQqqqq")


class HeaderInfo(TypedDict):
    """A segment's header: numbers as in Geometry; times by the monotonic clock, ns."""

    generation: int
    writer_pid: int
    created_ns: int
    heartbeat_ns: int
    superseded: bool
    layout_version: int
    file_bytes: int
    rows: int
    guard_rows: int
    series_capacity: int
    bells: int
    stamp_rows: int


class SeriesInfo(TypedDict):
    """One series: ``fill`` rows of ``count`` ever appended are there; -1 stands for no open time."""

    index: int
    symbol: str
    interval: str
    session: int
    count: int
    fill: int
    revision: int
    live_from_ms: int
    traded_from_ms: int
    last_open_time_ms: int
    forming_open_time_ms: int


class SegmentInfo(TypedDict):
    """Header, series in use, and the value of each bell."""

    header: HeaderInfo
    series: list[SeriesInfo]
    bells: list[int]


def describe(mapping: _native.Mapping, header: Header) -> SegmentInfo:
    """Describe a mapped segment. Each word is read atomically, their combination is not."""
    g = header.geometry
    series = [_describe_series(mapping, header, index) for index in range(g.series)]
    return {
        "header": {
            "generation": header.generation,
            "writer_pid": header.writer_pid,
            "created_ns": header.created_ns,
            "heartbeat_ns": mapping.load(_native.HEADER_HEARTBEAT_NS),
            "superseded": mapping.load(_native.HEADER_SUPERSEDED) != 0,
            "layout_version": _native.LAYOUT_VERSION,
            "file_bytes": g.file_bytes,
            "rows": g.rows,
            "guard_rows": g.guard_rows,
            "series_capacity": g.series,
            "bells": g.bells,
            "stamp_rows": g.stamp_rows,
        },
        "series": [one for one in series if one is not None],
        # A bell's word is a uint32; the rest of its line stays 0.
        "bells": [mapping.load(g.bells_offset + bell * _native.BELL_BYTES) for bell in range(g.bells)],
    }


def names(mapping: _native.Mapping, header: Header) -> Iterator[tuple[str, str]]:
    """Symbol and interval of each series in use. One that is added or removed meanwhile may be told of by half."""
    g = header.geometry
    for at in range(g.records_offset, g.records_offset + g.series * _native.RECORD_BYTES, _native.RECORD_BYTES):
        if mapping.load(at + _native.RECORD_EPOCH) & 1:
            yield _name(mapping, at)


def _name(mapping: _native.Mapping, record: int) -> tuple[str, str]:
    symbol = mapping.read(record + _native.RECORD_SYMBOL, _native.SYMBOL_BYTES)
    return _text(symbol), _text(mapping.read(record + _native.RECORD_INTERVAL, _native.INTERVAL_BYTES))


def _describe_series(mapping: _native.Mapping, header: Header, index: int) -> SeriesInfo | None:
    g = header.geometry
    at = g.records_offset + index * _native.RECORD_BYTES
    if not mapping.load(at + _native.RECORD_EPOCH) & 1:
        return None
    revision, _reserved, count, session, live_from_ms, last_open_time_ms, traded_from_ms = _STATE.unpack(
        mapping.read(at + _native.RECORD_REVISION, _STATE.size)
    )
    (forming,) = struct.unpack("<q", mapping.read(at + _native.RECORD_FORMING, _native.WORD_BYTES))
    symbol, interval = _name(mapping, at)
    return {
        "index": index,
        "symbol": symbol,
        "interval": interval,
        "session": session,
        "count": count,
        "fill": min(count, g.rows),
        "revision": revision,
        "live_from_ms": live_from_ms,
        "traded_from_ms": traded_from_ms,
        "last_open_time_ms": last_open_time_ms,
        "forming_open_time_ms": forming,
    }


def _text(padded: bytes) -> str:
    return padded.rstrip(b"\0").decode("utf-8", errors="replace")
