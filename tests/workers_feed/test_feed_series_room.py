"""Series that come, stay for their grace, go, and have the segment grow."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.workers_feed.feed_setup import until
from tests.workers_feed.series_stage import GRACE_S, SeriesStage, closes

from chandlery.core.assignment import MOST_INCARNATIONS, SeriesRef
from chandlery.workers.feed.growing import SPARE_BYTES, capacity_for
from chandlery.workers.segment import SegmentError, SegmentReader, placement
from chandlery.workers.segment import writer as writer_module
from chandlery.workers.segment.layout import Geometry


def refs(*names: str) -> list[SeriesRef]:
    return [SeriesRef(f"{name}/USDT", "1m") for name in names]


A, B, C, D, E, F, G, H, EXTRA = refs(*"ABCDEFGHI")


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[SeriesStage]:
    made = SeriesStage(tmp_path)
    yield made
    made.end()
    assert not made.failures
    assert not made.refused


def test_a_series_that_nobody_reads_stays_warm_until_its_grace_is_over(stage: SeriesStage) -> None:
    stage.follow(A, B)
    stage.close(A, 3)
    stage.follow(B)
    stage.close(A, 2)
    stage.now_s += GRACE_S - 1
    stage.follower.each_second()
    assert stage.in_segment() == {A, B}
    stage.follow(A, B)  # comes back: nothing to catch up, and no candle of the time between is missing
    assert stage.catchup.started == [A, B]
    with SegmentReader.open(stage.path) as reader:
        series = reader.series(A.symbol, A.interval)
        assert series is not None
        assert closes(series) == [0, 1, 2, 3, 4]
    stage.now_s += 2 * GRACE_S
    stage.follower.each_second()
    assert stage.in_segment() == {A, B}, "it is read again: its grace is over and forgotten"
    stage.follow(B)
    stage.now_s += GRACE_S
    stage.follower.each_second()
    assert stage.in_segment() == {B}
    assert set(stage.board.tracks) == {B}
    assert stage.follower.room()["series_freed"] == 1


def test_grace_counts_from_when_the_last_trader_left_not_from_later_assignments(stage: SeriesStage) -> None:
    stage.follow(A, B)
    stage.follow(B)
    for _ in range(6):
        stage.now_s += GRACE_S / 6
        stage.follow(B)
    stage.follower.each_second()
    assert stage.in_segment() == {B}


def test_nobody_is_rung_for_a_series_in_its_grace(stage: SeriesStage) -> None:
    stage.follow(A, B)
    stage.close(A)
    assert stage.router.take_rung() == {0, 1}  # both have joined, and A has closed
    stage.follow(B)
    stage.close(A)
    assert stage.router.take_rung() == set()
    stage.close(B)
    assert stage.router.take_rung() == {0}


def test_what_is_freed_is_forgotten_everywhere(stage: SeriesStage) -> None:
    stage.follow(A)
    stage.router.take_rung()
    partitions = set(stage.consumer.partitions)
    assert len(partitions) == 1
    stage.follow()
    assert stage.consumer.partitions == partitions, "it is consumed as long as it is kept warm"
    stage.now_s += GRACE_S
    stage.follower.each_second()
    assert stage.consumer.partitions == set()
    assert (stage.board.tracks, len(stage.board.grace)) == ({}, 0)
    stage.close(A)
    assert stage.router.take_rung() == set()
    assert stage.follower.figures()["series"] == 0
    assert stage.changes_told == 1


async def test_a_full_segment_first_frees_what_nobody_reads_the_oldest_first(tmp_path: Path) -> None:
    stage = SeriesStage(tmp_path, first=3, most=8)
    stage.follow(A, B, C)
    stage.follow(B, C)
    stage.now_s += 1
    stage.follow(C)
    stage.now_s += 1
    stage.follow(C, D)
    assert stage.in_segment() == {B, C, D}
    assert stage.writer.generation == 1
    stage.follow(C, D, E)
    assert stage.in_segment() == {C, D, E}
    assert stage.follower.room()["growths"] == 0
    stage.end()


async def test_a_full_segment_grows_and_the_waiting_series_come_in(stage: SeriesStage) -> None:
    stage.follow(A, B)
    stage.close(A, 3)
    with SegmentReader.open(stage.path) as before:
        series = before.series(A.symbol, A.interval)
        assert series is not None
        stage.follow(A, B, C)
        assert stage.board.waiting == [C]
        assert stage.follower.figures()["refused_series"] == {}
        stage.close(A)  # while it grows
        await until("grown", lambda: stage.writer.capacity == 4)
        assert before.superseded
        stage.close(A)  # afterwards
        assert closes(series) == [0, 1, 2, 3]
    assert stage.in_segment() == {A, B, C}
    assert (stage.board.waiting, stage.growths_told, stage.changes_told) == ([], 1, 1)
    with SegmentReader.open(stage.path) as after:
        series = after.series(A.symbol, A.interval)
        assert series is not None
        assert closes(series) == [0, 1, 2, 3, 4]
    stage.close(C)
    assert stage.router.take_rung() == {0, 1, 2}
    assert stage.counts["segment_growths"] == 1


async def test_it_grows_once_for_many_and_again_for_those_that_come_meanwhile(stage: SeriesStage) -> None:
    stage.follow(A, B, C)
    stage.follow(A, B, C, D, E, F, G)
    await until("all in", lambda: stage.in_segment() == {A, B, C, D, E, F, G})
    assert stage.writer.capacity == 8
    assert stage.follower.room()["growths"] == 2


async def test_series_beyond_the_most_are_refused_and_come_in_when_others_go(stage: SeriesStage) -> None:
    stage.follow(A, B, C, D, E, F, G, H, EXTRA)
    await until("all that there may be", lambda: len(stage.in_segment()) == 8)
    refused = stage.follower.figures()["refused_series"]
    assert set(refused) == {"I/USDT 1m"}
    assert "all 8 series" in refused["I/USDT 1m"]
    assert "spec.segment.series" in refused["I/USDT 1m"]
    stage.follow(B, C, D, E, F, G, H, EXTRA)
    assert stage.follower.figures()["refused_series"] == {}
    assert stage.in_segment() == {B, C, D, E, F, G, H, EXTRA}
    assert stage.counts["series_refused"] == 1


async def test_without_room_it_is_refused_by_name_and_comes_in_once_there_is_room(
    stage: SeriesStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    free_bytes = SPARE_BYTES
    monkeypatch.setattr(placement, "free_bytes", lambda _path: free_bytes)
    stage.follow(A, B, C)
    await until("refused", lambda: C in stage.board.refused)
    why = stage.follower.figures()["refused_series"]["C/USDT 1m"]
    assert "can't grow" in why
    assert "spec.segment.candles" in why
    for _ in range(3):  # tried each second, told once
        stage.follower.each_second()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert C in stage.board.refused
    assert (stage.counts["series_refused"], stage.changes_told) == (1, 1)
    assert sorted(os.listdir(Path(stage.path).parent)) == ["segment", "segment.lock"]
    free_bytes = 1 << 30
    stage.follower.each_second()
    await until("in", lambda: stage.in_segment() == {A, B, C})
    assert stage.follower.figures()["refused_series"] == {}


async def test_a_refusal_is_told_once_though_what_is_free_changes_from_look_to_look(
    stage: SeriesStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def free_bytes(_path: str) -> int:
        nonlocal looks
        looks += 1
        return looks * 100_000

    monkeypatch.setattr(placement, "free_bytes", free_bytes)
    stage.follow(A, B, C)
    await until("refused", lambda: C in stage.board.refused)
    why = stage.board.refused[C]
    for _ in range(3):
        before = looks
        stage.follower.each_second()
        await until("looked again", lambda: looks > before)  # noqa: B023 - asked within this round
        await asyncio.sleep(0)
    assert stage.board.refused == {C: why}
    assert stage.changes_told == 1


async def test_where_doubling_has_no_room_it_grows_to_what_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = SeriesStage(tmp_path, first=4, most=64)
    five = stage.writer.file_bytes * 5 // 4 + 4096
    monkeypatch.setattr(placement, "free_bytes", lambda _path: five + SPARE_BYTES)
    stage.follow(A, B, C, D, E)
    await until("all in", lambda: stage.in_segment() == {A, B, C, D, E})
    assert stage.writer.capacity == 5
    stage.end()


async def test_a_growth_cut_short_by_the_end_leaves_no_file(stage: SeriesStage) -> None:
    stage.follow(A, B, C)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert os.path.exists(stage.path + ".new")
    await stage.follower.stop()
    assert not os.path.exists(stage.path + ".new")
    assert stage.writer.capacity == 2


async def test_once_it_ends_it_grows_no_more_for_what_still_waits(stage: SeriesStage) -> None:
    stage.follow(A, B, C)
    await stage.follower.stop()
    stage.follower.each_second()  # while the rings are drained
    for _ in range(3):
        await asyncio.sleep(0)
    assert not os.path.exists(stage.path + ".new")
    assert (stage.board.waiting, stage.writer.capacity) == ([C], 2)


@pytest.mark.parametrize(
    ("needed", "expected"), [(0, 64), (64, 64), (65, 128), (129, 256), (300, 512), (512, 512), (513, 600), (9_999, 600)]
)
def test_capacities_double_up_to_the_most(needed: int, expected: int) -> None:
    assert capacity_for(needed, 64, 600) == expected


def test_a_pool_with_few_series_begins_with_these() -> None:
    assert capacity_for(0, 64, 9) == 9


def test_a_segment_that_could_never_grow_to_its_most_is_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "total_bytes", lambda _path: 64_000_000)  # Docker's default
    with pytest.raises(SegmentError, match=r"may need 9.* MB for 8192 series .* 64.0 MB in all; .*segment_series"):
        SeriesStage(tmp_path, first=2, most=8192, rows=100_000)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("beside", "expected"), [(-1, 8), (0, 2)])
def test_where_it_fits_but_could_not_grow_it_begins_with_room_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: int, expected: int
) -> None:
    whole = Geometry.derive(rows=100, guard_rows=64, series=8, bells=MOST_INCARNATIONS, stamp_rows=64).file_bytes
    monkeypatch.setattr(writer_module, "total_bytes", lambda _path: 2 * whole + SPARE_BYTES + beside)
    stage = SeriesStage(tmp_path, first=2, most=8)
    assert stage.writer.capacity == expected
    stage.end()
