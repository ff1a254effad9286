"""A whole run: openings, history, go, positions, status, stop."""

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from tests.stream_ingest.ingest_doubles import MemorySink, Running, ingest_settings, until
from tests.support.exchange_server import trade_frame

from chandlery.core.errors import InputError, InvariantError, MachineError, UnavailableError
from chandlery.core.settings import HistoryFile, IngestSettings
from chandlery.core.topics import partition_of
from chandlery.core.wire import BackfillRecord, Opening, TradesRecord
from chandlery.stream.ingest import dispatch
from chandlery.stream.ingest.app import Ingest
from chandlery.stream.ingest.positions import read_positions, write_positions
from chandlery.stream.ingest.source import Position

_START = 1_723_161_254_000
_COUNT = 2_000


def _capture(tmp_path: Path) -> str:
    path = tmp_path / "market.frames"
    lines = []
    for index in range(_COUNT):
        time_ms = _START + index * 10
        symbol = "BTCUSDT" if index % 2 else "ETHUSDT"
        lines.append(
            f"{time_ms * 1_000_000} {trade_frame(symbol, index // 2 + 1, f'{100 + index}.5', '0.25', time_ms)}\n"
        )
    path.write_text("".join(lines), encoding="utf-8")
    return str(path)


def _replay(tmp_path: Path, **changes: Any) -> IngestSettings:
    options = {"files": [_capture(tmp_path)], "speed": "max"} | changes.pop("options", {})
    return ingest_settings(tmp_path, source="replay", options=options, **changes)


async def _get(address: str, path: str) -> Any:
    async with aiohttp.ClientSession() as http, http.get(f"http://{address}{path}") as response:
        assert response.status == 200
        return await response.json(content_type=None) if path.startswith("/v1") else await response.text()


async def test_each_symbol_begins_with_its_opening_and_its_history_and_all_trades_follow(tmp_path: Path) -> None:
    (tmp_path / "h.csv").write_text("date,open,high,low,close,volume\n1723161180000,1,2,1,2,5\n", encoding="utf-8")
    history = [HistoryFile("ETHUSDT", "1m", str(tmp_path / "h.csv"))]
    async with Running(_replay(tmp_path, history_files=history)) as running:
        await running.finished()
    for symbol in ("BTC/USDT", "ETH/USDT"):
        records = [record for record in running.sink.records if record.symbol == symbol]
        assert records[0] == Opening(symbol, 7)
        rest = records[1:]
        if symbol == "ETH/USDT":
            assert isinstance(rest[0], BackfillRecord)
            rest = rest[1:]
        assert all(isinstance(record, TradesRecord) for record in rest)
        assert running.sink.ids(symbol) == list(range(1, _COUNT // 2 + 1))
        assert rest[-1].watermark_ms == _START + (_COUNT - 1) * 10  # type: ignore[union-attr]
    assert running.ingest.status().trades.received == running.ingest.status().trades.appended == _COUNT


async def test_every_record_is_in_the_partition_of_its_symbol(tmp_path: Path) -> None:
    async with Running(_replay(tmp_path)) as running:
        await running.finished()
    for batch in running.sink.batches:
        assert {partition_of(record.key.decode(), 4) for record in batch.records} == {batch.partition}


async def test_history_is_shifted_to_the_market_where_asked_for(tmp_path: Path) -> None:
    (tmp_path / "h.csv").write_text("date,open,high,low,close,volume\n1509836520000,1,2,1,2,5\n", encoding="utf-8")
    history = [HistoryFile("BTC/USDT", "1m", str(tmp_path / "h.csv"))]
    for shift, expected in ((False, 1_509_836_520_000), (True, _START // 60_000 * 60_000 - 60_000)):
        settings = _replay(tmp_path, history_files=history, options={"history_shift": shift})
        async with Running(settings) as running:
            await running.finished()
        assert [record.open_time_ms for record in running.sink.backfills("BTC/USDT")] == [[expected]]


async def test_trades_wait_for_go_where_asked_for(tmp_path: Path) -> None:
    async with Running(_replay(tmp_path, options={"wait_for_go": True})) as running:
        await running.until("history is sent", lambda: running.ingest.status().waiting_for_go)
        status = await _get(running.ingest.server.address, "/v1/status")
        assert status["waiting_for_go"] is True
        assert status["trades"]["received"] == 0
        assert running.sink.openings() == ["BTC/USDT", "ETH/USDT"]
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"http://{running.ingest.server.address}/v1/go") as response,
        ):
            assert response.status == 200
        await running.finished()


async def test_the_status_names_everything_a_program_needs(tmp_path: Path) -> None:
    async with Running(_replay(tmp_path)) as running:
        await running.finished()
        status = await _get(running.ingest.server.address, "/v1/status")
        assert await _get(running.ingest.server.address, "/healthz") == "ok\n"
    assert status["finished"] is True
    assert status["connected"] is False
    assert (status["source"], status["session"], status["frames"]) == ("replay", 7, _COUNT)
    assert status["trades"] == {"received": _COUNT, "appended": _COUNT, "waiting": 0, "dropped": {}}
    assert status["symbols"]["BTC/USDT"] == {
        "trades": 1_000,
        "last_id": 1_000,
        "gap_ids": 0,
        "duplicates": 0,
        "watermark_ms": _START + (_COUNT - 1) * 10,
        "last_price": "2099.5",
    }
    assert set(status) >= {
        "skipped_frames", "malformed", "reconnects", "heartbeats", "records", "clock_offset_ms", "unknown_symbols",
        "appended_us",
    }  # fmt: skip


async def test_a_unix_address_serves_the_status_too(tmp_path: Path) -> None:
    address = Path("/tmp") / f"chandlery-{tmp_path.name[-12:]}.sock"
    async with Running(_replay(tmp_path, status_listen=f"unix:{address}")) as running:
        await running.finished()
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(address))) as http,
            http.get("http://ingest/v1/status") as response,
        ):
            assert (await response.json())["finished"] is True
    assert not address.exists()


async def test_the_final_status_is_that_after_the_flush(tmp_path: Path) -> None:
    settings = ingest_settings(
        tmp_path, options={"trades_per_second": 200.0}, final_status=str(tmp_path / "final.json")
    )
    async with Running(settings) as running:
        await running.until("trades flow", lambda: running.ingest.counts.appended > 50)
        running.sink.gate.clear()
        appended = running.ingest.counts.appended
        await running.until("some wait", lambda: running.ingest.counts.received > appended + 20)
        stopping = asyncio.create_task(running.stop())
        await asyncio.sleep(0)
        running.sink.gate.set()
        await stopping
    final = json.loads((tmp_path / "final.json").read_bytes())
    assert final["trades"]["waiting"] == 0
    assert final["trades"]["received"] == final["trades"]["appended"] > appended
    assert final["trades"]["appended"] == len(running.sink.ids("BTC/USDT")) + len(running.sink.ids("ETH/USDT"))
    assert running.sink.closed


async def test_a_stop_while_the_broker_is_away_says_what_was_left(tmp_path: Path) -> None:
    settings = _replay(tmp_path, final_status=str(tmp_path / "final.json"), options={"speed": 1})
    sink = MemorySink()
    ingest = Ingest(settings, sink, drain_timeout_s=0.05)
    stop = asyncio.Event()
    task = asyncio.create_task(ingest.run(stop))
    await until("trades flow", lambda: ingest.counts.appended > 0 or task.done(), ingest.status)
    sink.gate.clear()
    await until("some wait", lambda: ingest.status().trades.waiting > 10 or task.done(), ingest.status)
    stop.set()
    with pytest.raises(UnavailableError, match="not appended"):
        await task
    final = json.loads((tmp_path / "final.json").read_bytes())["trades"]
    assert final["waiting"] == final["received"] - final["appended"] > 0


async def test_a_run_with_exit_at_end_ends_by_itself(tmp_path: Path) -> None:
    sink = MemorySink()
    ingest = Ingest(_replay(tmp_path, options={"exit_at_end": True}), sink)
    await asyncio.wait_for(ingest.run(asyncio.Event()), 20)
    assert ingest.counts.finished
    assert sink.closed


class CutOffSink(MemorySink):
    """Acknowledges so many sends, then breaks as if the process had been killed there."""

    def __init__(self, sends: int) -> None:
        super().__init__()
        self._left = sends

    async def send(self, batches: Any) -> None:
        if self._left == 0:
            raise InvariantError("cut off")
        self._left -= 1
        await super().send(batches)


@pytest.mark.parametrize("sends", [3, 4])
async def test_a_restart_resumes_a_replay_where_it_was_acknowledged(
    tmp_path: Path, sends: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Requests that keep their distance carry more each: the replay might be over before the cut.
    monkeypatch.setattr(dispatch, "SPACING_S", 0.0)
    position_file = str(tmp_path / "state" / "position.json")
    settings = _replay(tmp_path, position_file=position_file, options={"exit_at_end": True})
    first = CutOffSink(sends)
    with pytest.raises(InvariantError, match="cut off"):
        await Ingest(settings, first).run(asyncio.Event())
    assert first.ids("BTC/USDT"), "some trades came before the cut"
    async with Running(settings) as second:
        await second.finished()
    assert second.sink.openings() == []
    for symbol in ("BTC/USDT", "ETH/USDT"):
        ids = first.ids(symbol) + second.sink.ids(symbol)
        assert ids == list(range(1, _COUNT // 2 + 1))
        marks = first.watermarks(symbol) + second.sink.watermarks(symbol)
        assert marks == sorted(marks)


async def test_a_kill_before_the_position_is_written_repeats_and_skips_nothing(tmp_path: Path) -> None:
    settings = _replay(tmp_path, position_file=str(tmp_path / "position.json"))
    async with Running(settings) as whole:
        await whole.finished()
    position = read_positions(settings.position_file, 7)
    # A second older, as a kill between two writes leaves it.
    stale = {symbol: Position(one.count - 300, one.last_id - 300, -1) for symbol, one in position.items()}
    write_positions(settings.position_file, 7, stale)
    async with Running(settings) as again:
        await again.finished()
    for symbol in ("BTC/USDT", "ETH/USDT"):
        assert again.sink.ids(symbol) == list(range(_COUNT // 2 - 299, _COUNT // 2 + 1))


async def test_a_new_session_begins_anew_whatever_the_position_file_says(tmp_path: Path) -> None:
    settings = _replay(tmp_path, position_file=str(tmp_path / "position.json"))
    async with Running(settings) as first:
        await first.finished()
    async with Running(msgspec.structs.replace(settings, session=8)) as second:
        await second.finished()
    assert second.sink.openings() == ["BTC/USDT", "ETH/USDT"]
    assert second.sink.ids("BTC/USDT") == list(range(1, _COUNT // 2 + 1))


async def test_a_symbol_added_later_in_a_session_gets_its_own_opening(tmp_path: Path) -> None:
    settings = _replay(tmp_path, position_file=str(tmp_path / "position.json"), symbols=["BTC/USDT"])
    async with Running(settings) as first:
        await first.finished()
    async with Running(msgspec.structs.replace(settings, symbols=["BTC/USDT", "ETH/USDT"])) as second:
        await second.finished()
    assert second.sink.openings() == ["ETH/USDT"]
    assert second.sink.ids("ETH/USDT") == list(range(1, _COUNT // 2 + 1))
    assert second.sink.ids("BTC/USDT") == []


async def test_a_symbol_that_nobody_asks_for_for_a_while_goes_on_with_its_ids(tmp_path: Path) -> None:
    settings = ingest_settings(
        tmp_path, options={"trades_per_second": 300.0}, position_file=str(tmp_path / "position.json")
    )
    sinks = []
    for symbols in (["BTC/USDT", "ETH/USDT"], ["ETH/USDT"], ["BTC/USDT", "ETH/USDT"]):
        async with Running(msgspec.structs.replace(settings, symbols=symbols)) as running:
            sink = running.sink
            await running.until("trades flow", lambda sink=sink, of=symbols[0]: len(sink.ids(of)) > 100)  # type: ignore[misc]
        sinks.append(sink)
    assert sinks[2].openings() == [], "the session has had its opening"
    ids = sinks[0].ids("BTC/USDT") + sinks[2].ids("BTC/USDT")
    assert ids == list(range(1, len(ids) + 1)), "none comes twice, or it would be taken for a repetition"


async def test_a_synthetic_market_resumes_its_path(tmp_path: Path) -> None:
    settings = ingest_settings(
        tmp_path, options={"trades_per_second": 300.0}, position_file=str(tmp_path / "position.json"), history_candles=5
    )
    runs = []
    for _ in range(2):
        async with Running(settings) as running:
            await running.until("trades flow", lambda running=running: running.ingest.counts.appended > 100)  # type: ignore[misc]
        runs.append(running.sink)
    assert len(runs[0].backfills("BTC/USDT")) == 2
    assert runs[1].backfills("BTC/USDT") == []
    for symbol in ("BTC/USDT", "ETH/USDT"):
        ids = runs[0].ids(symbol) + runs[1].ids(symbol)
        assert ids == list(range(1, len(ids) + 1))


async def test_history_of_a_synthetic_market_closes_at_its_first_trade(tmp_path: Path) -> None:
    settings = ingest_settings(
        tmp_path, symbols=["BTC/USDT"], history_candles=50, options={"trades_per_second": 100.0, "start_price": 123.45}
    )
    async with Running(settings) as running:
        await running.until("trades flow", lambda: running.ingest.counts.appended > 0)
    first = next(record for record in running.sink.trades("BTC/USDT") if record.id)
    assert first.price[0] * 10 ** (4 - first.price_scale) == 1_234_500
    for record in running.sink.backfills("BTC/USDT"):
        assert record.forming
        assert record.close[-1] * 10 ** (4 - record.price_scale) == 1_234_500
        assert record.open_time_ms[-1] <= first.time_ms[0]


async def test_a_replay_pauses_while_the_broker_is_away_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    rows = [f"{_START + index},{index + 1},1.5,1" for index in range(60_000)]
    path.write_text("\n".join(["time,id,price,quantity", *rows]), encoding="utf-8")
    settings = ingest_settings(
        tmp_path, source="replay", symbols=["BTC/USDT"], options={"files": [str(path)], "speed": "max"}
    )
    async with Running(settings) as running:
        await running.until("it flows", lambda: running.ingest.counts.appended > 0)
        running.sink.gate.clear()
        await running.until("it waits", lambda: running.ingest.status().trades.waiting > 20_000)
        for _ in range(50):
            await asyncio.sleep(0)
        assert running.ingest.status().trades.waiting < 25_000
        running.sink.gate.set()
        await running.finished()
    assert running.sink.ids("BTC/USDT") == list(range(1, 60_001))
    assert running.ingest.status().trades.dropped == {}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"symbols": ["BTC/USDT", "btcusdt"]}, "twice"),
        ({"symbols": ["?"]}, "no symbol"),
        ({"intervals": ["1x"]}, "no interval"),
        ({"history_files": [HistoryFile("SOL/USDT", "1m", "h.csv")]}, "SOL/USDT"),
        ({"history_files": [HistoryFile("BTC/USDT", "1m", "/h.xlsx")]}, r"/h\.xlsx: files of history are \.csv"),
        ({"options": {"sed": 1}}, "sed"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_by_name(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Ingest(ingest_settings(tmp_path, **changes), MemorySink())


def test_a_broken_position_file_is_refused_and_an_absent_one_is_none(tmp_path: Path) -> None:
    path = tmp_path / "position.json"
    assert read_positions(str(path), 7) == {}
    path.write_text('{"session": 7, "sym', encoding="utf-8")
    with pytest.raises(InputError, match="position file"):
        read_positions(str(path), 7)


def test_positions_survive_the_way_through_the_file(tmp_path: Path) -> None:
    positions = {"BTC/USDT": Position(5, 9, 1_000)}
    write_positions(str(tmp_path / "new" / "p.json"), 7, positions)
    assert read_positions(str(tmp_path / "new" / "p.json"), 7) == positions
    assert read_positions(str(tmp_path / "new" / "p.json"), 8) == {}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["p.json"]


async def test_a_taken_address_is_a_machine_error_that_says_so(tmp_path: Path) -> None:
    async with Running(_replay(tmp_path)) as running:
        await running.finished()
        taken = _replay(tmp_path, status_listen=running.ingest.server.address)
        with pytest.raises(MachineError, match="can't listen"):
            await Ingest(taken, MemorySink()).run(asyncio.Event())


async def test_a_file_that_breaks_midway_ends_the_run_with_what_came_before_appended(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = [f"{_START + index},{index + 1},1.5,1" for index in range(5_000)]
    path.write_text("\n".join(["time,id,price,quantity", *rows, "1,2"]), encoding="utf-8")
    sink = MemorySink()
    settings = ingest_settings(
        tmp_path, source="replay", symbols=["BTC/USDT"], options={"files": [str(path)], "speed": "max"}
    )
    with pytest.raises(InputError, match="line 5002"):
        await Ingest(settings, sink).run(asyncio.Event())
    assert sink.ids("BTC/USDT") == list(range(1, 4_097))


async def test_a_run_that_can_no_longer_keep_its_positions_says_so_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Running(ingest_settings(tmp_path, source="synthetic", options={})) as running:
        await running.until("it trades", lambda: running.ingest.counts.appended)

        def fails() -> None:
            raise InvariantError("positions of nobody")

        with monkeypatch.context() as patched:
            patched.setattr(running.ingest, "_write_positions", fails)
            assert running.task is not None
            await asyncio.wait([running.task], timeout=20)
        with pytest.raises(InvariantError, match="positions of nobody"):
            await running.stop()
        running.task = asyncio.create_task(asyncio.sleep(0))


async def test_a_run_whose_metrics_address_is_taken_leaves_no_status_behind(tmp_path: Path) -> None:
    async with Running(_replay(tmp_path)) as running:
        await running.finished()
        address = f"unix:{tmp_path}/s.sock"
        taken = _replay(tmp_path, status_listen=address, metrics_listen=running.ingest.server.address)
        with pytest.raises(MachineError, match="for metrics"):
            await Ingest(taken, MemorySink()).run(asyncio.Event())
        assert not (tmp_path / "s.sock").exists()
