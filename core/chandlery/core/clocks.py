"""Clocks and stage stamps: where a signal's time went, and by whose clock.

Within a host every stamp is ``CLOCK_MONOTONIC`` in nanoseconds, which all processes of the host share. A
record that leaves the process carries, beside its stamps, the host's boot id and the offset from that clock
to the wall clock, so that a reader on another host can place them (with an uncertainty) in its own time.

Binary form, the Kafka header ``stamps`` (little-endian, 124 bytes; version 1 ended after 84)::

    offset size field
    0      4    version (uint32, 2)
    4      16   boot id of the host whose monotonic clock is meant
    20     8    wall_offset_ns   wall clock minus monotonic clock at that host
    28     8    exchange_ns      WALL clock of the exchange (0: unknown, as in replays)
    36     8    received_ns      monotonic; ingest had the frame
    44     8    appended_ns      WALL clock of the broker, LogAppendTime of the trades record (1 ms steps)
    52     8    aggregated_ns    monotonic; the aggregator had computed the candle
    60     8    emitted_ns       monotonic; the candle record was handed to the producer
    68     8    recorded_skew_ns replays: receive clock minus exchange clock as captured; else 0
    76     8    frame            ordinal of the exchange frame within the session (0: none)
    84     16   boot id of the host whose clock stamped received_ns (zeros: the same as above)
    100    8    origin_uncertainty_ns    how far received_ns may be off for having been translated from there
    108    8    exchange_offset_ns       least of received less exchange over the last minutes, by ingest's wall clock
    116    8    exchange_uncertainty_ns  how sure that is (0: it isn't known)

Zero means "not stamped (yet)".

**Between hosts** a stamp is translated by both hosts' wall clocks (:class:`HostClocks`). Those may disagree by
milliseconds: where a record would so have come before it was sent, the clocks are taken to differ by at least the worst
such case of the last minutes (a minimum filter), and the translation is corrected by it. What remains unknown, the
least delay there ever was, is the uncertainty. **To the exchange** nothing can be corrected: its clock and the least
time on the network are one number, ``exchange_offset_ns``; what a frame took beyond that is its own delay.
"""

from __future__ import annotations

import struct
import time
from functools import cache
from pathlib import Path
from typing import Final

import msgspec

_STRUCT_1: Final = struct.Struct("<I16s8q")
_STRUCT: Final = struct.Struct("<I16s8q16s3q")
_VERSION: Final = 2
_SAME_HOST: Final = bytes(16)
HEADER_NAME: Final = "stamps"
#: How long a minimum filter remembers: two halves of this. Clocks drift apart by less than 0.1 ms a second, and are
#: kept together by NTP; a minute is enough to meet a record that nothing held up.
_FILTER_HALF_NS: Final = 60_000_000_000
#: Hosts whose clocks are remembered; aggregators of one feed seldom move.
_MOST_HOSTS: Final = 64
#: Exchanges stamp in whole milliseconds.
_EXCHANGE_STEP_NS: Final = 1_000_000


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
    """Stage stamps that travel with a record; see the module's table for units and clocks.

    Attributes:
        origin: boot id of the host that stamped ``received_ns``, ``host`` of the one that stamped what lies between it
            and this one; empty: this host.
        host_uncertainty_ns: how far stamps of ``host`` may be off for having been translated.
    """

    exchange_ns: int = 0
    received_ns: int = 0
    appended_ns: int = 0
    aggregated_ns: int = 0
    emitted_ns: int = 0
    recorded_skew_ns: int = 0
    frame: int = 0
    origin: bytes = b""
    origin_uncertainty_ns: int = 0
    exchange_offset_ns: int = 0
    exchange_uncertainty_ns: int = 0
    host: bytes = b""
    host_uncertainty_ns: int = 0

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
            self.origin or _SAME_HOST,
            self.origin_uncertainty_ns + self.host_uncertainty_ns,
            self.exchange_offset_ns,
            self.exchange_uncertainty_ns,
        )


class MinimumFilter:
    """The least of what was seen over the last one to two minutes.

    Attributes:
        least: 0 before anything was seen. spread: between the two halves of what is remembered, a measure of how
            well the least is known.
    """

    def __init__(self) -> None:
        self._since_ns = 0
        self._before: int | None = None
        self._now: int | None = None

    def see(self, value: int, at_ns: int) -> None:
        """Take in a value seen at ``at_ns`` (monotonic)."""
        if self._now is None:
            self._now, self._since_ns = value, at_ns
        elif at_ns - self._since_ns >= _FILTER_HALF_NS:
            self._before, self._now, self._since_ns = self._now, value, at_ns
        elif value < self._now:
            self._now = value

    @property
    def known(self) -> bool:
        """Whether anything was seen."""
        return self._now is not None

    @property
    def least(self) -> int:
        return min(part for part in (self._before, self._now, None if self.known else 0) if part is not None)

    @property
    def spread(self) -> int:
        return abs(self._now - self._before) if self._now is not None and self._before is not None else 0


class ExchangeClock:
    """The exchange's clock as ingest sees it."""

    def __init__(self) -> None:
        self._skews = MinimumFilter()

    def see(self, stamps: Stamps, wall_offset: int) -> None:
        """Learn from a frame's stamps, and note in them what is known by now. Replays tell nothing."""
        if not stamps.exchange_ns or not stamps.received_ns:
            return
        self._skews.see(stamps.received_ns + wall_offset - stamps.exchange_ns, stamps.received_ns)
        stamps.exchange_offset_ns = self._skews.least
        stamps.exchange_uncertainty_ns = _EXCHANGE_STEP_NS + self._skews.spread


class HostClocks:
    """Other hosts' monotonic clocks in this host's.

    Attributes:
        wall_offset: this host's :func:`wall_offset_ns`; kept fresh by the owner.
        newest: the stamps read last.
    """

    def __init__(self) -> None:
        self.wall_offset = wall_offset_ns()
        self.newest = Stamps()
        self._delays: dict[bytes, MinimumFilter] = {}

    def unpack(self, header: bytes | None) -> Stamps:
        """Read a ``stamps`` header that has just come (see :func:`unpack_stamps`)."""
        stamps = self.newest = unpack_stamps(header, self.wall_offset)
        if stamps.host:
            self._correct(stamps)
        return stamps

    def _correct(self, stamps: Stamps) -> None:
        sent_ns = stamps.emitted_ns or stamps.aggregated_ns or stamps.received_ns
        if not sent_ns:
            return
        delays = self._delays.get(stamps.host)
        if delays is None:
            if len(self._delays) >= _MOST_HOSTS:
                del self._delays[next(iter(self._delays))]
            delays = self._delays[stamps.host] = MinimumFilter()
        at_ns = now_ns()
        delays.see(at_ns - sent_ns, at_ns)
        least = delays.least
        stamps.host_uncertainty_ns = abs(least)
        if least >= 0:
            return
        for name in ("received_ns", "aggregated_ns", "emitted_ns"):
            if getattr(stamps, name):
                setattr(stamps, name, getattr(stamps, name) + least)


def unpack_stamps(header: bytes | None, wall_offset: int) -> Stamps:
    """Read a ``stamps`` header, translated into this host's monotonic clock.

    Args:
        header: the header's bytes; None or an unknown form gives empty stamps (a record without an account
            is still a good record).
        wall_offset: this host's :func:`wall_offset_ns`, for stamps of another host.
    """
    if header is None:
        return Stamps()
    if len(header) == _STRUCT.size:
        (version, boot, offset, exchange, received, appended, aggregated, emitted, skew, frame,
         origin, origin_uncertainty, exchange_offset, exchange_uncertainty) = _STRUCT.unpack(header)  # fmt: skip
        if version != _VERSION:
            return Stamps()
        if origin == _SAME_HOST and boot == boot_id():  # as nearly always, and in the way of every candle
            return Stamps(
                exchange, received, appended, aggregated, emitted, skew, frame,
                b"", origin_uncertainty, exchange_offset, exchange_uncertainty,
            )  # fmt: skip
    elif len(header) == _STRUCT_1.size and header[0] == 1:
        _, boot, offset, exchange, received, appended, aggregated, emitted, skew, frame = _STRUCT_1.unpack(header)
        origin, origin_uncertainty, exchange_offset, exchange_uncertainty = _SAME_HOST, 0, 0, 0
    else:
        return Stamps()
    host = b""
    if boot != boot_id():
        host = boot
        shift = offset - wall_offset  # foreign monotonic -> wall -> own monotonic
        received = received + shift if received else 0
        aggregated = aggregated + shift if aggregated else 0
        emitted = emitted + shift if emitted else 0
        if origin == _SAME_HOST:
            origin = boot
    if origin in (_SAME_HOST, boot_id()):
        origin = b""
    return Stamps(
        exchange, received, appended, aggregated, emitted, skew, frame,
        origin, origin_uncertainty, exchange_offset, exchange_uncertainty, host,
    )  # fmt: skip
