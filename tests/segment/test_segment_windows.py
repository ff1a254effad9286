"""Windows as a trader uses them: whole or refused, without copies, and safe to keep."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.segment.segment_rows import append, flaw, row, stamps

from chandlery.workers.segment import SegmentError, SegmentReader, SegmentWriter, SeriesReader

ROWS, GUARD = 16, 4


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "segment")


@pytest.fixture
def writer(path: str) -> Iterator[SegmentWriter]:
    with SegmentWriter.create(path, rows=ROWS, series=3, guard_rows=GUARD, bells=2, stamp_rows=4) as writer:
        yield writer


def filled(writer: SegmentWriter, path: str, count: int) -> tuple[int, SeriesReader]:
    index = writer.add_series("BTC/USDT", "1s")
    for ordinal in range(count):
        append(writer, index, 0, ordinal)
    series = SegmentReader.open(path).series("BTC/USDT", "1s")
    assert series is not None
    return index, series


def test_a_window_stays_valid_until_the_guard_is_used_up(writer: SegmentWriter, path: str) -> None:
    index, series = filled(writer, path, 40)
    window = series.window(40, ROWS - GUARD)
    for ordinal in range(40, 40 + GUARD):
        append(writer, index, 0, ordinal)
        assert series.valid(window), f"overwritten by row {ordinal}, within the guard"
        assert flaw(window) == ""
    append(writer, index, 0, 40 + GUARD)
    assert not series.valid(window)
    assert series.lapped(window.begin)
    assert not series.lapped(window.begin + 1)


def test_every_window_is_contiguous_wherever_the_ring_wraps(writer: SegmentWriter, path: str) -> None:
    index, series = filled(writer, path, 0)
    for ordinal in range(3 * ROWS):
        append(writer, index, 0, ordinal)
        window = series.window(series.count, ROWS - GUARD)
        assert flaw(window) == ""
        assert window.close.flags.c_contiguous
        assert series.valid(window)


def test_views_share_memory_and_refuse_writes(writer: SegmentWriter, path: str) -> None:
    _, series = filled(writer, path, 10)
    window, again = series.window(10, 5), series.window(10, 5)
    assert np.shares_memory(window.close, again.close)
    with pytest.raises(ValueError, match="read-only"):
        window.close[0] = 1.0
    with pytest.raises(ValueError):
        window.close.flags.writeable = True


def test_a_kept_array_outlives_window_series_reader_and_file(path: str) -> None:
    with SegmentWriter.create(path, rows=ROWS, series=1, guard_rows=GUARD) as writer:
        _, series = filled(writer, path, 10)
        reader = SegmentReader.open(path)
        again = reader.series("BTC/USDT", "1s")
        assert again is not None
        window = again.window(10, 10)
        kept = window.close
        expected = kept.tolist()
        reader.close()
        assert again.valid(window), "a series stays readable after its reader is closed"
    del window, again, series, reader
    gc.collect()
    assert not Path(path).exists()
    assert kept.tolist() == expected
    assert kept.sum() == sum(expected)


def test_a_closed_reader_refuses_everything_but_close(writer: SegmentWriter, path: str) -> None:
    reader = SegmentReader.open(path)
    reader.close()
    reader.close()
    for use in (
        lambda: reader.series("BTC/USDT", "1s"),
        lambda: reader.bell(0),
        lambda: reader.wait(0, 0, 0.0),
        lambda: reader.superseded,
        reader.info,
        reader.writer_heartbeat_ns,
    ):
        with pytest.raises(SegmentError, match="closed"):
            use()


def test_a_closed_writer_refuses_everything_but_close(path: str) -> None:
    writer = SegmentWriter.create(path, rows=ROWS, series=1, guard_rows=1)
    index = writer.add_series("BTC/USDT", "1s")
    writer.close()
    writer.close()
    for use in (
        lambda: append(writer, index, 0, 0),
        lambda: writer.revise(index, *row(0, 0)),
        lambda: writer.set_forming(index, *row(0, 0), stamps(0, 0)),
        lambda: writer.clear_forming(index),
        lambda: writer.reset(index, 1),
        lambda: writer.ring(0),
        lambda: writer.ring_many([0]),
        lambda: writer.add_series("A", "1s"),
        lambda: writer.remove_series("A", "1s"),
        writer.heartbeat,
        writer.info,
    ):
        with pytest.raises(SegmentError, match="closed"):
            use()


@pytest.mark.parametrize(("end", "length"), [(5, ROWS - GUARD + 1), (-1, 3), (3, -1), (1 << 63, 3), (3, 1 << 64)])
def test_nonsense_windows_are_refused(writer: SegmentWriter, path: str, end: int, length: int) -> None:
    _, series = filled(writer, path, 5)
    with pytest.raises(SegmentError, match="window"):
        series.window(end, length)
    with pytest.raises(SegmentError, match="prepare"):
        series.prepare(end, length)


def test_a_window_prepared_before_its_last_row_is_there_shows_that_row(writer: SegmentWriter, path: str) -> None:
    index, series = filled(writer, path, 5)
    series.prepare(6, 3)
    assert (series.window(6, 3).begin, series.window(6, 3).end) == (2, 5)  # not there yet: what is, as ever
    series.prepare(6, 3)
    append(writer, index, 0, 5)
    window = series.window(6, 3)
    assert (window.begin, window.end) == (3, 6)
    assert flaw(window) == ""
    assert series.valid(window)
    again = series.window(6, 3)
    assert again is not window  # handed out once
    assert flaw(again) == ""


def test_a_window_prepared_before_a_reset_shows_the_rows_after_it(writer: SegmentWriter, path: str) -> None:
    index, series = filled(writer, path, 5)
    series.prepare(3, 3)
    writer.reset(index, 2)
    for ordinal in range(3):
        append(writer, index, 2, ordinal)
    window = series.window(3, 3)
    assert window.session == 2
    assert flaw(window) == ""
    assert series.valid(window)


def test_a_prepared_window_whose_rows_are_gone_is_not_handed_out(writer: SegmentWriter, path: str) -> None:
    index, series = filled(writer, path, 5)
    series.prepare(6, 6)
    for ordinal in range(5, 5 + ROWS):
        append(writer, index, 0, ordinal)
    assert len(series.window(6, 6)) == 0


def test_a_window_of_something_else_is_no_window(writer: SegmentWriter, path: str) -> None:
    _, series = filled(writer, path, 5)
    with pytest.raises(TypeError, match="takes a window"):
        series.valid(None)  # type: ignore[arg-type]


def test_a_window_that_ends_before_what_is_left_is_empty(writer: SegmentWriter, path: str) -> None:
    _, series = filled(writer, path, 40)
    assert len(series.window(series.first(), 5)) == 0
    assert len(series.window(series.first() + 2, 5)) == 2
    assert len(series.window(100, 3)) == 3


def test_removal_and_reuse_of_a_record_end_the_old_series(writer: SegmentWriter, path: str) -> None:
    index, series = filled(writer, path, 10)
    window = series.window(10, 10)
    writer.remove_series("BTC/USDT", "1s")
    assert not series.alive
    assert not series.valid(window)
    assert writer.add_series("ETH/USDT", "1m") == index, "the record is reused"
    append(writer, index, 0, 0)
    writer.set_forming(index, *row(0, 1), stamps(0, 1))
    assert not series.alive
    assert series.forming() is None
    assert series.stamps(0) is None
    assert not series.valid(series.window(1, 1))


def test_first_rows_that_came_of_trades_and_that_came_as_it_happened_are_named(
    writer: SegmentWriter, path: str
) -> None:
    index, series = filled(writer, path, 0)
    for ordinal in range(3):
        append(writer, index, 0, ordinal, backfill=True)
    assert (series.traded_from_ms, series.live_from_ms) == (-1, -1)
    append(writer, index, 0, 3, live=False)
    assert (series.traded_from_ms, series.live_from_ms) == (row(0, 3)[0], -1)
    append(writer, index, 0, 4)
    append(writer, index, 0, 5, backfill=True)
    assert (series.traded_from_ms, series.live_from_ms) == (row(0, 3)[0], row(0, 4)[0])
    writer.reset(index, 1)
    assert (series.traded_from_ms, series.live_from_ms) == (-1, -1)


def test_a_closed_candle_is_not_forming_any_more(writer: SegmentWriter, path: str) -> None:
    index, series = filled(writer, path, 3)
    writer.set_forming(index, *row(0, 3), stamps(0, 3))
    append(writer, index, 0, 3)
    assert series.forming() is None
    writer.set_forming(index, *row(0, 5), stamps(0, 5))
    append(writer, index, 0, 4)
    assert series.forming() is not None, "a later candle than the closed one goes on forming"


def test_the_forming_sequence_grows_with_each_change(writer: SegmentWriter, path: str) -> None:
    index, series = filled(writer, path, 0)
    sequences = []
    for version in range(5):
        writer.set_forming(index, *row(0, 0, version), stamps(0, 0))
        forming = series.forming()
        assert forming is not None
        assert forming.trades == version
        sequences.append(forming.sequence)
    assert sequences == sorted(set(sequences))


@pytest.mark.parametrize("series", [-1, 1, 3, 1 << 40])
def test_writing_to_a_series_not_in_use_is_refused(writer: SegmentWriter, path: str, series: int) -> None:
    filled(writer, path, 1)
    with pytest.raises(SegmentError, match="not in use"):
        append(writer, series, 0, 5)


def test_bad_values_are_refused_and_change_nothing(writer: SegmentWriter, path: str) -> None:
    index, series = filled(writer, path, 1)
    good = row(0, 5)
    with pytest.raises(SegmentError, match="8 integers"):
        writer.append(index, *good, (1, 2, 3))
    with pytest.raises(SegmentError, match="before the epoch"):
        writer.append(index, -5, *good[1:], stamps(0, 0))
    with pytest.raises(TypeError):
        writer.append(index, good[0], "x", *good[2:], stamps(0, 0))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        writer.append(index, *good)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        writer.append(index, *good, stamps(0, 0), False, series=1)  # type: ignore[misc]
    with pytest.raises(OverflowError):
        writer.append(index, 1 << 64, *good[1:], stamps(0, 0))
    assert series.count == 1
    assert flaw(series.window(1, 1)) == ""


def test_arguments_may_be_named(writer: SegmentWriter, path: str) -> None:
    index, series = filled(writer, path, 0)
    writer.append(
        series=index,
        open_time_ms=0,
        open=0.0,
        high=0.5,
        low=-0.5,
        close=-0.0,
        volume=0.0,
        trades=0,
        stamps=stamps(0, 0),
        backfill=True,
    )
    assert flaw(series.window(1, 1)) == ""
    assert series.live_from_ms == -1


@pytest.mark.parametrize(
    ("symbol", "interval"), [("", "1s"), ("B" * 64, "1s"), ("BTC/USDT", ""), ("BTC/USDT", "1" * 16), ("A\0B", "1s")]
)
def test_impossible_names_are_refused_on_both_sides(
    writer: SegmentWriter, path: str, symbol: str, interval: str
) -> None:
    with pytest.raises(SegmentError, match="bytes are possible"):
        writer.add_series(symbol, interval)
    with pytest.raises(SegmentError, match="bytes are possible"):
        SegmentReader.open(path).series(symbol, interval)


def test_the_longest_names_are_kept_whole(writer: SegmentWriter, path: str) -> None:
    symbol, interval = "Ü" * 31 + "X", "9" * 15
    writer.add_series(symbol, interval)
    assert SegmentReader.open(path).series(symbol, interval) is not None
    assert SegmentReader.open(path).series(symbol[:-1], interval) is None
    assert [one["symbol"] for one in writer.info()["series"]] == [symbol]
