"""A trader's side of the segment: found by path, mapped read-only."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from types import TracebackType
from typing import Final

from chandlery.core.absence import Absence
from chandlery.core.errors import SegmentError
from chandlery.workers.segment import _native
from chandlery.workers.segment.description import SegmentInfo, describe, names
from chandlery.workers.segment.layout import Header, read_header
from chandlery.workers.segment.series import SeriesReader
from chandlery.workers.segment.soundness import FileIdentity


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise SegmentError(f"segment {path}: {error.strerror}") from error
    try:
        yield fd
    finally:
        os.close(fd)


def map_segment(path: str) -> tuple[_native.Mapping, Header, FileIdentity]:
    """Map a segment read-only and check its header.

    Raises:
        SegmentError: missing, truncated, no segment, of another layout version, or not ready.
    """
    with _opened(path) as fd:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise SegmentError(f"segment {path}: not a regular file")
        try:
            mapping = _native.Mapping(fd, status.st_size, False)
        except OSError as error:
            raise SegmentError(f"segment {path}: can't be mapped: {error.strerror}") from error
        except SegmentError as error:
            raise SegmentError(f"segment {path}: truncated: {error}") from error
    try:
        return mapping, read_header(mapping), FileIdentity.of(status)
    except SegmentError as error:
        raise SegmentError(f"segment {path}: {error}") from error


class SegmentReader(_native.Reader):
    """Maps a segment read-only: the file and its mount need no write permission.

    Not to be shared between threads, except that one may :meth:`wait` while another closes.

    Lifetime: a reader holds the mapping until :meth:`close`; after that it refuses. Series, windows and arrays that
    it handed out hold the mapping themselves: they stay readable after close(), after the reader is collected, and
    after the file is unlinked or superseded. The memory goes with the last of them. :meth:`info` is a copy.
    """

    def __init__(self, path: str, mapping: _native.Mapping, header: Header, identity: FileIdentity) -> None:
        super().__init__(mapping, header.geometry.numbers)
        self.path: Final = path
        self.generation: Final = header.generation
        self.rows: Final = header.geometry.rows
        self.guard_rows: Final = header.geometry.guard_rows
        self._header: Final = header
        self._identity: Final = identity
        self._mapping: _native.Mapping | None = mapping

    @classmethod
    def open(cls, path: str) -> SegmentReader:
        """Open the segment that now has the path.

        Raises:
            SegmentError: missing, truncated, no segment, of another layout version, offsets beyond the file's
                size, or not ready.
        """
        return cls(path, *map_segment(path))

    def is_lost(self) -> bool:
        """Whether another file has the path, or this one was truncated; a system call, which touches no mapped page.

        A writer that replaces a file says so in it (``superseded``). It can't where somebody has spoiled the file.
        """
        try:
            status = os.stat(self.path)
        except OSError:
            return False  # between two files; or removed, which its writer notices
        return FileIdentity.of(status) != self._identity or status.st_size < self._header.geometry.file_bytes

    def writer_heartbeat_ns(self) -> int:
        """When the writer last gave a sign of life, monotonic ns (0: never)."""
        return self._mapped().load(_native.HEADER_HEARTBEAT_NS)

    def series(self, symbol: str, interval: str) -> SeriesReader | None:
        """The series, or None while it isn't there. Its pages are faulted in here, not at the first candle."""
        found = self._find(symbol, interval)
        if found is None:
            return None
        index, epoch = found
        return SeriesReader(self._mapped(), self._header.geometry, index, epoch, symbol, interval)

    def expect(self, symbol: str, interval: str) -> SeriesReader:
        """The series, which must be there.

        Raises:
            SegmentError: it isn't; the message says what there is, and what makes a feed hold a series.
        """
        found = self.series(symbol, interval)
        if found is not None:
            return found
        raise SegmentError(
            f"no series {symbol} {interval}: segment {self.path} {self.absence(symbol, interval).told()}"
        )

    def names(self) -> Iterator[tuple[str, str]]:
        """Symbol and interval of each series that is there."""
        return names(self._mapped(), self._header)

    def absence(self, symbol: str, interval: str) -> Absence:
        """What there is instead of a series that isn't there. It looks at every record: not for each wake-up."""
        return Absence.among(symbol, interval, self.names())

    def info(self) -> SegmentInfo:
        """Header, series and bells as plain data."""
        return describe(self._mapped(), self._header)

    def close(self) -> None:
        """Let go of the mapping. Windows and series handed out keep it, and stay readable."""
        self._mapping = None
        self._release()

    def _mapped(self) -> _native.Mapping:
        if self._mapping is None:
            raise SegmentError("this segment is closed here")
        return self._mapping

    def __enter__(self) -> SegmentReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
