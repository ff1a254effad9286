"""Shared memory and signal rings from inside, for ``chandlery debug``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.text import Text

from chandlery.console.amounts import count, size, timestamp
from chandlery.console.tables import figures_table, plain_table

Info = Mapping[str, Any]
#: Counters of a reader.
_FATES: Final = ("calls", "lapped", "reruns", "stale")


def segment_inside(segment: Info, rings: Info, now_ns: int) -> RenderableType:
    """A segment: header, series with fill and revisions, readers with their doorbells and lapped counts.

    Args:
        segment: ``GET /v1/segment``; with fewer series than there are, ``series_count`` has their number; ``absent`` says
            why a series isn't there. rings: ``GET /v1/rings``. now_ns: monotonic clock of this host.
    """
    header: Info = segment.get("header", {})
    beat_ms = (now_ns - int(header.get("heartbeat_ns", 0))) / 1e6
    rows = [
        ("layout", f"version {header.get('layout_version')}, generation {header.get('generation')}"),
        ("size", f"{size(int(header.get('file_bytes', 0)))}, {count(int(header.get('rows', 0)))} rows a series"),
        ("series", _room(segment)),
        ("writer", f"pid {header.get('writer_pid')}, heartbeat {beat_ms:.0f} ms ago"),
        ("superseded", "yes" if header.get("superseded") else "no"),
    ]
    return Group(figures_table(rows), _series(segment), *_absent(segment), Text(), _readers(segment, rings))


def _absent(segment: Info) -> list[RenderableType]:
    """A line for each series that a Trader reads and that isn't there."""
    absent: Info = segment.get("absent", {})
    return [Text(f"no series {name}: {why}", style="yellow") for name, why in sorted(absent.items())]


def _room(segment: Info) -> str:
    """How full it is, and what became of it: a feed of an earlier version says no more than the first."""
    used = segment.get("series_count", len(segment.get("series", [])))
    full = f"{used} of {segment.get('header', {}).get('series_capacity')}"
    room: Info | None = segment.get("room")
    if not room:
        return full
    waiting = f", {room['series_waiting']} wait for room" if room["series_waiting"] else ""
    return (
        f"{full} (may grow to {room['series_capacity']}; grown {room['growths']} times){waiting}; "
        f"{room['series_in_grace']} unread, {room['series_freed']} freed"
    )


def _series(segment: Info) -> RenderableType:
    table = plain_table(
        "SERIES", "SYMBOL", "INTERVAL", "SESSION", "CLOSED", "FILL", "REVISION", "LAST CANDLE", "FORMING",
        right=("SERIES", "CLOSED", "FILL", "REVISION"),
    )  # fmt: skip
    capacity = max(1, int(segment.get("header", {}).get("rows", 1)))
    for row in segment.get("series", []):
        table.add_row(
            str(row["index"]),
            row["symbol"],
            row["interval"],
            str(row["session"]),
            count(row["count"]),
            f"{row['fill'] / capacity:.0%}",
            count(row["revision"]),
            timestamp(row["last_open_time_ms"]),
            timestamp(row["forming_open_time_ms"]),
        )
    return table


def readers_of(segment: Info, rings: Info) -> dict[str, dict[str, Any]]:
    """Who reads a segment, by Trader: its doorbell with how often that was rung (None, of one that reads a pipe), and
    what became of its calls: ``lapped`` are closed candles that it came too late for."""
    bells, piped = segment.get("bells", []), frozenset(segment.get("piped", []))
    readers: dict[str, dict[str, Any]] = {}
    for trader, bell in sorted(segment.get("traders", {}).items()):
        counters = rings.get(trader, {}).get("counters", {})
        rung = int(bells[bell]) if 0 <= bell < len(bells) else 0
        readers[trader] = {
            "doorbell": None if trader in piped else bell,
            "rung": None if trader in piped else rung,
            **{name: int(counters.get(name, 0)) for name in _FATES},
        }
    return readers


def _readers(segment: Info, rings: Info) -> RenderableType:
    numbers = ("DOORBELL", "RUNG", *(name.upper() for name in _FATES))
    table = plain_table("READER", *numbers, right=numbers)
    for trader, told in readers_of(segment, rings).items():
        bell = ("pipe", "–") if told["doorbell"] is None else (str(told["doorbell"]), count(told["rung"]))
        table.add_row(trader, *bell, *(count(told[name]) for name in _FATES))
    return table


def rings_inside(rings: Info) -> RenderableType:
    """Signal rings: depth, in flight, blocked, positions, last errors (``GET /v1/rings``)."""
    table = plain_table(
        "RING", "DEPTH", "IN FLIGHT", "HEAD", "TAIL", "SIGNALS", "BLOCKED", "POSITIONS", "LAST ERROR",
        right=("DEPTH", "IN FLIGHT", "HEAD", "TAIL", "SIGNALS", "BLOCKED"),
    )  # fmt: skip
    for trader, ring in sorted(rings.items()):
        counters = ring.get("counters", {})
        table.add_row(
            trader,
            f"{ring.get('depth', 0)}/{ring.get('capacity', 0)}",
            count(int(ring.get("in_flight", 0))),
            count(int(ring.get("head", 0))),
            count(int(ring.get("tail", 0))),
            count(int(counters.get("signals", 0))),
            count(int(counters.get("blocked", ring.get("blocked", 0)))),
            ", ".join(f"{symbol} {_position(at)}" for symbol, at in sorted(ring.get("positions", {}).items())),
            str(ring.get("last_error", "") or ring.get("corrupt", "")),
        )
    return table


def _position(at: Any) -> str:
    """A position is (session, open time); the time is what a person looks for."""
    moment = at[1] if isinstance(at, list | tuple) and len(at) == 2 else at
    return timestamp(int(moment)) if isinstance(moment, int) else str(moment)
