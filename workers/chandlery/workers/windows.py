"""Windows as messages: how candles reach a trader with ``transport: Pipe``, and what is told of series not there.

One message carries the newest closed rows of one series and its forming row::

    u32   length of all that follows, little-endian
    u32   length of the header
    …     header, msgpack (WindowHeader)
    …     columns, raw little-endian, in the order of COLUMNS: n × int64 or n × float64 each

The rows are those with ordinals ``count - n`` … ``count - 1``. A reader that holds the same session and
revision up to there appends them; otherwise they replace what it has. So a feed may send whole windows each
time, or a whole one first (and after each revision or reset) and then only what is new. A message of another
``life`` continues nothing: the series was freed and came anew, and its ordinals and revisions may be those of before.

Instead of a window a message may be an Absence: its header is that, a map, and no columns follow.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from chandlery.core.absence import Absence
from chandlery.core.errors import UnavailableError
from chandlery.core.wire import UNDECODABLE
from chandlery.workers.candles import COLUMNS, Columns, Floats, Ints

_U32: Final = struct.Struct("<I")
_ROW_BYTES: Final = 8 * len(COLUMNS)
#: Longest accepted message. A series of 16,384 rows is 0.9 MB; beyond that a length is garbage.
MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
NO_STAMPS: Final = (0, 0, 0, 0, 0, 0, 0, 0)

StampRow = tuple[int, int, int, int, int, int, int, int]


class FormingValue(NamedTuple):
    """A forming candle; the same fields as the segment's FormingRow."""

    open_time_ms: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    trades: int
    stamps: tuple[int, ...]
    sequence: int


class WindowHeader(msgspec.Struct, array_like=True):
    """What a message says beside the columns.

    Attributes:
        symbol, interval: the series. session: its session.
        count: closed rows ever appended in the session; revision: grows with every revision and reset.
        live_from_ms, traded_from_ms: open time of the first that came as it happened, and of the first that was no
            backfill; -1 while there is none.
        rows: closed rows in this message.
        stamps: stage stamps (segment.STAMPS, ns) of the newest closed rows, the newest last; may be empty.
        forming: the forming candle, if any.
        life: another one whenever the feed begins anew with the series on this connection.
    """

    symbol: str
    interval: str
    session: int
    count: int
    live_from_ms: int
    traded_from_ms: int
    revision: int
    rows: int
    stamps: list[StampRow] = []
    forming: FormingValue | None = None
    life: int = 0


class WindowMessage(NamedTuple):
    """A decoded message; the columns are read-only views of the received bytes, shape (rows,)."""

    header: WindowHeader
    open_time: Ints
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    trades: Ints


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(WindowHeader | dict[str, Any])


def encode_window(
    columns: Columns | None,
    *,
    symbol: str,
    interval: str,
    session: int,
    count: int,
    live_from_ms: int,
    traded_from_ms: int,
    revision: int,
    stamps: Sequence[tuple[int, ...]] = (),
    forming: tuple[int | float | tuple[int, ...], ...] | None = None,
    life: int = 0,
) -> bytes:
    """One message, its length in front.

    Args:
        columns: the newest closed rows (a segment's Window will do), up to ``count``; None for no rows.
        forming: the segment's FormingRow, or None.
        stamps: of the newest rows, at most as many as there are rows, the newest last.
    """
    rows = 0 if columns is None else len(columns.open_time)
    value = None if forming is None else FormingValue(*forming)  # type: ignore[arg-type]
    rows_stamps: list[StampRow] = [tuple(row) for row in stamps]  # type: ignore[misc]
    header = _encoder.encode(
        WindowHeader(
            symbol, interval, session, count, live_from_ms, traded_from_ms, revision, rows, rows_stamps, value, life
        )
    )
    parts = [_U32.pack(len(header)), header]
    if columns is not None:
        for name in COLUMNS:
            kind = "<i8" if name in ("open_time", "trades") else "<f8"
            parts.append(np.ascontiguousarray(getattr(columns, name), dtype=kind).tobytes())
    body = b"".join(parts)
    return _U32.pack(len(body)) + body


def encode_absence(absence: Absence) -> bytes:
    """One message, its length in front."""
    header = _encoder.encode(absence)
    return _U32.pack(_U32.size + len(header)) + _U32.pack(len(header)) + header


def decode_window(body: bytes) -> WindowMessage:
    """As :func:`decode_message`, where only a window can be."""
    message = decode_message(body)
    if isinstance(message, Absence):
        raise UnavailableError(f"no window came but that {message.symbol} {message.interval} isn't there")
    return message


def decode_message(body: bytes) -> WindowMessage | Absence:
    """Decode one message, without the leading length.

    Raises:
        UnavailableError: it is no such message; reconnect.
    """
    try:
        (header_bytes,) = _U32.unpack_from(body)
        header = _decoder.decode(memoryview(body)[4 : 4 + header_bytes])
        if isinstance(header, dict):
            return msgspec.convert(header, Absence)
    except (struct.error, *UNDECODABLE) as error:
        raise UnavailableError(f"window message of {len(body)} bytes can't be decoded: {error}") from error
    start, rows = 4 + header_bytes, header.rows
    if rows < 0 or rows > header.count or len(body) != start + rows * _ROW_BYTES:
        raise UnavailableError(f"window message has {len(body) - start} bytes for {rows} rows of {header.count}")
    columns = [
        np.frombuffer(
            body, "<i8" if name in ("open_time", "trades") else "<f8", count=rows, offset=start + at * rows * 8
        )
        for at, name in enumerate(COLUMNS)
    ]
    return WindowMessage(header, *columns)


class FrameSplitter:
    """Cuts a byte stream into messages, wherever its chunks begin and end."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take in a chunk.

        Returns:
            The bodies (without length) of the messages that are complete now.

        Raises:
            UnavailableError: a length beyond MAX_MESSAGE_BYTES: the stream is out of step; reconnect.
        """
        self._buffer += chunk
        bodies: list[bytes] = []
        at = 0
        while len(self._buffer) - at >= 4:
            (length,) = _U32.unpack_from(self._buffer, at)
            if length > MAX_MESSAGE_BYTES:
                raise UnavailableError(f"window message claims {length} bytes (most: {MAX_MESSAGE_BYTES})")
            if len(self._buffer) - at - 4 < length:
                break
            bodies.append(bytes(memoryview(self._buffer)[at + 4 : at + 4 + length]))
            at += 4 + length
        if at:
            del self._buffer[:at]
        return bodies
