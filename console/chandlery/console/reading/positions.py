"""Positions in the signals of all feeds: the next offset of each partition of each feed, as one opaque text.

A text is at most :data:`MOST_CHARS` long. In it, after a version and the time of the newest record, each feed has 5 bytes
for its name, one or two for the number of its partitions, and two to five for each offset: about 33 feeds of four
partitions, or 11 of sixteen. Feeds beyond that are left out, those with the newest records first, and are found again
by the time: the records of their last :data:`OVERLAP_MS` then come twice (their ids are the same), and none is missed.
While older records are told, that time stays where everything was told: who is cut then has more of them come twice.
"""

from __future__ import annotations

import base64
import binascii
from hashlib import blake2b
from typing import Final

from chandlery.core.errors import InputError
from chandlery.core.wording import shown

MOST_CHARS: Final = 1_024
#: Base64 makes four characters of three bytes.
_MOST_BYTES: Final = MOST_CHARS // 4 * 3
#: How far the brokers' clocks, and what was read of them, may be apart where a feed is found again by the time.
OVERLAP_MS: Final = 10_000
_VERSION: Final = 1
_KEY_BYTES: Final = 5
#: Partitions that a text may claim a feed to have; Kafka's own advice ends far below.
_MOST_PARTITIONS: Final = 10_000
_MOST_VALUE: Final = 2**63 - 1

FeedKey = bytes
Place = tuple[FeedKey, int]


def feed_key(feed: str, topic: str) -> FeedKey:
    """What a feed is called in positions: a digest of its name and its topic."""
    return blake2b(f"{feed}\0{topic}".encode(), digest_size=_KEY_BYTES).digest()


class Position:
    """The next offset to be told, by feed and partition.

    Attributes:
        time_ms: when the newest record told was appended (the broker's clock); 0: none was.
    """

    __slots__ = ("_newest_ms", "_offsets", "_packed", "time_ms")

    def __init__(self) -> None:
        self.time_ms = 0
        self._offsets: dict[FeedKey, dict[int, int]] = {}
        self._newest_ms: dict[FeedKey, int] = {}
        self._packed: dict[FeedKey, bytes] = {}

    def get(self, place: Place) -> int | None:
        """Next offset of a partition; None: nothing is known of it."""
        return self._offsets.get(place[0], {}).get(place[1])

    def set(self, place: Place, offset: int, append_ms: int = 0) -> None:
        """``offset`` is the next one; the record before it was appended at ``append_ms``."""
        key, partition = place
        self._offsets.setdefault(key, {})[partition] = offset
        self._packed.pop(key, None)
        if append_ms > self._newest_ms.get(key, -1):
            self._newest_ms[key] = append_ms
        self.time_ms = max(self.time_ms, append_ms)

    def encode(self, whole_ms: int | None = None, *, names_all: bool = True) -> str:
        """The text. ``decode(encode())`` is the same position, as far as it is not too long.

        Args:
            whole_ms: up to when everything was told; None: up to ``time_ms``. It is the time in the text where the text
                doesn't name everything, as the rest is looked for from that time on.
            names_all: whether all there is has an offset here.
        """
        time = _varint(self.time_ms)
        whole = time if whole_ms is None else _varint(whole_ms)
        parts: list[bytes] = []
        room = _MOST_BYTES - 1 - max(len(time), len(whole))
        for key in sorted(self._offsets, key=lambda key: (self._newest_ms[key], key)):
            packed = self._packed.get(key)
            if packed is None:
                packed = self._packed[key] = _pack(key, self._offsets[key])
            if len(packed) <= room:
                parts.append(packed)
                room -= len(packed)
        named = names_all and len(parts) == len(self._offsets)
        text = b"".join((bytes((_VERSION,)), time if named else whole, *parts))
        return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def decode(text: str) -> Position:
    """Read a position's text.

    Raises:
        InputError: it is none.
    """
    if not 0 < len(text) <= MOST_CHARS:
        raise _no_position(text)
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        return _unpack(raw)
    except (ValueError, binascii.Error, IndexError):
        raise _no_position(text) from None


def _no_position(text: str) -> InputError:
    return InputError(f"{shown(text[:80])} is no position of the signals: send the id of an event, or nothing")


def _pack(key: FeedKey, offsets: dict[int, int]) -> bytes:
    partitions = max(offsets) + 1
    # 0 stands for a partition that nothing is known of.
    known = b"".join(_varint(offsets.get(partition, -1) + 1) for partition in range(partitions))
    return key + _varint(partitions) + known


def _unpack(raw: bytes) -> Position:
    if raw[0] != _VERSION:
        raise ValueError(f"version {raw[0]}")
    position = Position()
    time_ms, at = _read_varint(raw, 1)
    while at < len(raw):
        key = raw[at : at + _KEY_BYTES]
        partitions, at = _read_varint(raw, at + _KEY_BYTES)
        if not 0 < partitions <= _MOST_PARTITIONS:
            raise ValueError(f"{partitions} partitions")
        for partition in range(partitions):
            value, at = _read_varint(raw, at)
            if value:
                position.set((key, partition), value - 1)
    position.time_ms = time_ms
    return position


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the highest bit says that another comes."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
    if value > _MOST_VALUE:
        raise ValueError("a number of more than 63 bits")
    return value, at
