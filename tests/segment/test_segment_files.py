"""The segment as a file: one writer, replaced by rename, never trusted before it is checked."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import struct
import threading
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.segment.segment_mounts import mounted, read_only
from tests.segment.segment_processes import (
    DEADLINE_S,
    be_killed_behind,
    hold_segment,
    process,
    receive,
    wait_for_bell,
)
from tests.segment.segment_rows import append, flaw, row, stamps

from chandlery.workers.segment import SegmentError, SegmentReader, SegmentWriter, _native
from chandlery.workers.segment import writer as writer_module

#: Offsets of the header's words, its checksum the last.
FIXED_WORDS = range(0, _native.HEADER_CHECKSUM + 8, 8)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "segment")


def make(path: str, *, rows: int = 8, keep: bool = True) -> None:
    """Leave a filled segment at the path, as a writer does that ended without unlinking it."""
    writer = SegmentWriter.create(path, rows=rows, series=3, guard_rows=2, bells=4, stamp_rows=4)
    for name in ("BTC/USDT", "ETH/USDT"):
        series = writer.add_series(name, "1s")
        for ordinal in range(2 * rows):
            append(writer, series, 0, ordinal)
        writer.set_forming(series, *row(0, 2 * rows), stamps(0, 2 * rows))
    writer.close(unlink=not keep)


def use(reader: SegmentReader) -> None:
    """Everything a reader can do; SegmentError is the only error that may come of it."""
    for symbol in ("BTC/USDT", "ETH/USDT", "X"):
        with contextlib.suppress(SegmentError):
            series = reader.series(symbol, "1s")
            if series is None:
                continue
            count = series.count
            for end in (count, min(count, 1 << 62), 16, 0):
                with contextlib.suppress(SegmentError):
                    window = series.window(min(end, (1 << 63) - 1), reader.rows - reader.guard_rows)
                    assert window.close.tobytes() is not None
                    series.valid(window)
            series.forming()
            series.find_after(5)
            series.stamps(count - 1 if count else 0)
            series.lapped(0)
            assert series.first() >= 0
    with contextlib.suppress(SegmentError):
        reader.wait(0, reader.bell(0) ^ 1, 0.0)
    reader.info()


# ---- a writer's life ----


def test_a_second_writer_is_refused_while_the_first_lives(path: str) -> None:
    with SegmentWriter.create(path, rows=8, series=1, guard_rows=1) as first:
        with pytest.raises(SegmentError, match=rf"live writer \(pid {os.getpid()}\)"):
            SegmentWriter.create(path, rows=8, series=1, guard_rows=1)
        assert SegmentReader.open(path).generation == first.generation
        first.ring(0)


def test_another_process_writer_is_refused_too_and_killing_it_frees_the_path(path: str) -> None:
    with process(hold_segment, path, 8) as (other, connection):
        assert receive(connection) == 1
        reader = SegmentReader.open(path)
        with pytest.raises(SegmentError, match=f"pid {other.pid}"):
            SegmentWriter.create(path, rows=8, series=1, guard_rows=1)
        os.kill(other.pid or 0, signal.SIGKILL)
        other.join(DEADLINE_S)
        assert [reader.superseded] == [False]
        with SegmentWriter.create(path, rows=8, series=1, guard_rows=1) as second:
            assert second.generation == 2
            assert reader.superseded
            assert SegmentReader.open(path).generation == 2


def test_readers_of_a_dead_writers_file_are_woken_by_its_successor(path: str) -> None:
    make(path)
    with process(wait_for_bell, path, 3) as (_, reader):
        seen = receive(reader)
        with SegmentWriter.create(path, rows=16, series=1, guard_rows=1, bells=1) as writer:
            assert receive(reader) == (seen + 1, 16, True)  # type: ignore[operator]
            assert writer.generation == 2
            assert SegmentReader.open(path).rows == 16


@pytest.mark.parametrize("step", ["publish", "_ring_all"])
def test_who_reads_a_dead_writers_file_is_not_forgotten_when_its_successor_is_killed_too(path: str, step: str) -> None:
    make(path)
    reader = SegmentReader.open(path)
    with process(be_killed_behind, path, step) as (child, _):
        child.join(DEADLINE_S)
        assert child.exitcode == -signal.SIGKILL
    assert SegmentReader.open(path).generation == 2
    with SegmentWriter.create(path, rows=8, series=1, guard_rows=1) as third:
        assert third.generation == 3
        assert reader.superseded
        assert reader.bell(0) >= 1, "who sleeps at the first file is woken"
        assert sorted(os.listdir(Path(path).parent)) == ["segment", "segment.lock"]


def test_who_reads_a_file_is_told_where_its_writer_was_killed_while_it_removed_it(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = SegmentWriter.create(path, rows=8, series=1, guard_rows=1)
    reader = SegmentReader.open(path)
    superseded: list[bool] = []
    monkeypatch.setattr(os, "rename", lambda *_: superseded.append(reader.superseded))
    writer.close()
    assert superseded == [True]


def test_a_writer_killed_while_it_removed_its_file_leaves_its_readers_to_be_woken_by_the_next(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = SegmentWriter.create(path, rows=8, series=1, guard_rows=1)
    reader = SegmentReader.open(path)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(writer_module, "_ring_all", killed)
        with pytest.raises(KeyboardInterrupt):
            writer.close()
    del writer  # its lock goes with it, as with its process
    assert reader.bell(0) == 0
    with SegmentWriter.create(path, rows=8, series=1, guard_rows=1) as second:
        assert second.generation == 2
        assert reader.bell(0) == 1
        assert sorted(os.listdir(Path(path).parent)) == ["segment", "segment.lock"]


@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 2)])
def test_readers_of_another_layout_version_are_told_of_the_successor_too(
    path: str, monkeypatch: pytest.MonkeyPatch, before: int, after: int
) -> None:
    monkeypatch.setattr(_native, "LAYOUT_VERSION", before)
    make(path)
    reader = SegmentReader.open(path)
    bells = reader.info()["bells"]
    monkeypatch.setattr(_native, "LAYOUT_VERSION", after)
    with SegmentWriter.create(path, rows=8, series=1, guard_rows=1, bells=1) as successor:
        assert successor.generation == reader.generation + 1
        assert (reader.superseded, reader.info()["bells"]) == (True, [bell + 1 for bell in bells])
        monkeypatch.setattr(_native, "LAYOUT_VERSION", before)
        with pytest.raises(SegmentError, match=f"layout version {after}; this program reads {before}"):
            SegmentReader.open(path)


@pytest.mark.parametrize("bells", [0, 1 << 20, (1 << 64) - 1])
def test_a_file_of_another_version_whose_bells_cannot_be_is_left_untold(path: str, bells: int) -> None:
    make(path)
    words = bytearray(Path(path).read_bytes()[: _native.HEADER_CHECKSUM])
    struct.pack_into("<Q", words, _native.HEADER_VERSION, 3)
    struct.pack_into("<Q", words, _native.HEADER_BELLS, bells)
    with open(path, "r+b") as file:
        file.write(words + struct.pack("<Q", zlib.crc32(words)))
    with SegmentWriter.create(path, rows=8, series=1, guard_rows=1, bells=1) as successor:
        assert successor.generation == 1


def test_an_orderly_close_removes_the_files_and_wakes_readers(path: str) -> None:
    with process(hold_segment, path, 8) as (_, holder):
        receive(holder)
        with process(wait_for_bell, path, 2) as (_, reader):
            seen = receive(reader)
            holder.send("close")
            assert receive(reader) == (seen + 1, 8, True)  # type: ignore[operator]
        assert receive(holder) == "closed"
    assert os.listdir(Path(path).parent) == []


def test_a_closed_but_kept_segment_can_be_read_as_it_stands(path: str) -> None:
    make(path)
    reader = SegmentReader.open(path)
    series = reader.series("BTC/USDT", "1s")
    assert series is not None
    window = series.window(series.count, 6)
    assert series.valid(window)
    assert flaw(window) == ""
    assert not reader.superseded


def test_closing_does_not_unlink_a_successors_lock(path: str) -> None:
    first = SegmentWriter.create(path, rows=8, series=1, guard_rows=1)
    first.close()
    second = SegmentWriter.create(path, rows=8, series=1, guard_rows=1)
    first.close()
    with pytest.raises(SegmentError, match="live writer"):
        SegmentWriter.create(path, rows=8, series=1, guard_rows=1)
    second.close()


def test_a_failed_creation_leaves_nothing_and_frees_the_lock(path: str) -> None:
    Path(path).mkdir()
    with pytest.raises(SegmentError, match="in place"):
        SegmentWriter.create(path, rows=8, series=1, guard_rows=1)
    Path(path).rmdir()
    assert not Path(path + ".new").exists()
    SegmentWriter.create(path, rows=8, series=1, guard_rows=1).close()


def test_a_leftover_of_a_creation_cut_short_is_replaced(path: str) -> None:
    Path(path + ".new").write_bytes(b"x" * 100)
    SegmentWriter.create(path, rows=8, series=1, guard_rows=1).close(unlink=False)
    assert SegmentReader.open(path).generation == 1


def test_a_previous_file_that_is_garbage_is_replaced(path: str) -> None:
    Path(path).write_bytes(os.urandom(9_000))
    with SegmentWriter.create(path, rows=8, series=1, guard_rows=1) as writer:
        assert writer.generation == 1
        assert SegmentReader.open(path).generation == 1


def test_a_previous_file_of_the_last_generation_there_is_can_be_replaced(path: str) -> None:
    make(path)
    words = Path(path).read_bytes()[: _native.HEADER_CHECKSUM]
    last = words[: _native.HEADER_GENERATION] + b"\xff" * 8 + words[_native.HEADER_GENERATION + 8 :]
    with open(path, "r+b") as file:
        file.write(last + struct.pack("<Q", zlib.crc32(last)))
    reader = SegmentReader.open(path)
    with SegmentWriter.create(path, rows=8, series=1, guard_rows=1) as writer:
        assert writer.generation == 0
        assert reader.superseded


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(SegmentError, match="No such file"):
        SegmentWriter.create(str(tmp_path / "absent" / "segment"), rows=8, series=1, guard_rows=1)


@pytest.mark.parametrize(
    "numbers",
    [
        {"rows": 1},
        {"rows": 1 << 21},
        {"guard_rows": 0},
        {"guard_rows": 8},
        {"series": 0},
        {"bells": 0},
        {"stamp_rows": 0},
        {"rows": 1 << 70},
        {"series": -1},
    ],
)
def test_impossible_numbers_are_refused_with_their_bounds(path: str, numbers: dict[str, int]) -> None:
    given_numbers = {"rows": 8, "series": 1, "guard_rows": 2, "bells": 1, "stamp_rows": 4, **numbers}
    with pytest.raises(SegmentError, match="segment"):
        SegmentWriter.create(path, **given_numbers)
    assert os.listdir(Path(path).parent) == []


# ---- a reader's suspicion ----


def test_the_reader_needs_no_write_permission(path: str) -> None:
    make(path)
    os.chmod(path, 0o444)
    use(SegmentReader.open(path))


def test_a_read_only_mount_is_enough_to_read_and_to_wait(tmp_path: Path) -> None:
    with mounted(tmp_path / "mount", "size=1m") as folder:
        path = str(folder / "segment")
        writer = SegmentWriter.create(path, rows=8, series=1, guard_rows=1, bells=1)
        with read_only(folder, tmp_path / "view") as view:
            reader = SegmentReader.open(str(view / "segment"))
            thread = threading.Timer(0.01, writer.ring, [0])
            thread.start()
            assert reader.wait(0, 0, DEADLINE_S) == 1
            thread.join()
            with pytest.raises(SegmentError, match="Read-only"):
                SegmentWriter.create(str(view / "other"), rows=8, series=1, guard_rows=1)
            reader.close()
        writer.close()


def test_a_missing_segment_is_an_error(path: str) -> None:
    with pytest.raises(SegmentError, match="No such file"):
        SegmentReader.open(path)


@pytest.mark.parametrize("kind", ["folder", "pipe", "empty"])
def test_what_is_no_file_or_empty_is_refused_without_blocking(path: str, kind: str) -> None:
    {"folder": os.mkdir, "pipe": os.mkfifo, "empty": lambda place: Path(place).touch()}[kind](path)
    with pytest.raises(SegmentError, match=r"not a regular file|truncated"):
        SegmentReader.open(path)


def test_a_segment_truncated_anywhere_is_refused(path: str) -> None:
    make(path)
    whole = Path(path).read_bytes()
    for size in (1, 8, 200, 4095, 4096, 4097, len(whole) // 2, len(whole) - 1):
        Path(path).write_bytes(whole[:size])
        with pytest.raises(SegmentError, match=r"truncated|not ready"):
            SegmentReader.open(path)


def test_a_segment_that_is_not_ready_is_refused(path: str) -> None:
    make(path)
    poke(path, _native.HEADER_READY, 0)
    with pytest.raises(SegmentError, match="not ready"):
        SegmentReader.open(path)


@pytest.mark.parametrize("offset", FIXED_WORDS)
def test_every_word_of_the_header_is_checked(path: str, offset: int) -> None:
    make(path)
    original = Path(path).read_bytes()
    (value,) = struct.unpack_from("<Q", original, offset)
    draw = random.Random(offset)
    for changed in {0, 1, value - 1, value + 1, value * 2, value + 64, 1 << 63, (1 << 64) - 1, draw.getrandbits(64)}:
        if changed in (value, -1) or changed >= 1 << 64:
            continue
        poke(path, offset, changed)
        with pytest.raises(SegmentError):
            SegmentReader.open(path)


@pytest.mark.parametrize("offset", FIXED_WORDS[:-1])
def test_numbers_that_lie_with_a_right_checksum_never_lead_outside(path: str, offset: int) -> None:
    """A header from a broken writer: refused, or read within the mapping."""
    make(path)
    original = Path(path).read_bytes()[: _native.HEADER_CHECKSUM]
    (value,) = struct.unpack_from("<Q", original, offset)
    for changed in (0, 1, 2, max(0, value - 1), value + 1, value * 2, 1 << 16, 1 << 20, 1 << 63, (1 << 64) - 1):
        if changed >= 1 << 64:
            continue
        words = original[:offset] + struct.pack("<Q", changed) + original[offset + 8 :]
        with open(path, "r+b") as file:
            file.write(words + struct.pack("<Q", zlib.crc32(words)))
        with contextlib.suppress(SegmentError):
            use(SegmentReader.open(path))


SPOILED_BYTES = 8 * 4096


@settings(max_examples=150, deadline=None)
@given(spots=st.lists(st.tuples(st.integers(0, SPOILED_BYTES), st.binary(min_size=1, max_size=16)), max_size=60))
def test_a_segment_with_arbitrary_bytes_spoiled_never_crashes_a_reader(
    tmp_path_factory: pytest.TempPathFactory, spots: list[tuple[int, bytes]]
) -> None:
    path = str(tmp_path_factory.mktemp("spoiled") / "segment")
    make(path)
    size = os.path.getsize(path)
    with open(path, "r+b") as file:
        for offset, data in spots:
            file.seek(_native.HEADER_READY + 8 + offset % (size - _native.HEADER_READY - 32))
            file.write(data)
    with contextlib.suppress(SegmentError):
        use(SegmentReader.open(path))


def test_spoiled_counts_and_sequences_never_lead_outside(path: str) -> None:
    make(path)
    reader = SegmentReader.open(path)
    records = _records_offset(path)
    for word in range(_native.RECORD_REVISION, _native.RECORD_BYTES, 8):
        original = Path(path).read_bytes()[records + word : records + word + 8]
        for value in (0, 1, 1 << 31, (1 << 63) - 1, 1 << 63, (1 << 64) - 1):
            poke(path, records + word, value)
            use(reader)
        poke(path, records + word, struct.unpack("<Q", original)[0])


def poke(path: str, offset: int, value: int) -> None:
    """Change one word of a file."""
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(struct.pack("<Q", value))


def _records_offset(path: str) -> int:
    (offset,) = struct.unpack_from("<Q", Path(path).read_bytes(), _native.HEADER_RECORDS_OFFSET)
    return int(offset)


# ---- room ----


def test_a_full_file_system_is_an_error_that_says_need_rest_and_way_out(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "size=64k") as folder:
        path = str(folder / "segment")
        with pytest.raises(SegmentError) as caught:
            SegmentWriter.create(path, rows=1_000, series=10)
        assert "needs 1.2 MB, 0.1 MB free in" in str(caught.value)
        assert "lower the pool's segment.candles or segment.series" in str(caught.value)
        assert os.listdir(folder) in ([], ["segment.lock"])
        SegmentWriter.create(path, rows=8, series=1, guard_rows=1, bells=1).close()


def test_a_successor_waits_for_readers_where_memory_cannot_hold_both(tmp_path: Path) -> None:
    with mounted(tmp_path / "tight", "size=1500k") as folder:
        path = str(folder / "segment")
        SegmentWriter.create(path, rows=1_000, series=8, bells=1).close(unlink=False)
        reader = SegmentReader.open(path)

        def leave_when_told() -> None:
            reader.wait(0, 0, DEADLINE_S)
            assert reader.superseded
            reader.close()

        thread = threading.Thread(target=leave_when_told)
        thread.start()
        writer = SegmentWriter.create(path, rows=1_000, series=8, bells=1)
        thread.join(DEADLINE_S)
        assert writer.generation == 2
        writer.close()


def test_a_reader_that_never_leaves_makes_the_successor_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "_ROOM_TIMEOUT_S", 0.05)
    with mounted(tmp_path / "tight", "size=1500k") as folder:
        path = str(folder / "segment")
        SegmentWriter.create(path, rows=1_000, series=8, bells=1).close(unlink=False)
        reader = SegmentReader.open(path)
        with pytest.raises(SegmentError, match="make room"):
            SegmentWriter.create(path, rows=1_000, series=8, bells=1)
        assert reader.superseded
        reader.close()
