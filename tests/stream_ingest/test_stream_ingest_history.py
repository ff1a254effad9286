"""History from files: exact, checked, shifted by whole intervals where asked for."""

from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pytest
from tests.stream_ingest.ingest_doubles import SHARED_DATA

from chandlery.core.errors import InputError
from chandlery.core.settings import HistoryFile
from chandlery.core.wire import MAX_RECORD_BYTES, encode, scaled_to_text
from chandlery.stream.ingest.history import read_history

_MINUTE = 60_000
_BEGIN = 1_509_836_520_000


def _csv(path: Path, rows: list[str], header: str = "date,open,high,low,close,volume") -> HistoryFile:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return HistoryFile("BTC/USDT", "1m", str(path))


def test_csv_candles_are_exact_at_the_least_scale(tmp_path: Path) -> None:
    file = _csv(
        tmp_path / "h.csv",
        [f"{_BEGIN},1.50,1.55,1.5,1.525,10", f"{_BEGIN + _MINUTE},1.525,1.6,1.5,1.6,0.125,".rstrip(",")],
    )
    [record] = read_history(file, 7, None)
    assert (record.symbol, record.session, record.interval, record.forming) == ("BTC/USDT", 7, "1m", False)
    assert (record.price_scale, record.quantity_scale) == (3, 3)
    assert record.open_time_ms == [_BEGIN, _BEGIN + _MINUTE]
    assert (record.open, record.high, record.low, record.close) == (
        [1500, 1525], [1550, 1600], [1500, 1500], [1525, 1600],
    )  # fmt: skip
    assert (record.volume, record.trades) == ([10_000, 125], [0, 0])


def test_times_may_be_iso_text_or_seconds_and_trades_are_taken_where_given(tmp_path: Path) -> None:
    file = _csv(
        tmp_path / "h.csv",
        [
            "2017-11-04T23:02:00+00:00,1,1,1,1,1,5",
            "2017-11-04 23:03:00,1,1,1,1,1,6",
            f"{_BEGIN // 1000 + 120},1,1,1,1,1,7",
        ],
        "date,open,high,low,close,volume,trades",
    )
    [record] = read_history(file, 7, None)
    assert record.open_time_ms == [_BEGIN, _BEGIN + _MINUTE, _BEGIN + 2 * _MINUTE]
    assert record.trades == [5, 6, 7]


def test_a_shift_moves_by_whole_intervals_to_where_the_market_begins(tmp_path: Path) -> None:
    file = _csv(tmp_path / "h.csv", [f"{_BEGIN + index * _MINUTE},1,1,1,1,1" for index in range(3)])
    market_ms = 1_723_161_255_342
    [record] = read_history(file, 7, market_ms)
    assert record.open_time_ms[-1] + _MINUTE == market_ms // _MINUTE * _MINUTE
    assert [time - record.open_time_ms[0] for time in record.open_time_ms] == [0, _MINUTE, 2 * _MINUTE]


def test_months_cannot_be_shifted(tmp_path: Path) -> None:
    file = _csv(tmp_path / "h.csv", ["2024-01-01,1,1,1,1,1"])
    file.interval = "1M"
    with pytest.raises(InputError, match="months"):
        list(read_history(file, 7, _BEGIN))


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([f"{_BEGIN},1,1,1,1,1", f"{_BEGIN},1,1,1,1,1"], "ascend"),
        ([f"{_BEGIN + 1},1,1,1,1,1"], "no open time"),
        ([f"{_BEGIN},x,1,1,1,1"], "no decimal"),
        (["someday,1,1,1,1,1"], "someday"),
        ([f"{_BEGIN},1,1"], "line 2"),
    ],
)
def test_a_file_that_cannot_be_history_is_refused_by_name(tmp_path: Path, rows: list[str], says: str) -> None:
    with pytest.raises(InputError, match=says) as refused:
        list(read_history(_csv(tmp_path / "h.csv", rows), 7, None))
    assert "h.csv" in str(refused.value)


def test_a_missing_column_or_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="volume"):
        list(read_history(_csv(tmp_path / "h.csv", [f"{_BEGIN},1,1,1,1"], "date,open,high,low,close"), 7, None))
    with pytest.raises(InputError, match=r"absent\.csv"):
        list(read_history(HistoryFile("BTC/USDT", "1m", str(tmp_path / "absent.csv")), 7, None))


def test_long_history_goes_in_records_of_bounded_size(tmp_path: Path) -> None:
    count = 9_000
    table = pa.table(
        {"date": pa.array([_BEGIN + index * _MINUTE for index in range(count)], pa.timestamp("ms", "UTC"))}
        | {name: [61_837.63 + index / 100 for index in range(count)] for name in ("open", "high", "low", "close")}
        | {"volume": [1 / 3] * count}
    )
    path = tmp_path / "h.feather"
    pyarrow.feather.write_feather(table, str(path))
    records = list(read_history(HistoryFile("BTC/USDT", "1m", str(path)), 7, None))
    assert sum(len(record.open) for record in records) == count
    assert all(len(encode(record)) < MAX_RECORD_BYTES for record in records)
    assert scaled_to_text(records[-1].close[-1], records[-1].price_scale) == "61927.62"
    assert {scaled_to_text(value, record.quantity_scale) for record in records for value in record.volume} == {
        "0.33333333"
    }


@pytest.mark.skipif(not (SHARED_DATA / "unittest-btc-1m.feather").exists(), reason="../shared/data is not here")
def test_the_real_candles_are_read_exactly() -> None:
    path = SHARED_DATA / "unittest-btc-1m.feather"
    records = list(read_history(HistoryFile("BTC/USDT", "1m", str(path)), 7, None))
    table = pyarrow.feather.read_table(str(path))
    closes = [scaled_to_text(value, record.price_scale) for record in records for value in record.close]
    volumes = [scaled_to_text(value, record.quantity_scale) for record in records for value in record.volume]
    assert len(closes) == 13_681
    # The file has prices such as 0.0016200000000000001, which no exchange quoted.
    assert [float(text) for text in closes] == [round(value, 10) for value in table["close"].to_pylist()]
    assert [float(text) for text in volumes] == [round(value, 8) for value in table["volume"].to_pylist()]
