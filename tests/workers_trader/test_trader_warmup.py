"""What a trader waits for before its first call, and how much history a call sees."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.workers_trader.trader_stage import BTC, ETH, Stage, Tell, opens

from chandlery.core.assignment import SeriesRef
from chandlery.core.errors import StrategyError
from chandlery.workers.segment import SegmentReader, SegmentWriter
from chandlery.workers.trader.telling import LOOK_AGAIN_NS


def test_a_series_that_appears_later_is_waited_for(stage: Stage) -> None:
    player = stage.trader()
    assert player.turn() < 0.5
    assert player.state() == "Init"
    assert player.reports[-1].message.startswith(
        "waits for series BTC/USDT 1s: this worker's segment holds no series yet"
    )
    index = stage.series()
    player.settle()
    stage.close(index, 0)
    player.settle()
    assert opens(stage.signals()) == [0]


def test_a_trader_that_waits_says_what_there_is_and_what_to_change(stage: Stage) -> None:
    stage.series(BTC, "1m")
    stage.series(BTC, "5m")
    player = stage.trader(stage.spec(interval="3m"))
    player.turn()
    assert player.reports[-1].message == (
        "waits for series BTC/USDT 3m: this worker's segment holds BTC/USDT by 1m, 5m only; its feed adds what a "
        "Trader's spec.market asks for: if it doesn't, set spec.market.interval to one of these"
    )


def test_an_informative_series_that_is_missing_names_its_own_field(stage: Stage) -> None:
    stage.series()
    player = stage.trader(stage.spec(informative=[SeriesRef(ETH, "5s")]))
    player.turn()
    message = player.reports[-1].message
    assert message.startswith("waits for series ETH/USDT 5s: this worker's segment holds no ETH/USDT, but BTC/USDT;")
    assert "correct spec.market.informative" in message


def test_what_there_is_instead_is_looked_at_now_and_then_not_at_each_turn(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []
    names = SegmentReader.names

    def look(reader: SegmentReader) -> Iterator[tuple[str, str]]:
        looks.append("look")
        return names(reader)

    monkeypatch.setattr(SegmentReader, "names", look)
    player = stage.trader()
    player.turn(20)
    assert looks == ["look"]
    assert "no series yet" in player.reports[-1].message
    stage.series(ETH, "1s")
    player.turn(20)
    assert looks == ["look"]
    stage.clock.advance(LOOK_AGAIN_NS / 1e9)
    player.turn(20)
    assert looks == ["look"] * 2
    assert "holds no BTC/USDT, but ETH/USDT;" in player.reports[-1].message


def test_a_series_that_is_gone_is_told_with_what_is_left(stage: Stage) -> None:
    stage.series()
    stage.series(ETH, "1s")
    player = stage.trader()
    player.settle()
    assert player.reports[-1].message == ""
    stage.writer.remove_series(BTC, "1s")
    player.turn(3)
    assert player.reports[-1].message.startswith(
        "series BTC/USDT 1s is gone: this worker's segment holds no BTC/USDT, "
    )


def test_a_missing_segment_is_waited_for_and_named(stage: Stage, tmp_path: Path) -> None:
    stage.writer.close()
    player = stage.trader()
    player.turn(3)
    assert player.state() == "Init"
    assert "segment" in player.reports[-1].message
    stage.writer = SegmentWriter.create(stage.path, rows=256, series=8)
    stage.series()
    player.settle()
    assert player.state() == "Ready"


def cut_to(path: Path, size_bytes: int) -> None:
    os.truncate(path, size_bytes)


def overwrite(path: Path, at: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda path: cut_to(path, 0), "truncated"),
        (lambda path: cut_to(path, 100), "truncated"),
        (lambda path: cut_to(path, path.stat().st_size - 4_096), ""),
        (lambda path: overwrite(path, 0, b"\xff" * 64), ""),
        (lambda path: overwrite(path, 64, b"\xff" * 4_032), ""),
    ],
    ids=["emptied", "cut in its head", "cut in its rows", "no segment at all", "offsets of nonsense"],
)
def test_a_corrupt_segment_is_waited_over_and_named_until_the_feed_has_made_a_sound_one(
    stage: Stage, spoil: Callable[[Path], None], named: str
) -> None:
    stage.close(stage.series(), 0)
    sound = Path(stage.path).read_bytes()
    stage.writer.close()
    Path(stage.path).write_bytes(sound)
    spoil(Path(stage.path))
    player = stage.trader()
    player.turn(3)
    assert player.state() == "Init"
    assert stage.path in player.reports[-1].message
    assert named in player.reports[-1].message
    assert stage.signals() == []
    stage.writer = SegmentWriter.create(stage.path, rows=stage.rows, series=8)
    index = stage.series(session=2)
    player.settle()
    assert player.state() == "Ready"
    stage.close(index, 0, 1)
    player.settle()
    assert player.state() == "Active"
    assert opens(stage.signals())[-1] == 1


def test_a_call_sees_exactly_as_many_candles_as_it_needs_and_none_before(stage: Stage) -> None:
    seen: list[list[float]] = []
    Tell.meanwhile = lambda ctx, candles: seen.append(candles.close.tolist())
    index = stage.series()
    player = stage.trader(stage.spec(warmup=2), lambda: Tell({"rows": 3}))
    player.settle()
    assert (player.state(), player.reports[-1].warm_have, player.reports[-1].warm_need) == ("Ready", 0, 3)
    stage.close(index, 0, 1)
    player.settle()
    assert player.state() == "Ready"
    stage.close(index, 2, 3)
    player.settle()
    assert player.state() == "Active"
    assert seen == [[1.0, 2.0, 3.0], [2.0, 3.0, 4.0]]
    assert opens(stage.signals()) == [2, 3]


def test_a_manifest_can_ask_for_more_history_than_the_strategy(stage: Stage) -> None:
    index = stage.series()
    player = stage.trader(stage.spec(warmup=4), lambda: Tell({"rows": 3}))
    player.settle()
    stage.close(index, *range(5))
    player.settle()
    assert opens(stage.signals()) == [3, 4]


def test_more_history_than_the_segment_keeps_is_a_clear_error(stage: Stage) -> None:
    stage.series()
    player = stage.trader(make=lambda: Tell({"rows": 4_000}))
    with pytest.raises(StrategyError, match="needs 4000 closed candles, more than the segment keeps") as caught:
        player.turn()
    assert caught.value.reason == "BadParameter"
