"""What can't be had is refused by words that say what to change."""

from __future__ import annotations

import os
import re
import struct
import zlib
from pathlib import Path

import pytest
from tests.segment.segment_mounts import mounted, read_only
from tests.segment.segment_rows import append

from chandlery.workers.segment import SegmentError, SegmentReader, SegmentWriter, SignalRing, _native

ROWS, GUARD = 16, 4


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "segment")


@pytest.fixture
def reader(path: str) -> SegmentReader:
    with SegmentWriter.create(path, rows=ROWS, series=4, guard_rows=GUARD, bells=1) as writer:
        for interval in ("5m", "1s"):
            append(writer, writer.add_series("BTC/USDT", interval), 0, 0)
        writer.add_series("ETH/USDT", "1m")
        return SegmentReader.open(path)


def test_a_window_longer_than_the_ring_less_its_guard_says_what_can_be_read_and_what_to_raise(
    reader: SegmentReader,
) -> None:
    series = reader.expect("BTC/USDT", "1s")
    assert len(series.window(1, ROWS - GUARD)) == 1
    with pytest.raises(SegmentError) as caught:
        series.window(1, ROWS - GUARD + 1)
    assert str(caught.value) == (
        "window of 13 rows: 12 can be read, of 16 kept the oldest 4 are the writer's guard; "
        "raise the pool's segment.candles"
    )


def test_an_interval_that_is_not_built_is_told_with_those_that_are(reader: SegmentReader, path: str) -> None:
    assert reader.series("BTC/USDT", "7m") is None
    with pytest.raises(SegmentError) as caught:
        reader.expect("BTC/USDT", "7m")
    assert str(caught.value) == (
        f"no series BTC/USDT 7m: segment {path} holds BTC/USDT by 1s, 5m only; its feed adds what a Trader's spec.market "
        "asks for: if it doesn't, set spec.market.interval to one of these"
    )


def test_an_unknown_series_is_told_with_the_symbols_that_are_there(reader: SegmentReader) -> None:
    assert reader.series("DOGE/USDT", "1s") is None
    with pytest.raises(SegmentError, match="no DOGE/USDT, but BTC/USDT, ETH/USDT; its feed adds"):
        reader.expect("DOGE/USDT", "1s")


def test_of_a_thousand_symbols_a_few_are_named(path: str) -> None:
    with SegmentWriter.create(path, rows=2, series=50, guard_rows=1, bells=1) as writer:
        for number in range(50):
            writer.add_series(f"S{number:02}", "1m")
        with pytest.raises(SegmentError, match="but S00, S01, S02, …; its feed adds"):
            SegmentReader.open(path).expect("X", "1m")


def test_an_empty_segment_says_so(path: str) -> None:
    SegmentWriter.create(path, rows=2, series=1, guard_rows=1, bells=1).close(unlink=False)
    with pytest.raises(SegmentError, match="holds no series yet; "):
        SegmentReader.open(path).expect("X", "1m")


@pytest.mark.parametrize("version", [1, _native.LAYOUT_VERSION + 1])
def test_a_segment_of_another_version_says_both_and_what_to_run(path: str, version: int) -> None:
    SegmentWriter.create(path, rows=2, series=1, guard_rows=1, bells=1).close(unlink=False)
    words = bytearray(Path(path).read_bytes()[: _native.HEADER_CHECKSUM])
    struct.pack_into("<Q", words, _native.HEADER_VERSION, version)
    with open(path, "r+b") as file:
        file.write(words + struct.pack("<Q", zlib.crc32(words)))
    with pytest.raises(SegmentError) as caught:
        SegmentReader.open(path)
    assert str(caught.value) == (
        f"segment {path}: layout version {version}; this program reads {_native.LAYOUT_VERSION}: "
        "run feed and readers of one release"
    )


def test_a_read_only_file_system_is_named_and_what_must_be_writable(tmp_path: Path) -> None:
    with mounted(tmp_path / "mount", "size=1m") as folder, read_only(folder, tmp_path / "view") as view:
        with pytest.raises(SegmentError) as caught:
            SegmentWriter.create(str(view / "segment"), rows=8, series=1, guard_rows=1)
        assert str(caught.value) == (
            f"segment {view}/segment: can't open its lock file: Read-only file system; "
            f"mount the file system of {view} writable for the feed and its supervisor"
        )
        with pytest.raises(SegmentError, match=r"can't create .*Read-only file system; mount the file system of"):
            SignalRing.create(str(view / "a.ring"), trader="ns/a")


def test_a_folder_in_the_way_of_the_file_being_built_is_an_error_of_the_segment(path: str) -> None:
    Path(path + ".new").mkdir()
    with pytest.raises(SegmentError, match=r"can't create .*segment\.new: Is a directory"):
        SegmentWriter.create(path, rows=8, series=1, guard_rows=1)


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(SegmentError, match=f"No such file or directory; make the folder {re.escape(str(tmp_path))}/x"):
        SegmentWriter.create(str(tmp_path / "x" / "segment"), rows=8, series=1, guard_rows=1)


def test_less_room_than_asked_for_says_need_rest_and_what_to_lower(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "size=64k") as folder:
        with pytest.raises(SegmentError) as caught:
            SegmentWriter.create(str(folder / "segment"), rows=1_000, series=10)
        assert str(caught.value) == (
            f"{folder}/segment.new needs 1.2 MB, 0.1 MB free in {folder}; make room, or lower the pool's "
            "segment.candles or segment.series (segment_rows, segment_series)"
        )
        with pytest.raises(SegmentError, match=r"needs 0.1 MB, .*make room or run fewer traders in this worker"):
            SignalRing.create(str(folder / "a.ring"), trader="ns/a", slots=100)
        assert [name for name in os.listdir(folder) if not name.endswith(".lock")] == []
