"""Trying a futex on read-only shared memory, as traders wait on it: by the C extension, or by the bare system call."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

# A woken waiter is back within a millisecond; this much says that nobody woke it.
_DEADLINE_S: Final = 5.0
_SLICE_S: Final = 0.05
_SYSTEM_CALL: Final = {"x86_64": 202, "aarch64": 98}
_FUTEX_WAIT: Final = 0
_FUTEX_WAKE: Final = 1


class FutexError(Exception):
    """The futex doesn't do what it must."""


class _Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


def wake_by_extension(shm: Path) -> None:
    """Make a small segment, wait on one of its bells through a read-only mapping, and ring it from a thread.

    Raises:
        ImportError: the extension isn't built.
        SegmentError: no segment can be made there.
        FutexError: the waiter wasn't woken.
    """
    from chandlery.workers.segment import SegmentReader, SegmentWriter

    with tempfile.TemporaryDirectory(dir=shm, prefix="chandlery-doctor-") as folder:
        path = str(Path(folder, "segment"))
        writer = SegmentWriter.create(path, rows=128, series=1, bells=1)
        try:
            reader = SegmentReader.open(path)
            seen = reader.bell(0)
            ringing = threading.Thread(target=writer.ring, args=(0,))
            ringing.start()
            # Returns at once if the bell was rung before: then nothing was waited for, but nothing is lost either.
            value = reader.wait(0, seen, _DEADLINE_S)
            ringing.join()
            reader.close()
        finally:
            writer.close()
    if value == seen:
        raise FutexError(f"a waiter wasn't woken within {_DEADLINE_S:g} s")


def wake_by_system_call(shm: Path) -> None:
    """Wait on a word through a read-only mapping and wake the waiter through another, by ``syscall(2)`` alone.

    Raises:
        FutexError: the kernel or its filter refuses, or the waiter wasn't woken.
        OSError: no file can be made or mapped there.
    """
    number = _SYSTEM_CALL.get(platform.machine())
    if number is None:
        raise FutexError(f"no system call number known for {platform.machine()}")
    libc = ctypes.CDLL(None, use_errno=True)
    with tempfile.TemporaryFile(dir=shm, prefix="chandlery-doctor-") as file:
        os.posix_fallocate(file.fileno(), 0, mmap.PAGESIZE)
        with (
            _mapped(libc, file.fileno(), mmap.PROT_READ) as waited,
            _mapped(libc, file.fileno(), mmap.PROT_READ | mmap.PROT_WRITE) as word,
        ):
            _wait_and_wake(libc, number, waited, word)


@contextmanager
def _mapped(libc: ctypes.CDLL, fd: int, protection: int) -> Iterator[int]:
    """Address of a page of the file. (An mmap object gives no address of read-only memory.)"""
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long
    ]  # fmt: skip
    address = libc.mmap(None, mmap.PAGESIZE, protection, mmap.MAP_SHARED, fd, 0)
    if address is None or address == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    try:
        yield int(address)
    finally:
        libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(mmap.PAGESIZE))


def _wait_and_wake(libc: ctypes.CDLL, number: int, waited: int, word: int) -> None:
    refusal: list[int] = []
    woken = threading.Event()

    def wait() -> None:
        timeout = _Timespec(int(_DEADLINE_S), 0)
        arguments = (ctypes.c_void_p(waited), _FUTEX_WAIT, ctypes.c_uint32(0), ctypes.byref(timeout), None, 0)
        if libc.syscall(ctypes.c_long(number), *arguments) != 0:
            refusal.append(ctypes.get_errno())
        woken.set()

    waiter = threading.Thread(target=wait)
    waiter.start()
    # Wake again until it is back: the first wake may come before it sleeps. The word stays 0, so that only
    # a wake ends the wait.
    deadline = time.monotonic() + _DEADLINE_S
    while not woken.wait(_SLICE_S) and time.monotonic() < deadline:
        libc.syscall(ctypes.c_long(number), ctypes.c_void_p(word), _FUTEX_WAKE, ctypes.c_uint32(1), None, None, 0)
    waiter.join()
    if refusal:
        raise FutexError("a waiter wasn't woken" if refusal[0] == errno.ETIMEDOUT else os.strerror(refusal[0]))
