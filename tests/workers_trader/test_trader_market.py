"""A trader's way to the segment while the file changes hands."""

from __future__ import annotations

from pathlib import Path

import pytest

from chandlery.workers.segment import SegmentWriter, _native
from chandlery.workers.trader.market import SegmentMarket


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "segment")


def test_a_superseded_file_without_a_successor_is_none(path: str) -> None:
    with SegmentWriter.create(path, rows=8, series=1, guard_rows=1) as writer:
        market = SegmentMarket(path, 0)
        writer._mapped().store(_native.HEADER_SUPERSEDED, 1)
        assert market.refresh()
        assert "its successor is not there yet" in market.trouble
        assert not market.refresh()
    with SegmentWriter.create(path, rows=8, series=1, guard_rows=1):
        assert market.refresh()
        assert market.trouble == ""
