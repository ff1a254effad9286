"""Files of shared memory: reserved before use, built aside, renamed into place, locked by one writer."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import Final

from chandlery.core.errors import MachineError, SegmentError

_MEGABYTE: Final = 1_000_000
#: Reserved in one step where others wait for their turn: the kernel zeroes about 4 GB a second, so about 1 ms.
STEP_BYTES: Final = 4 << 20


class NoRoom(Exception):
    """The file system of a path can't hold the bytes asked for."""


class WriterLock:
    """The right to write a path, held through a lock on ``path + ".lock"``.

    The kernel frees it when its process ends, however it ends. The lock file, unlike the segment, is never
    replaced by rename, so that two writers always meet at the same inode.
    """

    def __init__(self, path: str) -> None:
        """Take the lock.

        Raises:
            SegmentError: a live process holds it, or the folder can't be written.
        """
        self._path: Final = path + ".lock"
        while True:
            try:
                file = io.FileIO(
                    os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644), "r+"
                )
            except OSError as error:
                raise SegmentError(
                    f"segment {path}: can't open its lock file: {error.strerror}{remedy_for(error, path)}"
                ) from error
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                holder = file.read(32).decode("ascii", errors="replace").strip() or "unknown"
                file.close()
                raise SegmentError(f"segment {path}: a live writer (pid {holder}) has it") from error
            if self._is_current(file):
                break
            file.close()  # its last holder unlinked it while we opened it
        file.truncate(0)
        file.write(f"{os.getpid()}\n".encode("ascii"))
        self._file: Final = file

    def _is_current(self, file: io.FileIO) -> bool:
        try:
            return os.path.samestat(os.fstat(file.fileno()), os.stat(self._path))
        except FileNotFoundError:
            return False

    def release(self, *, unlink: bool) -> None:
        """Give the lock back; ``unlink`` removes its file too, while still held."""
        if unlink and not self._file.closed:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
        self._file.close()


def make_folder(path: str) -> None:
    """Make a folder, unless it is there.

    Raises:
        MachineError: it can't be made.
    """
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise MachineError(f"{path}: can't make the folder: {error.strerror}") from error


def reserve(path: str, size_bytes: int, mode: int) -> int:
    """Create a file whose pages are all there already, so that no later write can fail for want of room.

    Returns:
        An open descriptor; the caller closes it.

    Raises:
        NoRoom: the file system is full; the file is gone again.
        SegmentError: the file can't be created.
    """
    return _whole(reserve_in_steps(path, size_bytes, mode, step_bytes=size_bytes))


def reserve_in_steps(
    path: str, size_bytes: int, mode: int, *, step_bytes: int = STEP_BYTES, spare_bytes: int = 0
) -> Generator[None, None, int]:
    """As :func:`reserve`, by as many bytes at once; yields in between. Let go half-way, it leaves no file.

    Args:
        spare_bytes: these must be free beside the file.
    """
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    except OSError as error:
        raise SegmentError(f"can't create {path}: {error.strerror}{remedy_for(error, path)}") from error
    try:
        os.fchmod(fd, mode)  # whatever the umask: the other container may run as another user
        # Asked first: an allocation that fails has filled the file system for a moment, to its other users' harm.
        if free_bytes(path) < size_bytes + spare_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        for at in range(0, size_bytes, step_bytes):
            if at:
                yield
            os.posix_fallocate(fd, at, min(step_bytes, size_bytes - at))
    except BaseException as error:
        os.close(fd)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        if not isinstance(error, OSError):
            raise
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise NoRoom from error
        raise SegmentError(f"can't reserve {size_bytes} bytes for {path}: {error.strerror}") from error
    return fd


def remedy_for(error: OSError, path: str) -> str:
    """What to change where a path can't be written, as the end of a sentence; empty where nothing is known."""
    folder = Path(path).parent
    return {
        errno.EROFS: f"; mount the file system of {folder} writable for the feed and its supervisor",
        errno.EACCES: f"; give this user the right to write in {folder}",
        errno.ENOENT: f"; make the folder {folder}",
    }.get(error.errno or 0, "")


def _whole(steps: Generator[None, None, int]) -> int:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: int = end.value
            return found


def free_bytes(path: str) -> int:
    """Bytes that the path's file system has free for this user."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def total_bytes(path: str) -> int:
    """Bytes that the path's file system has in all."""
    status = os.statvfs(path)
    return status.f_blocks * status.f_frsize


def publish(building: str, path: str) -> None:
    """Give a finished file its name, in place of whatever had it.

    Raises:
        SegmentError: the name can't be taken (a folder has it); the finished file is gone again.
    """
    try:
        os.rename(building, path)
    except OSError as error:
        os.unlink(building)
        raise SegmentError(f"can't put {path} in place: {error.strerror}") from error


def no_room(path: str, size_bytes: int, remedy: str) -> SegmentError:
    """The error for a path whose file system can't hold ``size_bytes``: need, what is free, the way out."""
    folder = Path(path).parent
    free = free_bytes(str(folder))
    return SegmentError(
        f"{path} needs {size_bytes / _MEGABYTE:.1f} MB, {free / _MEGABYTE:.1f} MB free in {folder}; {remedy}"
    )


def wait_for_room(path: str, size_bytes: int, deadline_s: float) -> None:
    """Wait until the path's file system has room, at most until ``deadline_s`` (monotonic clock, s)."""
    while time.monotonic() < deadline_s:
        if free_bytes(str(Path(path).parent)) >= size_bytes:
            return
        time.sleep(0.02)
