"""A feed looks whether its segment still is what it wrote; where it isn't, it ends and says what somebody has done to it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.workers_feed.feed_setup import DEADLINE_S, feed_settings
from tests.workers_feed.series_stage import SeriesStage

from chandlery.core.assignment import SeriesRef
from chandlery.core.errors import SegmentError, SpoiledError
from chandlery.core.settings import KafkaSettings
from chandlery.workers.feed import soundness
from chandlery.workers.feed.service import Feed
from chandlery.workers.feed.soundness import Soundness

SERIES = [SeriesRef(f"{name}/USDT", "1m") for name in ("BTC", "ETH", "SOL")]
ROWS = 100


def store(path: str, at: int, content: bytes) -> None:
    with Path(path).open("r+b") as file:
        file.seek(at)
        file.write(content)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[SeriesStage]:
    made = SeriesStage(tmp_path, first=4, rows=ROWS)
    made.follow(*SERIES)
    yield made
    made.end()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: os.truncate(path, path.stat().st_size // 2),
        lambda path: path.unlink(),
        lambda path: store(str(path), 16, b"\xff"),
    ],
    ids=["truncated", "removed", "overwritten"],
)
async def test_a_feed_whose_segment_is_spoiled_ends_to_be_started_again(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    settings = feed_settings(tmp_path, KafkaSettings("127.0.0.1:1", "f"))
    segment = Path(settings.shm_dir) / "segment"
    feed = Feed(settings)
    try:
        await feed.start()
        running = asyncio.create_task(feed.run(asyncio.Event()))
        spoil(segment)
        with pytest.raises(SpoiledError, match=f"^segment {segment}: .*, not by this feed; it is made anew$") as raised:
            await asyncio.wait_for(running, DEADLINE_S)
    finally:
        await feed.stop()
    assert raised.value.exit_code == 4, "3 would be tried again after 10 s only"
    assert not segment.exists()
    again = Feed(settings)
    try:
        await again.start()
        assert segment.exists()
    finally:
        await again.stop()


def test_every_series_and_row_has_its_turn(stage: SeriesStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soundness, "SERIES_A_LOOK", 2)
    monkeypatch.setattr(soundness, "ROWS_A_LOOK", 40)
    for ref in SERIES:
        stage.close(ref, ROWS)
    looks = Soundness(stage.writer, stage.board)

    def all_have_had_their_turn() -> None:
        for _ in range(2 * 3):  # two looks for three series, three for a hundred rows
            looks.look_inside()

    all_have_had_their_turn()
    held = stage.board.held()[2]
    geometry = stage.writer._header.geometry
    close_of_row_90 = geometry.data_offset + held.place * geometry.block_bytes + 4 * geometry.column_bytes + 90 * 8
    store(stage.path, close_of_row_90, b"\xaa")
    with pytest.raises(SpoiledError, match="rows of series SOL/USDT 1m were overwritten"):
        all_have_had_their_turn()


def test_a_part_that_fails_for_the_segment_is_told_as_that(stage: SeriesStage) -> None:
    looks = Soundness(stage.writer, stage.board)
    failure, other = SegmentError("series 0 is not in use"), ValueError("another")
    assert looks.cause(failure) is failure
    assert looks.cause(other) is other
    os.truncate(stage.path, stage.writer.file_bytes - 4_096)
    assert looks.cause(other) is other
    found = looks.cause(failure)
    assert isinstance(found, SpoiledError)
    assert "truncated to" in str(found)
