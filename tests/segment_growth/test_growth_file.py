"""A segment that moves into a larger file: nothing of it is lost, whatever is written, read or killed meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.segment.segment_rows import append, flaw, row, stamps

from chandlery.workers.feed import growing
from chandlery.workers.segment import SegmentError, SegmentReader, SegmentWriter, _native, growth, placement
from chandlery.workers.segment import writer as writer_module

ROWS, GUARD, STAMPED = 24, 4, 8
NAMES = ("A/USDT", "B/USDT", "C/USDT")


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "segment")


def make(path: str, series: int = 3) -> SegmentWriter:
    """A full segment: series 0 wrapped, revised and forming, 1 half full in a later session, 2 empty."""
    writer = SegmentWriter.create(path, rows=ROWS, series=series, guard_rows=GUARD, bells=4, stamp_rows=STAMPED)
    for name in NAMES:
        writer.add_series(name, "1s")
    for ordinal in range(2 * ROWS + 5):
        append(writer, 0, 0, ordinal, live=ordinal > 7)
    assert writer.revise(0, *row(0, 2 * ROWS, 3))
    writer.set_forming(0, *row(0, 2 * ROWS + 5, 2), stamps(0, 2 * ROWS + 5))
    writer.reset(1, 6)
    for ordinal in range(9):
        append(writer, 1, 6, ordinal, backfill=ordinal < 2)
    return writer


def told(reader: SegmentReader, name: str) -> tuple[Any, ...]:
    """All that a reader can learn of a series."""
    series = reader.series(name, "1s")
    assert series is not None
    window = series.window(series.count, reader.rows - reader.guard_rows)
    assert flaw(window) == ""
    columns = tuple(getattr(window, column).tobytes() for column in ("open_time", "close", "trades"))
    marks = [series.stamps(ordinal) for ordinal in range(max(0, series.count - ROWS), series.count)]
    state = (series.session, series.count, series.revision, series.live_from_ms, series.traded_from_ms)
    return (*state, series.last_open_time_ms, series.first(), series.forming(), columns, marks)


def steps_of(path: str) -> int:
    with make(path) as writer:
        return sum(1 for _ in writer.grow(9)) + 1


def test_a_grown_segment_holds_all_that_the_old_one_held(path: str) -> None:
    with make(path) as writer, SegmentReader.open(path) as before:
        kept = {name: told(before, name) for name in NAMES}
        size = writer.file_bytes
        for _ in writer.grow(7):
            pass
        assert (writer.capacity, writer.generation) == (7, 2)
        assert writer.file_bytes == os.path.getsize(path) > size
        with SegmentReader.open(path) as after:
            assert {name: told(after, name) for name in NAMES} == kept
            assert (after.rows, after.guard_rows, after.generation) == (ROWS, GUARD, 2)
            indices = [writer.add_series(name, "1s") for name in NAMES]
            more = writer.add_series("D/USDT", "1s")
            assert len({*indices, more}) == 4
            append(writer, indices[0], 0, 2 * ROWS + 5)
            assert told(after, NAMES[0])[1] == 2 * ROWS + 6


def test_the_old_file_says_that_it_is_over_and_its_windows_stay_readable_and_do_not_hold(path: str) -> None:
    with make(path) as writer:
        before = SegmentReader.open(path)
        series = before.series(NAMES[0], "1s")
        assert series is not None
        window = series.window(series.count, 8)
        shown = window.close.tolist()
        seen = before.bell(2)
        for _ in writer.grow(7):
            assert series.valid(window)
            assert not before.superseded
        assert before.superseded
        assert not series.alive
        assert not series.valid(window)
        assert before.bell(2) == seen + 1
        assert before.series(NAMES[0], "1s") is None
        before.close()
        assert window.close.tolist() == shown  # a strategy in the middle of its call reads on


def test_what_is_written_between_the_steps_is_in_the_grown_segment(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "STEP_BYTES", 1)
    monkeypatch.setattr(growth, "LAST_STEP_BYTES", 0)  # every round there may be
    with make(path, series=4) as writer:
        writer.add_series("gone", "1s")
        at = 2 * ROWS + 5
        for step, _ in enumerate(writer.grow(9)):
            append(writer, 0, 0, at + step)
            writer.set_forming(0, *row(0, at + step + 1, 5), stamps(0, at + step + 1))
            if step == 2:
                writer.revise(1, *row(6, 4, 8))
            if step == 3:
                writer.remove_series("gone", "1s")
                writer.reset(writer.add_series("came", "1s"), 3)
            if step == 5:
                writer.reset(2, 4)
                append(writer, 2, 4, 0)
        with SegmentReader.open(path) as after:
            assert after.series("gone", "1s") is None
            came = after.series("came", "1s")
            assert came is not None
            assert (came.session, came.count) == (3, 0)
            first = told(after, NAMES[0])
            assert step > 5
            assert first[1] == at + step + 1
            assert first[7] is not None
            assert first[7][:7] == row(0, at + step + 1, 5)
            assert told(after, NAMES[2])[:2] == (4, 1)
            revised = after.series(NAMES[1], "1s")
            assert revised is not None
            assert revised.window(9, 9).trades[4] == row(6, 4, 8)[-1]


def test_series_that_come_and_go_while_it_grows_never_overfill_it(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "STEP_BYTES", 1)
    monkeypatch.setattr(growth, "LAST_STEP_BYTES", 0)
    with SegmentWriter.create(path, rows=ROWS, series=4, guard_rows=GUARD, bells=1) as writer:
        names = [f"S{number}" for number in range(4)]
        for name in names:
            writer.add_series(name, "1s")
        for step, _ in enumerate(writer.grow(5)):
            writer.remove_series(names.pop(0), "1s")
            names.append(f"S{step + 4}")
            append(writer, writer.add_series(names[-1], "1s"), 0, step)
        assert sorted(one["symbol"] for one in writer.info()["series"]) == sorted(names)


def test_no_step_copies_many_series_and_the_last_one_only_what_has_changed_since(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[int] = []
    copy = growth.SeriesCopy._copy_record

    def noting(self: growth.SeriesCopy, place: int) -> None:
        copied.append(place)
        copy(self, place)

    monkeypatch.setattr(growth.SeriesCopy, "_copy_record", noting)
    many = 3 * growth.STEP_SERIES
    with SegmentWriter.create(path, rows=ROWS, series=many, guard_rows=GUARD, bells=1) as writer:
        places = [writer.add_series(f"S{number}", "1s") for number in range(many)]
        for step, _ in enumerate(writer.grow(many + 1)):
            assert len(copied) <= growth.STEP_SERIES
            copied.clear()
            append(writer, places[7], 0, step)
            writer.set_forming(places[9], *row(0, step, 5), stamps(0, step))
        assert sorted(copied) == [7, 9]


@pytest.mark.parametrize("how", ["let go", "closed"])
def test_a_growth_that_is_given_up_leaves_all_as_it_was(path: str, how: str) -> None:
    steps = steps_of(path)
    for step in range(1, steps):
        writer = make(path)
        growing = writer.grow(9)
        for _ in range(step):
            next(growing)
        if how == "let go":
            growing.close()
            assert (writer.capacity, writer.generation) == (3, 1)
            assert sorted(os.listdir(os.path.dirname(path))) == ["segment", "segment.lock"]
            append(writer, 0, 0, 2 * ROWS + 5)
            with SegmentReader.open(path) as reader:
                assert not reader.superseded
                assert told(reader, NAMES[0])[1] == 2 * ROWS + 6
            writer.close()
        else:
            writer.close()
            with pytest.raises(SegmentError, match="closed"):
                list(growing)
        assert os.listdir(os.path.dirname(path)) == []


def full(_path: str) -> int:
    return 100_000


def fails_half_way() -> Callable[[int, int, int], None]:
    calls = iter(range(1_000))

    def allocate(_fd: int, _at: int, _length: int) -> None:
        if next(calls) == 1:
            raise OSError(28, "No space left on device")

    return allocate


@pytest.mark.parametrize("what", ["full", "fills up", "rename"])
def test_a_growth_without_room_says_what_it_needs_and_leaves_all_as_it_was(
    path: str, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    with make(path) as writer:
        if what == "full":
            monkeypatch.setattr(placement, "free_bytes", full)
        elif what == "fills up":
            monkeypatch.setattr(os, "posix_fallocate", fails_half_way())
        else:
            monkeypatch.setattr(os, "rename", lambda *_: (_ for _ in ()).throw(OSError(30, "Read-only")))
        match = "needs 12.2 MB, .* MB free in .*spec.segment.candles" if what != "rename" else "Read-only"
        with pytest.raises(SegmentError, match=match):
            list(writer.grow(3_000) if what != "rename" else writer.grow(9))
        monkeypatch.undo()
        assert writer.capacity == 3
        assert sorted(os.listdir(os.path.dirname(path))) == ["segment", "segment.lock"]
        with SegmentReader.open(path) as reader:
            assert not reader.superseded
            assert told(reader, NAMES[1])[:2] == (6, 9)


def test_no_growth_is_none(path: str) -> None:
    with make(path) as writer:
        for series in (3, 2):
            with pytest.raises(SegmentError, match="no growth"):
                list(writer.grow(series))
        with pytest.raises(SegmentError, match="impossible segment"):
            list(writer.grow(1 << 17))


#: Where the last step can be cut: before and after each thing that it does to the files.
CUTS = [(name, after) for name in ("_make_ready", "_mark", "publish", "_ring_all") for after in (False, True)]


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def grow_and_die(writer: SegmentWriter, step: int, cut: tuple[str, bool] | None) -> None:
    """In a child: grow, and be killed after a number of steps, or in the last one."""
    growing = writer.grow(9)
    for _ in range(step):
        next(growing)
    if cut is None:
        _die()
        return
    name, after = cut
    done = getattr(writer_module, name)

    def cutting(*arguments: object, **more: object) -> None:
        if after:
            done(*arguments, **more)
        _die()

    setattr(writer_module, name, cutting)
    list(growing)


def forked(run: Callable[[], None]) -> None:
    """Run in a child that kills itself."""
    pid = os.fork()
    if not pid:
        with contextlib.suppress(BaseException):
            run()
        os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def whole(path: str) -> None:
    """Whatever has the path holds everything."""
    with SegmentReader.open(path) as reader:
        assert told(reader, NAMES[0])[:2] == (0, 2 * ROWS + 5)
        assert told(reader, NAMES[1])[:2] == (6, 9)
        assert told(reader, NAMES[2])[:2] == (0, 0)


@pytest.mark.parametrize("cut", [None, *CUTS], ids=str)
def test_a_writer_killed_at_any_point_leaves_a_whole_file_and_strands_no_reader(
    path: str, cut: tuple[str, bool] | None
) -> None:
    last = steps_of(path) - 1
    for step in range(1, last + 1) if cut is None else (last,):
        writer = make(path)
        with SegmentReader.open(path) as before:
            forked(partial(grow_and_die, writer, step, cut))
            writer.close(unlink=False)  # what is left of it here: the lock
            whole(path)
            with SegmentWriter.create(path, rows=ROWS, series=3, guard_rows=GUARD, bells=4) as successor:
                assert before.superseded  # by the growth, or by the successor, which finds what has the path
                assert not os.path.exists(path + ".new")
                assert successor.generation > before.generation


def mapped_files_without_a_name(path: str) -> int:
    """How many files that once had the path this process has mapped: their memory is not free yet."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return sum(line.endswith(" (deleted)") and os.path.dirname(path) in line for line in lines)


def test_the_old_file_is_let_go_of_when_its_holder_wants(path: str) -> None:
    with make(path) as writer:
        for _ in writer.grow(7):
            pass
        assert mapped_files_without_a_name(path) == 0
        left: list[_native.Mapping] = []
        for _ in writer.grow(9, left=left):
            assert left == []
        assert mapped_files_without_a_name(path) == len(left) == 1
        left.clear()
        assert mapped_files_without_a_name(path) == 0


async def test_a_feed_lets_go_of_the_old_file_later(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    later = asyncio.Event()
    monkeypatch.setattr(growing, "_readers_gone", later.wait)
    with make(path) as writer:
        grown = asyncio.Event()
        part = growing.Growing(writer, 4, 9, grown.set, pytest.fail, lambda error: pytest.fail(str(error)), Counter())
        part.grow(8)
        await grown.wait()
        assert mapped_files_without_a_name(path) == 1
        (held,) = part._held
        later.set()
        await held
        assert mapped_files_without_a_name(path) == 0


async def test_a_growth_that_has_no_room_beside_what_the_last_one_left_waits_until_that_is_gone(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    later, tried = asyncio.Event(), asyncio.Event()
    monkeypatch.setattr(growing, "_readers_gone", later.wait)

    def free_bytes(where: str) -> int:
        if not mapped_files_without_a_name(path):
            return 1 << 40
        tried.set()
        return 0

    monkeypatch.setattr(placement, "free_bytes", free_bytes)
    with make(path) as writer:
        grown = asyncio.Queue[int]()
        part = growing.Growing(
            writer, 4, 9, lambda: grown.put_nowait(writer.capacity), pytest.fail,
            lambda error: pytest.fail(str(error)), Counter(),
        )  # fmt: skip
        part.grow(8)
        assert await grown.get() == 8
        part.grow(9)
        await tried.wait()
        later.set()
        assert await grown.get() == 9, "and nobody was told that the segment is full"
        await part.stop()
