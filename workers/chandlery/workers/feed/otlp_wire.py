"""Spans as Protocol Buffers write them: the few kinds of fields that a trace has.

Each has its fixed place: a span's head is one ``struct``, an attribute its name, encoded once, and its value. Making
``opentelemetry-proto``'s messages of them first costs three times as much; tests have it read what is written here.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final

from chandlery.core.telemetry.spans import Link, Value

#: Wire types: behind a field's number in its first byte. All of these fields' numbers are below 16: one byte.
_VARINT: Final = 0
_FIXED64: Final = 1
_DELIMITED: Final = 2
#: opentelemetry/proto/trace/v1/trace.proto: numbers of Span's and Link's fields.
SPAN_ATTRIBUTES: Final = 9
SPAN_LINKS: Final = 13
LINK_ATTRIBUTES: Final = 4
#: trace_id 1, span_id 2, parent_span_id 4, start_time_unix_nano 7 and end_time_unix_nano 8 (fixed64), flags 16 (fixed32,
#: two bytes of number): bytes of 16 and 8, then the times, then "sampled".
_ROOT: Final = struct.Struct("<2s16s2s8scQcQ6s")
_CHILD: Final = struct.Struct("<2s16s2s8s2s8scQcQ6s")
_TRACE_ID: Final = b"\x0a\x10"
_SPAN_ID: Final = b"\x12\x08"
_PARENT_ID: Final = b"\x22\x08"
_START: Final = b"\x39"
_END: Final = b"\x41"
_FLAGS: Final = b"\x85\x01" + struct.pack("<I", 1)
#: The tags of KeyValue's value (2), and of AnyValue's bool_value (2), int_value (3), double_value (4); string_value is 1.
_VALUE: Final = 2 << 3 | _DELIMITED
_BOOL_VALUE: Final = 2 << 3 | _VARINT
_INT_VALUE: Final = 3 << 3 | _VARINT
_DOUBLE_VALUE: Final = 4 << 3 | _FIXED64
_DOUBLE_HEAD: Final = bytes((_VALUE, 9, _DOUBLE_VALUE))
_pack_double: Final = struct.Struct("<d").pack
_TRUE: Final = bytes((_VALUE, 2, _BOOL_VALUE, 1))
_FALSE: Final = bytes((_VALUE, 2, _BOOL_VALUE, 0))
_MOST: Final = 1 << 63
#: Lengths below them are one byte, or two.
_SHORT: Final = 0x80
_MIDDLE: Final = 0x4000


def field(number: int, body: bytes) -> bytes:
    """A field of length-delimited content: its number and type, the length, the content."""
    length = len(body)
    if length < _SHORT:
        return bytes((number << 3 | _DELIMITED, length)) + body
    if length < _MIDDLE:
        return bytes((number << 3 | _DELIMITED, length & 0x7F | 0x80, length >> 7)) + body
    return bytes((number << 3 | _DELIMITED,)) + _varint(length) + body


def span_head(trace_id: bytes, span_id: bytes, parent_id: bytes, start_ns: int, end_ns: int) -> bytes:
    """A span's ids and times; sampled.

    Args:
        trace_id: 16 bytes. span_id, parent_id: 8; the root's parent is empty.

    Raises:
        ValueError: a time is before 1970, or beyond 64 bits.
    """
    try:
        if parent_id:
            return _CHILD.pack(
                _TRACE_ID, trace_id, _SPAN_ID, span_id, _PARENT_ID, parent_id, _START, start_ns, _END, end_ns, _FLAGS
            )
        return _ROOT.pack(_TRACE_ID, trace_id, _SPAN_ID, span_id, _START, start_ns, _END, end_ns, _FLAGS)
    except struct.error as error:
        raise ValueError(f"a span's time: {error}") from error


def attribute(number: int, name: str, value: Value) -> bytes:
    """One attribute as field ``number`` of what it belongs to.

    Raises:
        ValueError: an integer doesn't fit into 64 bits, or a text is none in Unicode.
    """
    kind = type(value)
    if kind is str:
        body = _key(name) + field(2, field(1, str(value).encode()))
    elif kind is float:
        body = _key(name) + _DOUBLE_HEAD + _pack_double(value)
    elif kind is bool:
        body = _key(name) + (_TRUE if value else _FALSE)
    else:
        number_value = int(value)
        if not -_MOST <= number_value < _MOST:
            raise ValueError(f"{name}: {number_value} doesn't fit into 64 bits")
        body = _key(name) + field(2, bytes((_INT_VALUE,)) + _varint(number_value & (2 * _MOST - 1)))
    return field(number, body)


@lru_cache(maxsize=512)
def _key(name: str) -> bytes:
    return field(1, name.encode())


def link_field(link: Link) -> bytes:
    """A span's link to another trace."""
    about = b"".join(attribute(LINK_ATTRIBUTES, name, value) for name, value in link.attributes.items())
    return field(SPAN_LINKS, _TRACE_ID + link.trace_id + _SPAN_ID + link.span_id + about)


def _varint(number: int) -> bytes:
    """Seven bits a byte, the least first."""
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    made.append(number)
    return bytes(made)
