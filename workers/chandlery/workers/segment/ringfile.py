"""The file of a signal ring: made in one piece, opened with suspicion, read without being mapped."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Mapping
from typing import Final, NamedTuple

from chandlery.core.errors import SegmentError
from chandlery.workers.segment import _native
from chandlery.workers.segment.placement import NoRoom, no_room, publish, reserve

_FIXED: Final = struct.Struct("<7Q")
_READY: Final = struct.Struct("<Q")
_TAIL: Final = struct.Struct("<QQ")
_POSITIONS_OFFSET: Final = _native.RING_HEADER_BYTES
_SLOTS_OFFSET: Final = _POSITIONS_OFFSET + _native.POSITION_COUNT * _native.POSITION_BYTES


class RingHeader(NamedTuple):
    """What a ring's header says. Offsets in bytes."""

    trader: str
    uid: str
    slots: int
    slots_offset: int
    file_bytes: int
    version: int


def _header(trader: str, uid: str, slots: int, version: int = _native.RING_VERSION) -> RingHeader:
    return RingHeader(trader, uid, slots, _SLOTS_OFFSET, _SLOTS_OFFSET + slots * _native.SLOT_BYTES, version)


class RingFile:
    """An open ring file. Maps it only when asked to, which only the trader itself does."""

    def __init__(self, path: str, fd: int, file_bytes: int) -> None:
        self.path: Final = path
        self._fd = fd
        self._file_bytes: Final = file_bytes
        self._mapping: _native.Mapping | None = None

    @classmethod
    def make(
        cls, path: str, trader: str, uid: str, slots: int, content: Mapping[int, bytes] | None = None
    ) -> tuple[RingFile, RingHeader]:
        """Make a new ring at ``path``, in place of whatever is there.

        Args:
            content: what it holds from the first on, by offset.

        Raises:
            SegmentError: no room, an impossible size or name, or the folder can't be written.
        """
        name, uid_field = trader.encode("utf-8"), pack_uid(uid)
        if not 1 <= slots <= _native.MAX_RING_SLOTS:
            raise SegmentError(f"a signal ring of {slots} slots: 1 to {_native.MAX_RING_SLOTS} are possible")
        if not 1 <= len(name) < _native.RING_TRADER_BYTES or b"\0" in name:
            raise SegmentError(f"trader {trader!r}: 1 to {_native.RING_TRADER_BYTES - 1} bytes are possible")
        header = _header(trader, uid, slots)
        building = f"{path}.new"
        try:
            # The feed, maybe of another user in the same group, writes the tail.
            fd = reserve(building, header.file_bytes, 0o660)
        except NoRoom as error:
            raise no_room(building, header.file_bytes, "make room or run fewer traders in this worker") from error
        file = cls(path, fd, header.file_bytes)
        try:
            file.write(0, _pack_fixed(header))
            file.write(_native.RING_TRADER, name)
            file.write(_native.RING_UID, uid_field)
            file.write(_native.RING_TAIL, _TAIL.pack(0, (1 << 64) - 1))
            for offset, data in (content or {}).items():
                file.write(offset, data)
            file.write(_native.RING_READY, _READY.pack(_native.READY_WORD))  # last, and only then the name
            publish(building, path)
        except BaseException:
            file.close()
            raise
        return file, header

    @classmethod
    def open(cls, path: str) -> tuple[RingFile, RingHeader]:
        """Open a ring and check its form.

        Raises:
            SegmentError: missing, not a regular file, or not of the form and size that a ring has.
        """
        try:
            # Neither a link into the feed's own files nor a pipe that blocks.
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise SegmentError(f"signal ring {path}: {error.strerror}") from error
        try:
            header = _check(fd)
        except SegmentError as error:
            os.close(fd)
            raise SegmentError(f"signal ring {path}: {error}") from error
        return cls(path, fd, header.file_bytes), header

    def read(self, offset: int, length: int) -> bytes:
        """Copy a range, without touching a mapping.

        Raises:
            SegmentError: the file has become shorter, or is closed here.
        """
        try:
            data = os.pread(self._open_fd(), length, offset)
        except OSError as error:
            raise SegmentError(f"signal ring {self.path}: can't be read: {error.strerror}") from error
        if len(data) != length:
            raise SegmentError(f"signal ring {self.path}: truncated by someone since it was opened")
        return data

    def write(self, offset: int, data: bytes) -> None:
        """Write a range by system call."""
        try:
            os.pwrite(self._open_fd(), data, offset)
        except OSError as error:
            raise SegmentError(f"signal ring {self.path}: can't be written: {error.strerror}") from error

    def mapped(self) -> _native.Mapping:
        """The file mapped for writing: for the trader's own process alone."""
        if self._mapping is None:
            try:
                self._mapping = _native.Mapping(self._open_fd(), self._file_bytes, True)
            except OSError as error:
                raise SegmentError(f"signal ring {self.path}: can't be mapped: {error.strerror}") from error
        return self._mapping

    def replaced(self) -> bool:
        """Whether the path no longer means this file."""
        try:
            return not os.path.samestat(os.fstat(self._open_fd()), os.lstat(self.path))
        except OSError:
            return True

    def close(self) -> None:
        """Close the descriptor and let go of the mapping. Idempotent."""
        self._mapping = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open_fd(self) -> int:
        if self._fd < 0:
            raise SegmentError(f"signal ring {self.path}: closed here")
        return self._fd


def pack_uid(uid: str) -> bytes:
    """A Trader's uid as it stands in the header.

    Raises:
        SegmentError: too long, or impossible.
    """
    text = uid.encode("utf-8")
    if len(text) >= _native.RING_UID_BYTES or b"\0" in text:
        raise SegmentError(f"uid {uid!r}: at most {_native.RING_UID_BYTES - 1} bytes are possible")
    return text.ljust(_native.RING_UID_BYTES, b"\0")


def _pack_fixed(header: RingHeader) -> bytes:
    return _FIXED.pack(
        _native.RING_MAGIC,
        header.version,
        header.file_bytes,
        header.slots,
        _native.SLOT_BYTES,
        _POSITIONS_OFFSET,
        _SLOTS_OFFSET,
    )


def _check(fd: int) -> RingHeader:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise SegmentError("not a regular file")
    begin = os.pread(fd, _native.RING_HEADER_BYTES, 0)
    if len(begin) != _native.RING_HEADER_BYTES:
        raise SegmentError(f"truncated: {len(begin)} bytes, a header alone has {_native.RING_HEADER_BYTES}")
    if _READY.unpack_from(begin, _native.RING_READY)[0] != _native.READY_WORD:
        raise SegmentError("not ready, or no signal ring")
    version: int
    slots: int
    _, version, _, slots, *_ = _FIXED.unpack_from(begin)
    if not _native.RING_OLDEST_VERSION <= version <= _native.RING_VERSION:
        raise SegmentError("no signal ring of this layout version")
    if not 1 <= slots <= _native.MAX_RING_SLOTS:
        raise SegmentError(f"says it has {slots} slots")
    try:
        name = _text(begin, _native.RING_TRADER, _native.RING_TRADER_BYTES)
        header = _header(name, _text(begin, _native.RING_UID, _native.RING_UID_BYTES), slots, version)
    except UnicodeDecodeError as error:
        raise SegmentError("its trader's name or uid is not UTF-8") from error
    if begin[: _FIXED.size] != _pack_fixed(header):
        raise SegmentError("no signal ring, or its header is damaged")
    if status.st_size != header.file_bytes:
        raise SegmentError(f"has {status.st_size} bytes; {slots} slots make {header.file_bytes}")
    return header


def _text(header: bytes, at: int, length: int) -> str:
    return header[at : at + length].rstrip(b"\0").decode("utf-8")
