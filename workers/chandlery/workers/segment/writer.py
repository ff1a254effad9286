"""The feed's side of the segment: the one writer."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Generator
from types import TracebackType
from typing import Final

from chandlery.core.errors import SegmentError
from chandlery.workers.segment import _native
from chandlery.workers.segment.description import SegmentInfo, describe
from chandlery.workers.segment.growth import SeriesCopy
from chandlery.workers.segment.layout import Bells, Geometry, Header, read_bells
from chandlery.workers.segment.placement import (
    NoRoom,
    WriterLock,
    no_room,
    publish,
    reserve,
    reserve_in_steps,
    total_bytes,
    wait_for_room,
)
from chandlery.workers.segment.soundness import (
    FileIdentity,
    Held,
    file_problem,
    header_problem,
    series_problem,
    size_at,
)

#: How long a new segment waits for readers to leave the one it replaces, where memory can't hold both. Readers
#: notice within one wake-up; a strategy's call in between may take a second or two.
_ROOM_TIMEOUT_S: Final = 5.0
#: Ending of a second name that a file keeps until its readers have been rung to leave it. Whoever is killed before that
#: leaves the name, and the path's next writer rings: they sleep at a file that no other name leads to.
_ASIDE: Final = ".old"
_REMEDY: Final = "make room, or lower the pool's segment.candles or segment.series (segment_rows, segment_series)"


class SegmentWriter(_native.Writer):
    """Writes a segment; at most one lives for a path, held by a file lock that dies with its process.

    Single-threaded. ``append``, ``revise``, ``set_forming``, ``clear_forming``, ``reset``, ``ring``,
    ``ring_many``, ``heartbeat``, ``add_series`` and ``remove_series`` are in the extension; they raise
    SegmentError after :meth:`close`, for a series not in use, and for a bell that isn't there.

    * ``append(series, open_time_ms, open, high, low, close, volume, trades, stamps, backfill=False, live=True)``:
      a closed row, newer than the last (else SegmentError); ``backfill``: it comes from no trade of the session;
      ``live``: it comes as it happens, not read later. Clears the forming row if that is this candle or older.
    * ``revise(series, open_time_ms, open, …, trades) -> bool``: changes a closed row; False when the ring doesn't
      hold it. All windows of the series taken before become invalid.
    * ``set_forming(series, open_time_ms, open, …, trades, stamps)``, ``clear_forming(series)``.
    * ``reset(series, session)``: no closed rows, no forming row, new session; windows become invalid.
    * ``ring(bell)``: one system call. ``ring_many(bells)``: all values first, then the wake-ups.
    * ``add_series(symbol, interval) -> int``: idempotent; SegmentError when full. ``remove_series(symbol,
      interval)``: nothing happens when it isn't there.
    * ``heartbeat()``: the monotonic clock into the header.
    """

    def __init__(
        self, path: str, mapping: _native.Mapping, identity: FileIdentity, header: Header, lock: WriterLock
    ) -> None:
        super().__init__(mapping, header.geometry.numbers)
        self.path: Final = path
        self._identity = identity
        self._header = header
        self._lock: Final = lock
        self._mapping: _native.Mapping | None = mapping

    @classmethod
    def create(
        cls, path: str, *, rows: int, series: int, guard_rows: int = 64, bells: int = 256, stamp_rows: int = 64
    ) -> SegmentWriter:
        """Make a new, empty segment at ``path``, in place of a previous writer's.

        Built under another name and renamed when ready. A previous file is marked superseded and all its bells
        are rung, so that its readers open the path again. Where memory can't hold both, the previous one is
        unlinked first and its readers get 5 s to let go of it.

        Args:
            path: the file; its folder must exist. ``path + ".lock"`` is the writer's lock.
            rows: closed rows a series keeps. guard_rows: of these, not for readers, so that the writer can be
                that many rows ahead of a reader at work.
            series: most series. bells: number of doorbells.
            stamp_rows: newest closed rows whose stamps are kept (at most ``rows``).

        Raises:
            SegmentError: a live writer has the path; no room (says need, free bytes and the way out); a number
                is out of bounds; the folder can't be written.
        """
        geometry = Geometry.derive(
            rows=rows, guard_rows=guard_rows, series=series, bells=bells, stamp_rows=min(stamp_rows, rows)
        )
        lock = WriterLock(path)
        try:
            return cls._create_locked(path, geometry, lock)
        except BaseException:
            lock.release(unlink=False)
            raise

    @staticmethod
    def check_room(path: str, *, rows: int, series: int, guard_rows: int = 64, bells: int = 256) -> int:
        """Look whether the path's file system could ever hold a segment of these numbers, were it empty.

        Returns:
            Bytes that a second one beside it would leave free, as one that grows needs them; negative: it couldn't be.

        Raises:
            SegmentError: it couldn't (says what is needed, what there is, and the way out); a number is out of bounds.
        """
        size_bytes = Geometry.derive(
            rows=rows, guard_rows=guard_rows, series=series, bells=bells, stamp_rows=min(64, rows)
        ).file_bytes
        folder = os.path.dirname(path)
        try:
            total = total_bytes(folder)
        except OSError as error:
            raise SegmentError(f"segment {path}: {error.strerror}") from error
        if size_bytes > total:
            raise SegmentError(
                f"{path} may need {size_bytes / 1e6:.1f} MB for {series} series of {rows} rows, {folder} has "
                f"{total / 1e6:.1f} MB in all; {_REMEDY}"
            )
        return total - 2 * size_bytes

    @classmethod
    def _create_locked(cls, path: str, geometry: Geometry, lock: WriterLock) -> SegmentWriter:
        unrung = _Previous.find(path + _ASIDE)
        previous = _Previous.find(path)
        # A word, whatever an unsound file said.
        generation = (max(unrung.generation, previous.generation) + 1) % (1 << 64)
        unrung.remove()
        header = Header(geometry, generation, os.getpid(), time.monotonic_ns())
        building = path + ".new"
        fd = _reserve_beside(previous, building, geometry.file_bytes)
        try:
            mapping, identity = _map_new(path, fd, geometry)
        except SegmentError:
            os.unlink(building)
            raise
        writer = cls(path, mapping, identity, header, lock)
        _make_ready(mapping, header)
        previous.set_aside()
        previous.mark()
        publish(building, path)
        previous.ring()
        return writer

    @property
    def generation(self) -> int:
        """Of the present file."""
        return self._header.generation

    @property
    def capacity(self) -> int:
        """Most series of the present file."""
        return self._header.geometry.series

    @property
    def rows(self) -> int:
        """Closed rows that a series keeps."""
        return self._header.geometry.rows

    @property
    def file_bytes(self) -> int:
        """Size of the present file."""
        return self._header.geometry.file_bytes

    def grow(
        self, series: int, *, spare_bytes: int = 0, left: list[_native.Mapping] | None = None
    ) -> Generator[None, None, None]:
        """Move into a larger file at the same path, in small steps; use the writer as ever between them.

        A step takes 1 to 2 ms, the last one 1 ms for 512 series and 4 ms for 8,192, without freeing the old file. With the
        last step the writer has the new file, and all series their rows, stamps, forming rows, ordinals, revisions and
        sessions: only their numbers (``add_series`` tells them) may be others. Readers of the old file find it
        superseded and its series removed, so that no window of it holds any more. Let go of half-way, or failing, it
        leaves all as it was.

        Args:
            series: most series of the new file. spare_bytes: these must be left free beside it.
            left: gets, in the end, what the old file is mapped by. Whoever lets go of a file last frees it, which takes
                30 ms for 60 MB: to be done where nothing waits for it. Absent: it is let go of in the last step.

        Raises:
            SegmentError: no room (says need, free bytes and the way out); ``series`` is no growth or out of bounds; the
                folder can't be written; the writer was closed between two steps.
        """
        old, was = self._mapped(), self._header.geometry
        if series <= was.series:
            raise SegmentError(f"segment {self.path}: {series} series are no growth, it has room for {was.series}")
        geometry = Geometry.derive(
            rows=was.rows, guard_rows=was.guard_rows, series=series, bells=was.bells, stamp_rows=was.stamp_rows
        )
        building = self.path + ".new"
        try:
            fd = yield from reserve_in_steps(building, geometry.file_bytes, 0o644, spare_bytes=spare_bytes)
        except NoRoom as error:
            raise no_room(
                building, geometry.file_bytes + spare_bytes, "make room there or lower the pool's spec.segment.candles"
            ) from error
        try:
            mapping, identity = _map_new(self.path, fd, geometry)
            copy = SeriesCopy(self, old, was, mapping, geometry)
            yield
            yield from copy.rounds()
            if self._mapping is not old:
                raise SegmentError(f"segment {self.path}: closed while it grew")
            copy.finish()
            header = Header(geometry, self.generation + 1, os.getpid(), time.monotonic_ns())
            _make_ready(mapping, header)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(building)
            raise
        before = _native.Writer(old, was.numbers)
        previous = _Previous(self.path, (old, before, Bells(self.generation, was.bells)))
        previous.set_aside()
        previous.mark()  # before the path has the new file, as in create
        try:
            publish(building, self.path)
        except SegmentError:
            previous.stay()
            raise
        self._mapping, self._identity, self._header = mapping, identity, header
        super().__init__(mapping, geometry.numbers)
        # What comes from now on is not in the old file: nobody shall take it for the newest.
        before.end_series()
        previous.ring()
        if left is not None:
            left.append(old)

    def info(self) -> SegmentInfo:
        """Header, series and bells as plain data."""
        return describe(self._mapped(), self._header)

    def spoiled(self) -> str:
        """What somebody else has done to the present file or its header, or empty."""
        problem = file_problem(self.path, self._identity, self.file_bytes)
        return problem or header_problem(self._mapped(), self._header.pack())

    def spoiled_series(self, held: Held, rows: slice) -> str:
        """What somebody else has done to a series, or empty; ``rows``: whose two copies are compared, by their places."""
        return series_problem(self._mapped(), self._header, held, rows)

    def close(self, unlink: bool = True) -> None:
        """Stop writing. Idempotent.

        Args:
            unlink: remove the file too, tell its readers that it is superseded, and wake them all; they can't be told
                in one that somebody has truncated, or taken away, which may be both. False leaves it to be read as it stands, until a next writer
                supersedes it.
        """
        if self._mapping is None:
            return
        size_bytes = size_at(self.path, self._identity) if unlink else None
        if size_bytes is not None:
            is_whole = size_bytes >= self.file_bytes
            if is_whole:
                _mark(self._mapping)
            with contextlib.suppress(FileNotFoundError):
                os.rename(self.path, self.path + _ASIDE)
            if is_whole:
                _ring_all(self, self._header.geometry.bells)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path + _ASIDE)
        self._mapping = None
        self._release()
        self._lock.release(unlink=unlink)

    def _mapped(self) -> _native.Mapping:
        if self._mapping is None:
            raise SegmentError("this segment is closed here")
        return self._mapping

    def __enter__(self) -> SegmentWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _mark(mapping: _native.Mapping) -> None:
    # While the file still has its path. Who is killed after this leaves a file that readers don't stay with; the
    # other way round they would stay with one that nobody finds any more, to tell them.
    mapping.store(_native.HEADER_SUPERSEDED, 1)


def _ring_all(writer: _native.Writer, bells: int) -> None:
    writer.ring_many(range(bells))


def _map_new(path: str, fd: int, geometry: Geometry) -> tuple[_native.Mapping, FileIdentity]:
    try:
        return _native.Mapping(fd, geometry.file_bytes, True), FileIdentity.of(os.fstat(fd))
    except OSError as error:
        raise SegmentError(f"segment {path}: can't be mapped: {error.strerror}") from error
    finally:
        os.close(fd)


def _make_ready(mapping: _native.Mapping, header: Header) -> None:
    mapping.write(0, header.pack())
    _native.Writer(mapping, header.geometry.numbers).heartbeat()
    mapping.store(_native.HEADER_READY, _native.READY_WORD)  # [READY] pairs with the load in layout.py


class _Previous:
    """The file that a dead writer left under a name, if it is sound enough to be told of its successor."""

    def __init__(self, path: str, sound: tuple[_native.Mapping, _native.Writer, Bells] | None) -> None:
        self._path: Final = path
        self._aside: Final = path.removesuffix(_ASIDE) + _ASIDE
        self._sound = sound
        self.generation: Final = sound[2].generation if sound else 0

    @classmethod
    def find(cls, path: str) -> _Previous:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return cls(path, None)
        try:
            mapping = _native.Mapping(fd, os.fstat(fd).st_size, True)
            bells = read_bells(mapping)
            # Of another version no more is known than its bells; in the smallest segment they have the same place.
            return cls(path, (mapping, _native.Writer(mapping, (2, 1, 1, bells.number, 1)), bells))
        except (OSError, SegmentError):
            return cls(path, None)  # unsound: its readers can't be told, they see their heartbeat stop
        finally:
            os.close(fd)

    def set_aside(self) -> None:
        """Before its successor takes the path: give it the name under which it is found until its readers are rung.

        Raises:
            SegmentError: the file system has no second names.
        """
        if self._sound is None:
            return
        try:
            os.link(self._path, self._aside)
        except OSError as error:
            os.unlink(self._path + ".new")
            raise SegmentError(f"segment {self._path}: can't be set aside: {error.strerror}") from error

    def mark(self) -> None:
        """Say in the file that it is superseded; before its path means another one or none."""
        if self._sound is not None:
            _mark(self._sound[0])

    def stay(self) -> None:
        """There is no successor after all."""
        if self._sound is not None:
            self._sound[0].store(_native.HEADER_SUPERSEDED, 0)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._aside)

    def ring(self) -> None:
        """Wake its readers, after its path means another one or none; only then its last name goes, and its mapping."""
        if self._sound is not None:
            _, writer, bells = self._sound
            _ring_all(writer, bells.number)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._aside)
        self._sound = None

    def remove(self) -> bool:
        """Make room by removing the file before its successor is there; whether there was one."""
        self.mark()
        try:
            if self._sound is None:
                os.unlink(self._path)
            else:
                os.rename(self._path, self._aside)
        except OSError:
            return False
        self.ring()
        return True


def _reserve_beside(previous: _Previous, building: str, size_bytes: int) -> int:
    try:
        return reserve(building, size_bytes, 0o644)
    except NoRoom as error:
        if not previous.remove():
            raise no_room(building, size_bytes, _REMEDY) from error
    wait_for_room(building, size_bytes, time.monotonic() + _ROOM_TIMEOUT_S)
    try:
        return reserve(building, size_bytes, 0o644)
    except NoRoom as error:
        raise no_room(building, size_bytes, _REMEDY) from error
