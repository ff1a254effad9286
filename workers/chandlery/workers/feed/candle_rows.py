"""Numbers of a candle update, and the cheap looks at a raw record that spare decoding it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from chandlery.core.clocks import HEADER_NAME
from chandlery.core.wire import CandleUpdate

Headers = Sequence[tuple[str, bytes]]


class Row(NamedTuple):
    """One candle as the segment stores it; prices and volume as float64."""

    open_time_ms: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    trades: int


class RecordHead(msgspec.Struct, tag="candles", tag_field="kind"):
    """The part of a CandlesRecord that tells whether the rest is worth decoding."""

    session: int
    seq: int


decode_head: Final = msgspec.json.Decoder(RecordHead).decode
#: Highest integer that every JSON reader keeps exactly.
MOST_INTEGER: Final = (1 << 53) - 1
#: First and last byte of a record that is whole: all that is looked at where a newer record replaces it.
OPENING_BRACE, CLOSING_BRACE = b"{}"


def row_of(update: CandleUpdate) -> Row:
    """Parse an update's decimal strings.

    Raises:
        ValueError: one of them is no finite number, or the open time is negative.
    """
    row = Row(
        update.open_time_ms,
        float(update.open),
        float(update.high),
        float(update.low),
        float(update.close),
        float(update.volume),
        update.trades,
    )
    total = row.open + row.high + row.low + row.close + row.volume
    if total - total != 0.0:  # inf - inf and nan - nan are nan
        raise ValueError(f"candle {update.interval} at {update.open_time_ms} has a value that is no finite number")
    if not (0 <= row.open_time_ms <= MOST_INTEGER and 0 <= row.trades <= MOST_INTEGER):
        raise ValueError(f"candle {update.interval} at {update.open_time_ms} has an impossible time or count")
    return row


def stamps_header(headers: Headers) -> bytes | None:
    """The record's ``stamps`` header, or None."""
    for name, value in headers:
        if name == HEADER_NAME:
            return value
    return None


def mentions(value: bytes, interval: str) -> bool:
    """Whether a raw record may hold an update of this interval (no false negative)."""
    return f'"{interval}"'.encode() in value
