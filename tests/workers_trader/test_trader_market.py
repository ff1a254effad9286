"""A trader's way to the segment while the file changes hands."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from chandlery.workers.segment import SegmentReader, SegmentWriter, _native
from chandlery.workers.trader.market import SegmentMarket
from chandlery.workers.trader.pipe_market import PipeMarket


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


class Moments:
    """A clock that goes on while somebody sleeps, and does then what is due."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1_000.0
        self.looks = 0
        self.slept_s = 0.0
        self.due_s = float("inf")
        self.due: Callable[[], object] = lambda: None
        monkeypatch.setattr(time, "monotonic", lambda: self.now_s)
        monkeypatch.setattr(time, "sleep", self._sleep)

    def after(self, seconds: float, do: Callable[[], object]) -> None:
        self.due_s, self.due = self.now_s + seconds, do

    def _sleep(self, seconds: float) -> None:
        self.looks += 1
        self.slept_s = seconds
        if self.now_s + seconds >= self.due_s:
            self.due_s = float("inf")
            self.due()
        self.now_s += seconds


@pytest.mark.parametrize(
    ("gone_ms", "late_ms", "looks"), [(0.5, 1, 1), (10, 1, 11), (100, 7, 50), (1_000, 50, 100), (60_000, 50, 1_300)]
)
def test_a_segment_that_is_gone_is_looked_for_often_at_first_and_then_seldom(
    path: str, monkeypatch: pytest.MonkeyPatch, gone_ms: float, late_ms: float, looks: int
) -> None:
    """Found at most a 16th of the time late that it was gone, and never looked for more often than every 50 ms for long."""
    first = SegmentWriter.create(path, rows=8, series=1, guard_rows=1)
    market = SegmentMarket(path, 0)
    moments = Moments(monkeypatch)
    made: list[SegmentWriter] = []
    moments.after(gone_ms / 1_000, lambda: made.append(SegmentWriter.create(path, rows=8, series=1, guard_rows=1)))
    came_s = moments.due_s
    first.close()
    while not made or market.trouble:
        token = market.token()
        market.refresh()
        market.wait(token, 0.5 if market.trouble else 0.0)
    assert moments.now_s - came_s <= late_ms / 1_000 + 1e-9
    assert moments.looks <= looks
    made.pop().close()


def test_a_feed_that_serves_no_windows_is_asked_often_at_first_and_then_seldom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = Moments(monkeypatch)
    market = PipeMarket(str(tmp_path / "windows.sock"), "desk/a@1")
    for until_s, most in ((1_000.01, 11), (1_010.0, 300)):
        while moments.now_s < until_s:
            market.refresh()
            assert market.trouble
            market.wait(market.token(), 0.5)
        assert moments.looks <= most
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "windows.sock"))
        listener.listen()
        market.refresh()
        assert market.trouble == "", "right after its wait"
        refused, looks = listener.accept()[0], moments.looks
        refused.close()
        market.wait(market.token(), 0.5)
        assert market.trouble
        market.wait(market.token(), 0.5)
        market.refresh()
        assert (market.trouble, moments.looks) == ("", looks + 1)
        assert moments.slept_s == pytest.approx(0.1), "who isn't known there asks no more often"
