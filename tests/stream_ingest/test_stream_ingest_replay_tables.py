"""Replays of tables of trades: exact whatever their kind, numbered where they have no ids, bad cells counted."""

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from tests.stream_ingest.replaying import START, Replay

_CSV = """time,symbol,id,price,quantity,is_buyer_maker
1723161254000,BTC/USDT,1,61837.63,0.02000,true
1723161254100,ETHUSDT,1,2683.8,0.1,false
1723161254200,btcusdt,2,61837.640,0.00000001,False
"""


async def test_csv_trades_are_exact(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(_CSV, encoding="utf-8")
    replay = await Replay([str(tmp_path / "t.csv")]).run()
    assert replay.outlet.ids("ETH/USDT") == [1]
    btc = [batch for batch in replay.outlet.batches if batch.symbol == "BTC/USDT"]
    assert [(batch.price, batch.quantity, batch.price_scale) for batch in btc] == [
        ([6183763000000, 6183764000000], [2000000, 1], 8)
    ]
    assert btc[0].buyer_maker == [1, 0]
    assert btc[0].recorded_skew_ns == 0
    assert replay.outlet.heartbeats[-1] == ("ETH/USDT", 1_723_161_254_200, True)


@pytest.mark.parametrize("kind", ["parquet", "feather", "csv.gz"])
async def test_tables_of_every_kind_give_the_same_trades(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"t.{kind}"
    times = [1_723_161_254_000_000 + index * 1_000 for index in range(6_000)]
    table = pa.table(
        {
            "timestamp": pa.array(times, pa.timestamp("us", "UTC")),
            "price": [100 + index / 100 for index in range(6_000)],
            "amount": [0.1 + 0.2] * 6_000,
            "side": ["sell", "buy"] * 3_000,
        }
    )
    if kind == "parquet":
        pyarrow.parquet.write_table(table, path)
    elif kind == "feather":
        pyarrow.feather.write_feather(table, str(path))
    else:
        rows = [
            f"{when},{price:.2f},{amount},{side}"
            for when, price, amount, side in zip(
                times, table["price"].to_pylist(), ["0.3"] * 6_000, table["side"].to_pylist(), strict=True
            )
        ]
        path.write_bytes(gzip.compress("\n".join(["timestamp,price,amount,side", *rows]).encode()))
    replay = Replay([str(path)], ("BTC/USDT",))
    shares: list[float] = []

    async def room() -> None:
        shares.append(replay.counts.replayed or 0.0)

    replay.outlet.room = room  # type: ignore[method-assign]
    await replay.run()
    assert shares == sorted(shares)
    assert 0.0 < shares[0] < shares[-1] == 1.0, "of two batches of rows the first is told"
    assert replay.outlet.ids("BTC/USDT") == list(range(1, 6_001))
    prices = [price for batch in replay.outlet.batches for price in batch.price]
    assert prices == [(10_000 + index) * 10**6 for index in range(6_000)]
    assert {quantity for batch in replay.outlet.batches for quantity in batch.quantity} == {30_000_000}
    assert [maker for batch in replay.outlet.batches for maker in batch.buyer_maker][:4] == [1, 0, 1, 0]
    assert replay.outlet.batches[0].time_ms[:2] == [1_723_161_254_000, 1_723_161_254_001]


async def test_the_exchanges_dumps_without_a_header_are_read(tmp_path: Path) -> None:
    (tmp_path / "dump.csv").write_text("77,61837.63,0.02,1236.75,1723161254000123,True,True\n", encoding="utf-8")
    replay = await Replay([{"path": str(tmp_path / "dump.csv"), "symbol": "BTC/USDT"}]).run()
    [batch] = replay.outlet.batches
    assert (batch.id, batch.time_ms, batch.buyer_maker) == ([77], [1_723_161_254_000], [1])


def _table(path: Path, *rows: str, columns: str = "time,price,quantity") -> dict[str, str]:
    """A table of trades of BTC/USDT; a row begins with its time as ms since the start."""
    times = [row.partition(",") for row in rows]
    lines = [columns, *(f"{START + int(when)},{rest}" for when, _, rest in times)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return {"path": str(path), "symbol": "BTC/USDT"}


async def test_trades_without_ids_are_numbered_over_all_files(tmp_path: Path) -> None:
    files = [
        _table(tmp_path / "1.csv", "0,10,1", "100,11,1", "500,14,1"),
        _table(tmp_path / "2.csv", "200,12,1", "400,13,1", "600,15,1"),
    ]
    replay = await Replay(files).run()
    assert replay.outlet.ids("BTC/USDT") == [1, 2, 3, 4, 5, 6]
    prices = [price // 10**8 for batch in replay.outlet.batches for price in batch.price]
    assert prices == [10, 11, 12, 13, 14, 15]


async def test_trades_without_ids_are_numbered_by_symbol_however_it_is_written(tmp_path: Path) -> None:
    file = _table(
        tmp_path / "t.csv",
        "0,1,1,BTCUSDT",
        "1,1,1,ETH/USDT",
        "2,1,1,DOGEUSDT",
        "3,x,1,btcusdt",
        "4,1,1,BTC/USDT",
        "5,1,1,ethusdt",
        columns="time,price,quantity,symbol",
    )
    replay = await Replay([file]).run()
    assert (replay.outlet.ids("BTC/USDT"), replay.outlet.ids("ETH/USDT")) == ([1, 2], [1, 2])


async def test_trades_without_ids_go_on_from_those_that_have_some(tmp_path: Path) -> None:
    files = [
        _table(tmp_path / "1.csv", "0,1,1,76", "100,1,1,77", columns="time,price,quantity,id"),
        _table(tmp_path / "2.csv", "200,1,1", "300,1,1"),
    ]
    assert (await Replay(files).run()).outlet.ids("BTC/USDT") == [76, 77, 78, 79]


async def test_a_restart_and_a_loop_give_trades_without_ids_the_same_ones(tmp_path: Path) -> None:
    files = [
        _table(tmp_path / "1.csv", "0,1,1", "200,1,1", "400,1,1"),
        _table(tmp_path / "2.csv", "100,1,1", "300,1,1", "500,1,1"),
    ]
    assert (await Replay(files).run(BTC_USDT=2)).outlet.ids("BTC/USDT") == [3, 4, 5, 6]

    class EnoughError(Exception):
        pass

    looping = Replay(files, loop=True)

    async def room() -> None:
        if len(looping.outlet.ids("BTC/USDT")) >= 10:
            raise EnoughError

    looping.outlet.room = room  # type: ignore[method-assign]
    with pytest.raises(EnoughError):
        await looping.run(BTC_USDT=8)
    assert looping.outlet.ids("BTC/USDT") == list(range(9, 19))


async def test_bad_cells_are_counted_by_reason(tmp_path: Path) -> None:
    rows = [
        "time,id,price,quantity",
        "x,1,1,1",
        f"{START},x,1,1",
        f"{START},3,x,1",
        f"{START},4,1,0",
        f"{START},5,1,1",
    ]
    (tmp_path / "t.csv").write_text("\n".join(rows), encoding="utf-8")
    replay = await Replay([str(tmp_path / "t.csv")], ("BTC/USDT",)).run()
    assert dict(replay.counts.malformed) == {"time": 1, "id": 1, "price": 1, "quantity": 1}
    assert replay.outlet.ids("BTC/USDT") == [5]
