"""The signal ring: a trader's signals on their way to the feed, its positions and its counters.

One file a trader. The trader maps it and writes; the feed and the supervisor read it by ``pread`` and never map
it: a trader may truncate its file, and touching a mapping beyond the file's end would kill the feed (SIGBUS).
Whatever the feed reads is treated as hostile.

Protocol: the trader fills slot ``head % slots`` and then stores ``head + 1``; the feed publishes, waits for the
broker's acknowledgement, and then stores the tail. A slot belongs to the feed from head's store until the tail
passes it.
"""

from __future__ import annotations

import functools
import os
import struct
import zlib
from collections.abc import Callable, Collection
from types import TracebackType
from typing import ClassVar, Final, NamedTuple, TypedDict

from chandlery.core.errors import SegmentError
from chandlery.workers.segment import _native
from chandlery.workers.segment.ringfile import RingFile, RingHeader, pack_uid
from chandlery.workers.segment.ringpositions import RingPositions, packed

_SLOT: Final = struct.Struct("<QII")
_COVERED: Final = struct.Struct("<QI")
_PAIR: Final = struct.Struct("<QQ")
_WORD: Final = struct.Struct("<Q")
_ALL_BITS: Final = (1 << 64) - 1
#: A word being stored while it is copied is read again; its writer needs a few ns for it.
_STABLE_ATTEMPTS: Final = 16


class RingItem(NamedTuple):
    """One slot of a ring as the feed found it.

    Attributes:
        position: its ordinal since the ring was made; acknowledge ``position + 1`` to release it.
        payload: what the trader pushed, or None where the slot fails its checks.
        error: why, or empty.
    """

    position: int
    payload: bytes | None
    error: str


class Heritage(NamedTuple):
    """What a new ring takes over from earlier ones: positions by series, counters by name."""

    positions: dict[str, tuple[int, int]]
    counters: dict[str, int]


class RingInfo(TypedDict):
    """A ring as plain data: ``positions`` maps a series (``BTC/USDT 1m``) to (session, open_time_ms)."""

    trader: str
    capacity: int
    depth: int
    head: int
    tail: int
    replaced_because: str
    counters: dict[str, int]
    positions: dict[str, tuple[int, int]]


class SignalRing:
    """A trader's ring. One process pushes (the trader's), one drains (the feed's); anyone may read counters.

    Attributes:
        trader: ``namespace/name``. uid: of the Trader; empty in a ring of an older layout. capacity: number of slots.
        replaced_because: why :meth:`create` did not keep the file it found; empty when it did, or found none.
        forgot_because: why it kept the file, but not the positions in it.
    """

    #: Most bytes of a payload.
    SLOT_PAYLOAD: ClassVar[int] = _native.SLOT_PAYLOAD_BYTES
    #: Named uint64 cells that any side can read; the trader alone writes them.
    COUNTERS: ClassVar[tuple[str, ...]] = (
        "heartbeat_ns",
        "state",
        "calls",
        "signals",
        "reruns",
        "stale",
        "lapped",
        "cooled_down",
        "informative_missing",
        "errors",
        "blocked",
        "busy_since_ns",
        "warm_have",
        "warm_need",
        "last_open_time_ms",
        "decided_ns_sum",
        "begun_from_ms",
        "spare2",
    )
    _CELLS: ClassVar[dict[str, int]] = {
        name: _native.RING_COUNTERS + cell * _native.WORD_BYTES for cell, name in enumerate(COUNTERS)
    }

    def __init__(self, file: RingFile, header: RingHeader, replaced_because: str = "") -> None:
        self._file: Final = file
        self._slots_offset: Final = header.slots_offset
        self._positions: Final = RingPositions(file)
        self.trader: Final = header.trader
        self.uid = header.uid
        self.capacity: Final = header.slots
        self.replaced_because: Final = replaced_because
        self.forgot_because = ""
        self._version = header.version
        # The feed trusts its own tail and cursor; it does not ask the file's tail again after this.
        self._tail = self._cursor = self._read_tail()
        self._check_head(self._read_head())

    @classmethod
    def create(
        cls, path: str, *, trader: str, uid: str = "", slots: int = 256, heritage: Heritage | None = None
    ) -> SignalRing:
        """Keep a sound ring of the same trader, with its content, positions and counters, or make a new one.

        A kept ring keeps its number of slots too, and one of an older layout becomes one of this layout: without
        positions, of which ``forgot_because`` tells. An unsound one, or another Trader's, is replaced by rename;
        ``replaced_because`` says why.

        Args:
            uid: another one is another Trader, be its name the same.
            slots: capacity of a new ring, of 1,024 bytes each.
            heritage: what a new ring begins with.

        Raises:
            SegmentError: no room, or the folder can't be written.
        """
        replaced_because = ""
        if os.path.lexists(path):
            try:
                return cls._keep(path, trader, uid)
            except SegmentError as error:
                replaced_because = str(error)
        content = {}
        if heritage is not None:
            content[_native.RING_HEADER_BYTES] = packed(heritage.positions)
            for name, value in heritage.counters.items():
                content[cls._CELLS[name]] = _WORD.pack(value)
        file, header = RingFile.make(path, trader, uid, slots, content)
        return cls(file, header, replaced_because)

    @classmethod
    def _keep(cls, path: str, trader: str, uid: str) -> SignalRing:
        ring = cls.attach(path)
        if ring.trader == trader:
            ring._bring_up_to_date(uid)
            if ring.uid == uid:
                return ring
        ring.close()
        if ring.trader == trader:
            raise SegmentError(f"signal ring {path}: is an earlier {trader}'s, of uid {ring.uid!r}, not {uid!r}")
        raise SegmentError(f"signal ring {path}: is {ring.trader}'s, not {trader}'s")

    def _bring_up_to_date(self, uid: str) -> None:
        """Nothing of the trader runs: its next process shall find a ring of this layout."""
        if self._version == _native.RING_VERSION:
            return
        self._positions.clear()
        self._file.write(_native.RING_UID, pack_uid(uid))
        # Last: cut short, all of this happens once more.
        self._file.write(_native.RING_VERSION_AT, _WORD.pack(_native.RING_VERSION))
        self.forgot_because = f"layout version {self._version} doesn't tell of which interval its positions are"
        self._version, self.uid = _native.RING_VERSION, uid

    @classmethod
    def attach(cls, path: str) -> SignalRing:
        """Open an existing ring, as any side.

        Raises:
            SegmentError: missing, not a regular file, truncated, of a wrong size or form, or head and tail are
                impossible.
        """
        file, header = RingFile.open(path)
        try:
            return cls(file, header)
        except BaseException:
            file.close()
            raise

    # ---- the trader's side ----

    def push(self, payload: bytes) -> bool:
        """Put a signal into the ring.

        Returns:
            False when the ring is full; nothing is stored then.

        Raises:
            SegmentError: longer than SLOT_PAYLOAD, or head and tail are impossible.
        """
        length = len(payload)
        if length > self.SLOT_PAYLOAD:
            raise SegmentError(f"a signal of {length} bytes; a slot holds {self.SLOT_PAYLOAD}")
        mapping = self._file.mapped()
        head = mapping.load(_native.RING_HEAD)
        depth = head - self._mapped_tail(mapping)  # [TAIL]
        if depth < 0 or depth > self.capacity:
            raise SegmentError(f"signal ring {self._file.path}: {depth} of {self.capacity} slots in use")
        if depth == self.capacity:
            return False
        checksum = zlib.crc32(payload, zlib.crc32(_COVERED.pack(head, length)))
        mapping.write(self._slot_offset(head), _SLOT.pack(head, length, checksum) + payload)
        mapping.store(_native.RING_HEAD, head + 1)  # [HEAD] pairs with the fence in pending()
        return True

    def set_position(self, series: str, session: int, open_time_ms: int) -> None:
        """Store the last decided closed candle of a series, after the pushes that it covers.

        Survives kill -9 at any moment: the old or the new position, never a mixture.

        Args:
            series: symbol and interval (``BTC/USDT 1m``): an open time of one interval says nothing of another.

        Raises:
            SegmentError: a 65th series, or one of more than 79 bytes.
        """
        self._positions.store(series, session, open_time_ms)

    def position(self, series: str) -> tuple[int, int] | None:
        """(session, open_time_ms) of the last decided closed candle, or None."""
        return self._positions.load(series)

    def keep_positions(self, series: Collection[str]) -> None:
        """Forget the positions of all other series: what isn't decided on any more begins anew when it comes back."""
        self._positions.keep(series)

    def set(self, name: str, value: int) -> None:
        """Set a counter.

        Raises:
            SegmentError: no such counter, or the value is no uint64.
        """
        if value < 0:
            raise SegmentError(f"counter {name}: {value} is below 0")
        self._file.mapped().store(self._cell(name), value)

    def get(self, name: str) -> int:
        """A counter's value, from any side.

        Raises:
            SegmentError: no such counter, or the file has been truncated.
        """
        return self._stable_word(self._cell(name))

    def add(self, name: str, amount: int = 1) -> None:
        """Add to a counter."""
        self._file.mapped().add(self._cell(name), amount)

    def setter(self, name: str) -> Callable[[int], None]:
        """What :meth:`set` does for one counter, without a Python frame: for the trader's own process.

        Raises:
            SegmentError: no such counter.
        """
        return functools.partial(self._file.mapped().store, self._cell(name))

    def adder(self, name: str) -> Callable[[int], object]:
        """What :meth:`add` does for one counter, likewise."""
        return functools.partial(self._file.mapped().add, self._cell(name))

    # ---- the feed's side ----

    def pending(self, limit: int = 64) -> list[RingItem]:
        """Take what the trader has pushed since the last call, oldest first.

        Moves the feed's own cursor past what it returns, so that more can be taken while earlier items are still
        in flight. A new :meth:`attach` begins at the tail again, and so does :meth:`rewind`.

        Args:
            limit: most items.

        Raises:
            SegmentError: the head is behind the cursor or more than the capacity ahead of the tail, or the file
                has been truncated.
        """
        head = self._read_head()
        _native.fence_acquire()  # [HEAD] pairs with the release store in push()
        self._check_head(head)
        end = min(head, self._cursor + limit)
        items: list[RingItem] = []
        begin = self._cursor
        while begin < end:
            # As many as lie in one piece: the ring's end cuts.
            count = min(end - begin, self.capacity - begin % self.capacity)
            piece = self._file.read(self._slot_offset(begin), count * _native.SLOT_BYTES)
            items += [_check_slot(begin + index, piece, index * _native.SLOT_BYTES) for index in range(count)]
            begin += count
        self._cursor = begin
        return items

    def rewind(self) -> None:
        """Let :meth:`pending` begin again at the first slot that is not acknowledged."""
        self._cursor = self._tail

    def acknowledge(self, upto: int) -> None:
        """Release all slots before position ``upto``; after the broker has acknowledged them.

        Raises:
            SegmentError: ``upto`` is behind the tail or beyond what :meth:`pending` returned, or the file can't be
                written.
        """
        if not self._tail <= upto <= self._cursor:
            raise SegmentError(
                f"signal ring {self._file.path}: can't acknowledge up to {upto}: "
                f"acknowledged {self._tail}, taken {self._cursor}"
            )
        _native.fence_release()  # [TAIL] the slots have been read before they are released
        self._file.write(_native.RING_TAIL, _PAIR.pack(upto, upto ^ _ALL_BITS))
        self._tail = upto

    @property
    def depth(self) -> int:
        """Slots in use, 0 … capacity, for gauges: what an unsound file says is clipped."""
        try:
            depth = self._read_head() - self._read_tail()
        except SegmentError:
            return 0
        return min(max(depth, 0), self.capacity)

    @property
    def head(self) -> int:
        """Slots ever pushed: the position of the next one.

        Raises:
            SegmentError: the file has been truncated.
        """
        return self._read_head()

    @property
    def replaced(self) -> bool:
        """Whether the path now means another file (or none): attach again."""
        return self._file.replaced()

    def info(self) -> RingInfo:
        """The ring as plain data.

        Raises:
            SegmentError: the file has been truncated.
        """
        return {
            "trader": self.trader,
            "capacity": self.capacity,
            "depth": self.depth,
            "head": self._read_head(),
            "tail": self._read_tail(),
            "replaced_because": self.replaced_because,
            "counters": {name: self.get(name) for name in self.COUNTERS},
            "positions": self._positions.all() if self._version == _native.RING_VERSION else {},
        }

    def close(self) -> None:
        """Close the file; the ring stays on disk. Idempotent."""
        self._file.close()

    def __enter__(self) -> SignalRing:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- words ----

    def _slot_offset(self, position: int) -> int:
        return self._slots_offset + position % self.capacity * _native.SLOT_BYTES

    def _cell(self, name: str) -> int:
        try:
            return self._CELLS[name]
        except KeyError:
            raise SegmentError(f"no counter {name!r}: there are {', '.join(self.COUNTERS)}") from None

    def _check_head(self, head: int) -> None:
        if not self._cursor <= head <= self._tail + self.capacity:
            raise SegmentError(
                f"signal ring {self._file.path}: impossible head {head}: "
                f"acknowledged {self._tail}, taken {self._cursor}, {self.capacity} slots"
            )

    def _stable_word(self, offset: int) -> int:
        return int.from_bytes(_stable(lambda: self._file.read(offset, _native.WORD_BYTES)), "little")

    def _read_head(self) -> int:
        return self._stable_word(_native.RING_HEAD)

    def _read_tail(self) -> int:
        tail: int
        tail, complement = _PAIR.unpack(_stable(lambda: self._file.read(_native.RING_TAIL, _PAIR.size)))
        if tail ^ complement != _ALL_BITS:
            raise SegmentError(f"signal ring {self._file.path}: its tail {tail:#x} fails its check")
        return tail

    def _mapped_tail(self, mapping: _native.Mapping) -> int:
        # The feed stores the pair by a system call, whose copy is not atomic: an unmatched pair is read again, and
        # at last the tail known before will do (it only makes the ring look fuller). Looked at twice: were the words
        # copied in pieces, tail and complement could each be caught half-way, and match; not the tail again.
        for _ in range(_STABLE_ATTEMPTS):
            tail = mapping.load(_native.RING_TAIL)  # [TAIL] pairs with the fence in acknowledge()
            complement = mapping.load(_native.RING_TAIL + _native.WORD_BYTES)
            if tail ^ complement == _ALL_BITS and mapping.load(_native.RING_TAIL) == tail:
                self._tail = tail
                break
        return self._tail


def _stable(read: Callable[[], bytes]) -> bytes:
    value = read()
    for _ in range(_STABLE_ATTEMPTS):
        again = read()
        if again == value:
            break
        value = again
    return value


def _check_slot(position: int, piece: bytes, at: int) -> RingItem:
    stored, length, checksum = _SLOT.unpack_from(piece, at)
    if stored != position:
        return RingItem(position, None, f"slot is marked {stored}, not {position}")
    if length > _native.SLOT_PAYLOAD_BYTES:
        return RingItem(position, None, f"length {length}; a slot holds {_native.SLOT_PAYLOAD_BYTES}")
    begin = at + _SLOT.size
    payload = piece[begin : begin + length]
    if zlib.crc32(payload, zlib.crc32(_COVERED.pack(position, length))) != checksum:
        return RingItem(position, None, "checksum differs")
    return RingItem(position, payload, "")
