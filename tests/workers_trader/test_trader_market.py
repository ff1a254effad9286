"""A trader's way to the segment while the file changes hands."""

from __future__ import annotations

from pathlib import Path

import pytest

from chandlery.workers.segment import SegmentReader, SegmentWriter, _native
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


def test_a_token_of_the_file_before_is_no_reason_to_sleep(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[int] = []
    with SegmentWriter.create(path, rows=8, series=1, guard_rows=1) as first:
        first.ring(0)
        market = SegmentMarket(path, 0)
        token = market.token()
    # Turned round twice: the first file's closing, its successor's coming. Then the reader looks at its series.
    assert market.refresh()
    with SegmentWriter.create(path, rows=8, series=1, guard_rows=1) as second:
        assert market.refresh()
        second.ring(0)  # after the look; and the bell now stands where the other file's stood
        assert SegmentReader.open(path).bell(0) == token
        monkeypatch.setattr(SegmentReader, "wait", lambda _reader, _bell, seen, _timeout_s: waited.append(seen))
        market.wait(token, 1.0)
        assert waited == []
        market.wait(market.token(), 1.0)
        assert waited == [1]
