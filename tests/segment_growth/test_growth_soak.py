"""Memory over a very long life: series that come and go, and a segment that grows again and again."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.harness import decode_rows
from tests.segment.segment_rows import append

from chandlery.workers.segment import SegmentReader, SegmentWriter

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="this machine has no /dev/shm")
def test_a_million_series_come_and_go_and_memory_stays_flat() -> None:
    command = [sys.executable, "-m", "benchmarks.segment_soak", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    rows = {row.name.removeprefix("segment_soak/"): row for row in decode_rows(done.stdout)}
    assert "1,000,000 cycles" in rows["rss_grown"].note
    assert {name: row.value for name, row in rows.items() if row.holds is False} == {}
    assert {"rss_grown", "objects_grown", "mappings_grown", "descriptors_grown", "file_grown"} <= rows.keys()


def held(path: str) -> tuple[int, int, int]:
    """Mappings of segments, descriptors, and living objects."""
    gc.collect()
    maps = [line for line in Path("/proc/self/maps").read_text().splitlines() if path in line]
    return len(maps), len(os.listdir("/proc/self/fd")), len(gc.get_objects())


def test_a_segment_that_grows_again_and_again_leaves_nothing_of_the_files_before(tmp_path: Path) -> None:
    path = str(tmp_path / "segment")
    with SegmentWriter.create(path, rows=16, series=1, guard_rows=2, bells=2, stamp_rows=4) as writer:
        first = SegmentReader.open(path)
        looked: list[tuple[int, int, int]] = []
        for number in range(120):
            append(writer, writer.add_series(f"S{number}/USDT", "1s"), 0, 0)
            for _ in writer.grow(writer.capacity + 1):
                pass
            with SegmentReader.open(path) as reader:
                assert len(reader.info()["series"]) == number + 1
            if number % 40 == 39:
                looked.append(held(path))
        # One file is written; of all the others only the one that somebody still reads is mapped.
        assert [mappings for mappings, _, _ in looked] == [2, 2, 2]
        assert looked[0][1] == looked[1][1] == looked[2][1]
        assert looked[2][2] - looked[1][2] < 100
        assert first.superseded
        first.close()
        gc.collect()
        assert held(path)[0] == 1
    assert os.listdir(tmp_path) == []
