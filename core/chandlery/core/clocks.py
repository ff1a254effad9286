"""Clocks and stage stamps: where a signal's time went, and by whose clock.

Within a host every stamp is ``CLOCK_MONOTONIC`` in nanoseconds, which all processes of the host share. A
record that leaves the process carries, beside its stamps, the host's boot id and the offset from that clock
to the wall clock, so that a reader on another host can place them (with an uncertainty) in its own time.

Binary form, the Kafka header ``stamps`` (little-endian, 84 bytes)::

    offset size field
    0      4    version (uint32, 1)
    4      16   boot id of the host whose monotonic clock is meant
    20     8    wall_offset_ns   wall clock minus monotonic clock at that host
    28     8    exchange_ns      WALL clock of the exchange (0: unknown, as in replays)
    36     8    received_ns      monotonic; ingest had the frame
    44     8    appended_ns      WALL clock of the broker, LogAppendTime of the trades record (1 ms steps)
    52     8    aggregated_ns    monotonic; the aggregator had computed the candle
    60     8    emitted_ns       monotonic; the candle record was handed to the producer
    68     8    recorded_skew_ns replays: receive clock minus exchange clock as captured; else 0
    76     8    frame            ordinal of the exchange frame within the session (0: none)

Zero means "not stamped (yet)".
"""

from __future__ import annotations

import struct
import time
from functools import cache
from pathlib import Path
from typing import Final

import msgspec

_STRUCT: Final = struct.Struct("<I16s8q")
_VERSION: Final = 1
HEADER_NAME: Final = "stamps"


@cache
def boot_id() -> bytes:
    """The 16-byte id of this host's boot: two stamps with the same one share a monotonic clock."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        return bytes(16)
    return bytes.fromhex(text.strip().replace("-", ""))


def now_ns() -> int:
    """Now by the host's monotonic clock, ns."""
    return time.monotonic_ns()


def wall_offset_ns() -> int:
    """Wall clock minus monotonic clock of this host now, ns (the narrowest of three readings)."""
    best_width, best = 1 << 62, 0
    for _ in range(3):
        before = time.monotonic_ns()
        wall = time.time_ns()
        after = time.monotonic_ns()
        if after - before < best_width:
            best_width, best = after - before, wall - (before + after) // 2
    return best


class Stamps(msgspec.Struct):
    """Stage stamps that travel with a record; see the module's table for units and clocks."""

    exchange_ns: int = 0
    received_ns: int = 0
    appended_ns: int = 0
    aggregated_ns: int = 0
    emitted_ns: int = 0
    recorded_skew_ns: int = 0
    frame: int = 0

    def pack(self, wall_offset: int) -> bytes:
        """The ``stamps`` header of a record that this host writes (``wall_offset``: see wall_offset_ns)."""
        return _STRUCT.pack(
            _VERSION,
            boot_id(),
            wall_offset,
            self.exchange_ns,
            self.received_ns,
            self.appended_ns,
            self.aggregated_ns,
            self.emitted_ns,
            self.recorded_skew_ns,
            self.frame,
        )


def unpack_stamps(header: bytes | None, wall_offset: int) -> Stamps:
    """Read a ``stamps`` header, translated into this host's monotonic clock.

    Args:
        header: the header's bytes; None or an unknown form gives empty stamps (a record without an account
            is still a good record).
        wall_offset: this host's :func:`wall_offset_ns`, for stamps of another host.
    """
    if header is None or len(header) != _STRUCT.size:
        return Stamps()
    version, boot, offset, exchange, received, appended, aggregated, emitted, skew, frame = _STRUCT.unpack(header)
    if version != _VERSION:
        return Stamps()
    if boot != boot_id():
        shift = offset - wall_offset  # foreign monotonic -> wall -> own monotonic
        received = received + shift if received else 0
        aggregated = aggregated + shift if aggregated else 0
        emitted = emitted + shift if emitted else 0
    return Stamps(exchange, received, appended, aggregated, emitted, skew, frame)
