"""Adding, dropping and growing against a plain-Python oracle, with readers that follow and count every candle."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.workers_feed.feed_setup import until
from tests.workers_feed.series_stage import GRACE_S, SeriesStage

from chandlery.core.assignment import SeriesRef
from chandlery.workers.segment import SegmentReader, SeriesReader

REFS = [SeriesRef(f"S{number}/USDT", interval) for number in range(6) for interval in ("1m", "1h")]
FIRST, MOST = 2, 9


class Follower:
    """A Trader's way of reading: a position by open time, the path opened again when it is superseded."""

    def __init__(self, path: str, ref: SeriesRef) -> None:
        self._path = path
        self._ref = ref
        self._reader = SegmentReader.open(path)
        self._series: SeriesReader | None = None
        self._after_ms = -1
        self.begun_at = -1
        self.seen: list[int] = []

    def look(self) -> None:
        """Take every candle that is due, once."""
        if self._reader.superseded:
            self._reader.close()
            self._reader = SegmentReader.open(self._path)
            self._series = None
        if self._series is None or not self._series.alive:
            self._series = self._reader.series(self._ref.symbol, self._ref.interval)
        if self._series is None:
            return
        if self.begun_at < 0:
            self.begun_at, self._after_ms = self._series.count, self._series.last_open_time_ms
        for ordinal in range(self._series.find_after(self._after_ms), self._series.count):
            window = self._series.window(ordinal + 1, 1)
            assert self._series.valid(window)
            self._after_ms = int(window.open_time[0])
            self.seen.append(int(window.close[0]))

    def close(self) -> None:
        self._reader.close()


class SeriesMachine(RuleBasedStateMachine):
    """Assignments, candles, time and growths in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp(prefix="series-model-")
        self.loop = asyncio.new_event_loop()
        self.stage = SeriesStage(Path(self.folder), first=FIRST, most=MOST)
        self.wanted: dict[SeriesRef, None] = {}
        #: What was left, and when: the oldest first.
        self.left: dict[SeriesRef, float] = {}
        self.followers: dict[SeriesRef, Follower] = {}

    def teardown(self) -> None:
        self.run(self.stage.follower.stop)
        for follower in self.followers.values():
            follower.close()
        self.stage.end()
        self.loop.close()
        shutil.rmtree(self.folder)

    def run(self, work: Callable[[], object]) -> None:
        async def within() -> None:
            result = work()
            if asyncio.iscoroutine(result):
                await result

        self.loop.run_until_complete(within())

    @rule(refs=st.lists(st.sampled_from(REFS), unique=True, max_size=MOST))
    def assign(self, refs: list[SeriesRef]) -> None:
        for ref in self.wanted.keys() - set(refs):
            self.followers.pop(ref).close()
        for ref in self.stage.board.tracks:  # of those that are left at once, the one that came first
            if ref in self.wanted and ref not in refs:
                self.left[ref] = self.stage.now_s
        capacity = self.stage.writer.capacity
        # What the oracle calls left gives way, the oldest first, where there is no room.
        self.wanted = dict.fromkeys(refs)
        for ref in refs:
            self.left.pop(ref, None)
        self.run(lambda: self.stage.follow(*refs))
        for ref in refs:
            if ref not in self.followers:
                self.followers[ref] = Follower(self.stage.path, ref)
            self.followers[ref].look()
        gone = [ref for ref in self.left if ref not in self.stage.board.tracks]
        assert gone == list(self.left)[: len(gone)], "another than the oldest gave way"
        if gone:
            assert len(self.stage.board.tracks) >= capacity, "there was room"
        for ref in gone:
            del self.left[ref]

    @rule(data=st.data(), count=st.integers(1, 3))
    def close(self, data: st.DataObject, count: int) -> None:
        self.stage.close(data.draw(st.sampled_from(REFS)), count)

    @rule(seconds=st.sampled_from([1.0, GRACE_S / 2, GRACE_S]))
    def wait(self, seconds: float) -> None:
        self.stage.now_s += seconds
        self.run(self.stage.follower.each_second)
        self.left = {ref: at_s for ref, at_s in self.left.items() if at_s + GRACE_S > self.stage.now_s}

    @rule(turns=st.integers(1, 8))
    def turn(self, turns: int) -> None:
        async def turning() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)

        self.run(turning)

    @rule()
    def settle(self) -> None:
        """Let every growth end: then nothing that is wanted is missing."""

        async def settling() -> None:
            await until("all in", lambda: not self.stage.board.waiting)

        self.run(settling)
        assert self.wanted.keys() <= self.stage.board.tracks.keys()
        self.look()

    @rule()
    def look(self) -> None:
        for follower in self.followers.values():
            follower.look()

    @invariant()
    def nothing_is_missed_or_doubled(self) -> None:
        for ref, follower in self.followers.items():
            follower.look()
            if follower.begun_at >= 0:
                closed = len(self.stage.market.get(ref, ()))
                assert follower.seen == list(range(follower.begun_at, closed))

    @invariant()
    def the_segment_has_what_is_wanted_and_what_was_left(self) -> None:
        assert not self.stage.failures
        there = self.stage.board.tracks.keys()
        assert self.stage.in_segment() == set(there)
        assert there - self.wanted.keys() == self.left.keys()
        assert self.wanted.keys() - there == set(self.stage.board.waiting)
        assert len(there) <= self.stage.writer.capacity <= MOST
        assert self.stage.board.refused == {}
        for ref in there:
            track = self.stage.board.tracks[ref]
            assert track.joined
            assert bool(track.bells.closed) is (ref in self.wanted)


SeriesMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)
TestSeriesModel = SeriesMachine.TestCase
