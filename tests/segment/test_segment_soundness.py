"""A segment that somebody else has truncated, overwritten or removed: its writer sees it, before it touches what is gone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.segment.segment_rows import append, row, stamps

from chandlery.workers.segment import SegmentReader, SegmentWriter, _native
from chandlery.workers.segment.layout import Geometry
from chandlery.workers.segment.soundness import Held

ROWS = 8
WHOLE = slice(0, ROWS)
GEOMETRY = Geometry.derive(rows=ROWS, guard_rows=2, series=3, bells=4, stamp_rows=4)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "segment"


def make(path: Path) -> SegmentWriter:
    return SegmentWriter.create(str(path), rows=ROWS, series=3, guard_rows=2, bells=4, stamp_rows=4)


def store(at: int, content: bytes) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(at)
            file.write(content)

    return spoil


def replace(path: Path) -> None:
    path.with_name("other").write_bytes(path.read_bytes())
    path.with_name("other").rename(path)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: os.truncate(path, 0), f"truncated to 0 bytes of {GEOMETRY.file_bytes}"),
        (lambda path: os.truncate(path, GEOMETRY.file_bytes - 1), f"bytes of {GEOMETRY.file_bytes}"),
        (lambda path: path.unlink(), "it can't be found any more (No such file or directory)"),
        (replace, "another file has its path"),
        (store(_native.HEADER_ROWS, b"\xff"), "its header was overwritten"),
        (store(_native.HEADER_READY, b"\0"), "its header was overwritten"),
        (store(_native.HEADER_SUPERSEDED, b"\1"), "its header was overwritten"),
    ],
    ids=["emptied", "cut", "removed", "replaced", "another number", "not ready", "superseded"],
)
def test_what_became_of_the_file_is_seen(path: Path, spoil: Callable[[Path], None], said: str) -> None:
    with make(path) as writer:
        writer.add_series("BTC/USDT", "1s")
        assert writer.spoiled() == ""
        spoil(path)
        assert writer.spoiled().endswith(said)


RECORD = GEOMETRY.records_offset
HASH = GEOMETRY.hash_offset
NEWEST = (2 * ROWS - 1) % ROWS


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (store(HASH, bytes(GEOMETRY.hash_slots * 8)), "the name of series BTC/USDT 1s was overwritten"),
        (store(RECORD + _native.RECORD_EPOCH, b"\0"), "the name of series BTC/USDT 1s was overwritten"),
        (store(RECORD + _native.RECORD_SYMBOL, b"ETH"), "the name of series BTC/USDT 1s was overwritten"),
        (store(RECORD + _native.RECORD_COUNT, b"\1"), "the record of series BTC/USDT 1s was overwritten"),
        (store(RECORD + _native.RECORD_RESERVED, b"\xff" * 8), "the record of series BTC/USDT 1s was overwritten"),
        (store(RECORD + _native.RECORD_LAST_OPEN_TIME_MS, b"\1"), "the record of series BTC/USDT 1s was overwritten"),
        (
            store(GEOMETRY.data_offset, bytes(GEOMETRY.block_bytes)),
            "rows of series BTC/USDT 1s were overwritten",
        ),
        (
            store(GEOMETRY.data_offset + 4 * GEOMETRY.column_bytes + 3 * 8, b"\xaa"),
            "rows of series BTC/USDT 1s were overwritten",
        ),
    ],
    ids=["hash", "epoch", "symbol", "count", "reserved", "newest", "zeros in the rows", "one byte of a close"],
)
def test_what_became_of_a_series_is_seen(path: Path, spoil: Callable[[Path], None], said: str) -> None:
    with make(path) as writer:
        index = writer.add_series("BTC/USDT", "1s")
        for ordinal in range(2 * ROWS):
            append(writer, index, 0, ordinal)
        held = Held(index, "BTC/USDT", "1s", row(0, 2 * ROWS - 1)[0])
        assert writer.spoiled_series(held, WHOLE) == ""
        spoil(path)
        assert writer.spoiled_series(held, WHOLE) == said


def test_what_a_writer_does_itself_is_never_taken_for_somebody_elses(path: Path) -> None:
    with make(path) as writer:
        index = writer.add_series("BTC/USDT", "1s")
        newest = -1

        def sound() -> bool:
            return (writer.spoiled(), writer.spoiled_series(Held(index, "BTC/USDT", "1s", newest), WHOLE)) == ("", "")

        assert sound()
        for ordinal in range(3 * ROWS):
            writer.set_forming(index, *row(0, ordinal), stamps(0, ordinal))
            assert sound()
            append(writer, index, 0, ordinal)
            newest = row(0, ordinal)[0]
            assert sound()
        writer.revise(index, *row(0, 3 * ROWS - 2, version=1))
        writer.ring(0)
        writer.heartbeat()
        assert sound()
        for _ in writer.grow(6):
            assert sound()
        index = writer.add_series("BTC/USDT", "1s")
        assert sound()
        writer.reset(index, 1)
        newest = -1
        assert sound()


@pytest.mark.parametrize("is_taken_away", [False, True])
@pytest.mark.parametrize("size", [0, 4_096, GEOMETRY.file_bytes - 1])
def test_a_truncated_segment_is_closed_and_gone_and_the_next_one_made(
    path: Path, size: int, is_taken_away: bool
) -> None:
    writer = make(path)
    os.truncate(path, size)
    if is_taken_away:
        path.unlink()
    # In a process of its own, which a bus error ends and not this one.
    child = os.fork()
    if child == 0:
        writer.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert not path.exists()
    writer._lock.release(unlink=False)
    with make(path):
        assert SegmentReader.open(str(path)).rows == ROWS


def test_a_reader_sees_that_its_file_is_lost_and_no_gap_between_two_files_is_a_loss(path: Path) -> None:
    with make(path):
        reader = SegmentReader.open(str(path))
        assert not reader.is_lost()
        away = path.rename(path.with_name("away"))
        assert not reader.is_lost()
        away.rename(path)
        os.truncate(path, GEOMETRY.file_bytes - 1)
        assert reader.is_lost()
    with make(path):
        assert reader.is_lost()
        reader.close()


def test_closing_leaves_the_file_of_another_writer_where_it_is(path: Path) -> None:
    writer = make(path)
    replace(path)
    writer.close()
    assert path.exists()
