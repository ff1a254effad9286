"""The layout: its size, and that docs/segment.md says what layout.h has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chandlery.workers.segment import COLUMNS, STAMPS, Geometry, SegmentError, SignalRing, _native

DOCUMENT = Path(__file__).parents[2] / "docs" / "segment.md"
#: Constants that are no place in a file.
SIZES = {
    "HEADER_BYTES",
    "RECORD_BYTES",
    "RING_VERSION",
    "RING_OLDEST_VERSION",
    "RING_HEADER_BYTES",
    "RING_TRADER_BYTES",
    "RING_UID_BYTES",
    "RING_COUNTER_COUNT",
    "RING_MAGIC",
    "POSITION_COUNT",
    "POSITION_BYTES",
}


def test_the_document_names_every_offset_and_each_rightly() -> None:
    told = {name: int(offset) for offset, name in re.findall(r"^\| (\d+) \| `(\w+)`", DOCUMENT.read_text(), re.M)}
    places = {
        name: getattr(_native, name)
        for name in dir(_native)
        if name.startswith(("HEADER_", "RECORD_", "RING_", "POSITION_")) and name not in SIZES
    }
    assert told == places


def test_five_hundred_series_of_a_thousand_rows_fit_in_sixty_megabytes() -> None:
    geometry = Geometry.derive(rows=1_000, guard_rows=64, series=500, bells=256, stamp_rows=64)
    assert geometry.file_bytes <= 60_000_000


@pytest.mark.parametrize("rows", [2, 7, 64, 1_000, 1_024])
@pytest.mark.parametrize("series", [1, 3, 500])
def test_parts_lie_on_lines_and_do_not_overlap(rows: int, series: int) -> None:
    g = Geometry.derive(rows=rows, guard_rows=1, series=series, bells=5, stamp_rows=min(rows, 64))
    ends = [
        (g.bells_offset, _native.HEADER_BYTES),
        (g.hash_offset, g.bells_offset + g.bells * _native.BELL_BYTES),
        (g.records_offset, g.hash_offset + g.hash_slots * _native.WORD_BYTES),
        (g.data_offset, g.records_offset + g.series * _native.RECORD_BYTES),
        (g.file_bytes, g.data_offset + g.series * g.block_bytes),
    ]
    for begin, end_before in ends:
        assert begin >= end_before
        assert begin % 64 == 0
    assert g.column_bytes >= 2 * rows * 8
    assert g.block_bytes >= len(COLUMNS) * g.column_bytes + g.stamp_rows * len(STAMPS) * 8
    assert g.hash_slots >= 2 * series
    assert g.hash_slots & (g.hash_slots - 1) == 0


def test_columns_of_a_power_of_two_do_not_share_cache_sets() -> None:
    g = Geometry.derive(rows=1_024, guard_rows=64, series=1, bells=1, stamp_rows=64)
    assert len({column * g.column_bytes % 4_096 for column in range(len(COLUMNS))}) == len(COLUMNS)


def test_names_and_cells_agree_with_the_layout() -> None:
    assert len(COLUMNS) == _native.COLUMN_COUNT
    assert len(STAMPS) == _native.STAMP_COUNT
    assert len(SignalRing.COUNTERS) == _native.RING_COUNTER_COUNT


@pytest.mark.parametrize(("offset", "length"), [(-8, 8), (4_096, 1), (0, 4_097), (4_095, 2), (1 << 62, 1 << 62)])
def test_nothing_outside_a_mapping_can_be_touched(tmp_path: Path, offset: int, length: int) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"\0" * 4_096)
    with file.open("r+b") as opened:
        mapping = _native.Mapping(opened.fileno(), 4_096, True)
    with pytest.raises(SegmentError, match="not within"):
        mapping.read(offset, length)
    with pytest.raises(SegmentError, match="not within"):
        mapping.populate(offset, length)
    if length < 1 << 20:
        with pytest.raises(SegmentError, match="not within"):
            mapping.write(offset, b"x" * length)


@pytest.mark.parametrize("offset", [-8, 4, 4_092, 4_096])
def test_words_outside_or_askew_are_refused(tmp_path: Path, offset: int) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"\0" * 4_096)
    with file.open("r+b") as opened:
        mapping = _native.Mapping(opened.fileno(), 4_096, True)
    for use in (
        lambda: mapping.load(offset),
        lambda: mapping.store(offset, 1),
        lambda: mapping.add(offset, 1),
    ):
        with pytest.raises(SegmentError):
            use()
    assert file.read_bytes() == b"\0" * 4_096


def test_a_read_only_mapping_refuses_writes(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"\0" * 4_096)
    with file.open("rb") as opened:
        mapping = _native.Mapping(opened.fileno(), 4_096, False)
    for use in (lambda: mapping.store(0, 1), lambda: mapping.add(0, 1), lambda: mapping.write(0, b"x")):
        with pytest.raises(SegmentError, match="read-only"):
            use()
    assert memoryview(mapping).readonly


def test_a_view_attached_to_too_small_a_mapping_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"\0" * 4_096)
    with file.open("r+b") as opened:
        mapping = _native.Mapping(opened.fileno(), 4_096, True)
    numbers = Geometry.derive(rows=8, guard_rows=1, series=1, bells=1, stamp_rows=1).numbers
    for make in (
        lambda: _native.Writer(mapping, numbers),
        lambda: _native.Reader(mapping, numbers),
        lambda: _native.Series(mapping, numbers, 0, 1),
    ):
        with pytest.raises(SegmentError, match="4096 are mapped"):
            make()


def test_a_view_that_was_never_attached_refuses_use() -> None:
    """Made without __init__, as a subclass may do by mistake."""
    writer = _native.Writer.__new__(_native.Writer)
    reader = _native.Reader.__new__(_native.Reader)
    series = _native.Series.__new__(_native.Series)
    for use in (
        lambda: writer.ring(0),
        lambda: writer.heartbeat(),
        lambda: reader.bell(0),
        lambda: reader._find("A", "1s"),
        lambda: series.count,
        lambda: series.first(),
        lambda: series.stamps(0),
        lambda: series.window(0, 0),
        lambda: series.prepare(0, 0),
    ):
        with pytest.raises(SegmentError, match="closed"):
            use()
