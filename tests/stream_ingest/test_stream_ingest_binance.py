"""The exchange client against an exchange that misbehaves."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.stream_ingest.ingest_doubles import BTC_CAPTURE, ETH_CAPTURE, Running, VirtualClock, ingest_settings
from tests.support.exchange_server import ExchangeServer, other_frame, trade_frame

from chandlery.core.errors import InputError, MachineError
from chandlery.core.wire import scaled_to_text
from chandlery.stream.ingest.binance import (
    LAST_BACKOFF_S,
    MAX_STREAMS,
    BinanceSource,
    backoff_s,
)
from chandlery.stream.ingest.counts import new_counts
from chandlery.stream.ingest.options import BinanceOptions, read_options
from chandlery.stream.ingest.positions import read_positions

_TIME = 1_723_161_255_342


@pytest.fixture
async def exchange() -> AsyncIterator[ExchangeServer]:
    async with ExchangeServer() as server:
        yield server


def _live(exchange: ExchangeServer, tmp_path: Path, **changes: Any) -> Running:
    options = {"base_url": exchange.base_url} | changes.pop("options", {})
    values = {"source": "binance", "session": 0, "options": options, "heartbeat_ms": 50} | changes
    return Running(ingest_settings(tmp_path, **values))


def _btc(trade_id: int, **changes: Any) -> str:
    values: dict[str, Any] = {"price": "61837.63000000", "quantity": "0.02000000", "time_ms": _TIME + trade_id}
    values |= changes
    return trade_frame(
        "BTCUSDT", trade_id, values.pop("price"), values.pop("quantity"), values.pop("time_ms"), **values
    )


async def test_trades_reach_the_topic_with_exact_decimals_and_stamps(exchange: ExchangeServer, tmp_path: Path) -> None:
    async with _live(exchange, tmp_path) as live:
        connection = await exchange.next_connection()
        assert connection.streams == ["btcusdt@trade", "ethusdt@trade"]
        await exchange.send(_btc(1, buyer_maker=True))
        await exchange.send(trade_frame("ETHUSDT", 9, "2683.80000000", "0.00200000", _TIME))
        await live.until("both are appended", lambda: live.ingest.counts.appended == 2)
        first = live.sink.trades("BTC/USDT")[0]
        assert (first.session, first.id, first.time_ms, first.buyer_maker) == (0, [1], [_TIME + 1], [1])
        assert scaled_to_text(first.price[0], first.price_scale) == "61837.63"
        assert scaled_to_text(first.quantity[0], first.quantity_scale) == "0.02"
        assert (first.price_scale, first.quantity_scale) == (2, 2)
        assert first.watermark_ms == _TIME + 1
        stamps = live.sink.stamps[live.sink.records.index(first)]
        assert (stamps.exchange_ns, stamps.frame, stamps.recorded_skew_ns) == ((_TIME + 1) * 10**6, 1, 0)
        assert stamps.received_ns > 0
    assert live.sink.openings() == ["BTC/USDT", "ETH/USDT"]


async def test_pings_are_answered_with_their_payload(exchange: ExchangeServer, tmp_path: Path) -> None:
    async with _live(exchange, tmp_path):
        connection = await exchange.next_connection()
        await connection.ping(b"1723161255")
        await connection.until("a pong", lambda: connection.pongs == [b"1723161255"])


async def test_other_frames_are_skipped_and_counted_by_kind_and_garbage_by_reason(
    exchange: ExchangeServer, tmp_path: Path
) -> None:
    async with _live(exchange, tmp_path) as live:
        connection = await exchange.next_connection()
        for text in (
            other_frame("BTCUSDT", "depthUpdate", _TIME),
            '{"stream":"btcusdt@bookTicker","data":{"u":1,"s":"BTCUSDT"}}',
            '{"lastUpdateId":1,"bids":[],"asks":[]}',
            trade_frame("DOGEUSDT", 1, "1", "1", _TIME),
            "garbage",
            _btc(5)[:40],
            _btc(6, price="many"),
        ):
            await connection.send(text)
        await connection.send_bytes(b"\x00\x01")
        await exchange.send(_btc(7))
        await live.until("the good one is appended", lambda: live.ingest.counts.appended == 1)
        status = live.ingest.status()
        assert status.skipped_frames == {"depthUpdate": 1, "bookTicker": 1, "other": 1, "other-symbol": 1}
        assert status.malformed == {"json": 2, "price": 1, "binary": 1}
        assert (status.frames, status.trades.received, status.reconnects) == (9, 1, 0)


async def test_a_connection_cut_mid_frame_is_replaced_and_the_gap_is_counted(
    exchange: ExchangeServer, tmp_path: Path
) -> None:
    async with _live(exchange, tmp_path) as live:
        connection = await exchange.next_connection()
        await exchange.send(_btc(1))
        await live.until("the first is had", lambda: live.ingest.counts.received == 1)
        await connection.cut_mid_frame(_btc(2))
        again = await exchange.next_connection()
        assert again.streams == connection.streams
        await exchange.send(_btc(5))
        await live.until("the fifth is appended", lambda: live.ingest.counts.appended == 2)
        status = live.ingest.status()
        assert (status.symbols["BTC/USDT"].gap_ids, status.symbols["BTC/USDT"].last_id) == (3, 5)
        assert (status.reconnects, status.malformed, status.connected) == (1, {}, True)
    assert live.sink.ids("BTC/USDT") == [1, 5]


async def test_symbols_come_and_go_on_the_connection_that_stands_and_those_that_stay_miss_nothing(
    exchange: ExchangeServer, tmp_path: Path
) -> None:
    positions = tmp_path / "position.json"
    async with _live(exchange, tmp_path, position_file=str(positions)) as live:
        connection = await exchange.next_connection()
        await exchange.send(trade_frame("ETHUSDT", 5, "2683.8", "0.002", _TIME))
        sending = asyncio.create_task(_send_btc(exchange))
        await live.until("both are had", lambda: min(len(live.sink.ids(one)) for one in ("BTC/USDT", "ETH/USDT")) > 0)
        assert await live.adopt(["BTC/USDT", "SOL/USDT"])
        await connection.until("the change", lambda: sorted(connection.streams) == ["btcusdt@trade", "solusdt@trade"])
        await exchange.send(trade_frame("SOLUSDT", 7, "150.5", "1.5", _TIME))
        await live.until("the new one's trade", lambda: live.sink.ids("SOL/USDT") == [7])
        assert list(live.ingest.status().symbols) == ["BTC/USDT", "SOL/USDT"]
        # One that comes back goes on where it was left: without another opening, and what was missed is counted.
        assert await live.adopt(["BTC/USDT", "ETH/USDT"])
        await connection.until("it is back", lambda: sorted(connection.streams) == ["btcusdt@trade", "ethusdt@trade"])
        await exchange.send(trade_frame("ETHUSDT", 8, "2683.9", "0.002", _TIME + 9))
        await live.until("its trade", lambda: live.sink.ids("ETH/USDT") == [5, 8])
        sending.cancel()
        await asyncio.wait([sending])
        status = live.ingest.status()
        assert {name: one.gap_ids for name, one in status.symbols.items()} == {"BTC/USDT": 0, "ETH/USDT": 2}
        assert exchange.accepted == 1
        assert live.sink.openings() == ["BTC/USDT", "ETH/USDT", "SOL/USDT"]
    ids = live.sink.ids("BTC/USDT")
    assert ids == list(range(1, len(ids) + 1))
    kept = read_positions(str(positions), 0)
    assert {symbol: one.last_id for symbol, one in kept.items()} == {"BTC/USDT": ids[-1], "ETH/USDT": 8, "SOL/USDT": 7}


async def _send_btc(exchange: ExchangeServer) -> None:
    for number in itertools.count(1):
        await exchange.send(_btc(number))
        await asyncio.sleep(0.001)


async def test_whatever_else_than_symbols_is_changed_wants_another_beginning(
    exchange: ExchangeServer, tmp_path: Path
) -> None:
    many = [f"C{number}/USDT" for number in range(MAX_STREAMS + 1)]
    async with _live(exchange, tmp_path) as live:
        connection = await exchange.next_connection()
        for symbols, changes in ((["BTC/USDT"], {"intervals": ["1s", "5m"]}), (["none"], {}), (many, {})):
            assert not await live.adopt(symbols, **changes)
        assert connection.requests == []
        assert list(live.ingest.status().symbols) == ["BTC/USDT", "ETH/USDT"]
    async with Running(ingest_settings(tmp_path)) as synthetic:
        await synthetic.until("it trades", lambda: synthetic.ingest.counts.appended > 0)
        assert not await synthetic.adopt(["BTC/USDT"])


async def test_a_silent_exchange_is_left_and_come_back_to(exchange: ExchangeServer, tmp_path: Path) -> None:
    async with _live(exchange, tmp_path, silence_timeout_ms=150) as live:
        connection = await exchange.next_connection()
        connection.silent = True
        await exchange.next_connection()
        await live.until("it is counted", lambda: live.ingest.counts.reconnects >= 1)


async def test_a_market_that_rests_keeps_its_connection_its_heartbeats_and_its_trades(
    exchange: ExchangeServer, tmp_path: Path
) -> None:
    async with _live(exchange, tmp_path, symbols=["BTC/USDT"], silence_timeout_ms=300) as live:
        first = await exchange.next_connection()
        await exchange.send(_btc(1))
        await live.until("the first is had", lambda: live.ingest.counts.received == 1)
        for number in (2, 3):
            beside = await exchange.next_connection()  # it has been quiet for longer than a connection is trusted
            before = live.ingest.counts.heartbeats
            await live.until("time goes on", lambda before=before: live.ingest.counts.heartbeats > before + 2)  # type: ignore[misc]
            await exchange.send(_btc(number))
            await asyncio.wait_for(beside.closed.wait(), 10)
        await live.until("all are had", lambda: live.ingest.status().symbols["BTC/USDT"].last_id == 3)
        assert not first.closed.is_set()
        assert (live.ingest.counts.reconnects, live.ingest.counts.connected) == (0, True)
        assert live.ingest.status().symbols["BTC/USDT"].gap_ids == 0
    assert sorted(set(live.sink.ids("BTC/USDT"))) == [1, 2, 3]
    marks = live.sink.watermarks("BTC/USDT")
    assert marks == sorted(marks)


async def test_a_connection_that_answers_and_sends_no_data_any_more_is_left_for_one_that_does(
    exchange: ExchangeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chandlery.stream.ingest.binance._IN_STEP_S", 0.05)
    async with _live(exchange, tmp_path, symbols=["BTC/USDT"], silence_timeout_ms=200) as live:
        stuck = await exchange.next_connection()
        await exchange.send(_btc(1))
        await live.until("the first is had", lambda: live.ingest.counts.received == 1)
        beside = await exchange.next_connection()
        await beside.send(_btc(2))
        await asyncio.wait_for(stuck.closed.wait(), 10)
        await live.until("it is counted", lambda: live.ingest.counts.reconnects == 1)
        await beside.send(_btc(3))
        await live.until("it goes on", lambda: live.ingest.status().symbols["BTC/USDT"].last_id == 3)
        assert live.ingest.counts.connected
        assert stuck.pings, "it was asked, and answered"


async def test_an_exchange_that_refuses_is_tried_until_it_accepts(exchange: ExchangeServer, tmp_path: Path) -> None:
    exchange.refuse = True
    async with _live(exchange, tmp_path) as live:
        await live.until("two tries", lambda: live.ingest.counts.reconnects >= 2)
        assert not live.ingest.counts.connected
        exchange.refuse = False
        await exchange.next_connection()
        await live.until("it is connected", lambda: live.ingest.counts.connected)


async def test_trades_out_of_order_and_doubled_are_passed_on_and_counted(
    exchange: ExchangeServer, tmp_path: Path
) -> None:
    async with _live(exchange, tmp_path) as live:
        await exchange.next_connection()
        for trade_id in (1, 4, 2, 2, 3, 4, 5):
            await exchange.send(_btc(trade_id))
        await live.until("all are appended", lambda: live.ingest.counts.appended == 7)
        symbol = live.ingest.status().symbols["BTC/USDT"]
        assert (symbol.gap_ids, symbol.duplicates, symbol.last_id, symbol.trades) == (0, 2, 5, 7)
    assert live.sink.ids("BTC/USDT") == [1, 4, 2, 2, 3, 4, 5]
    marks = live.sink.watermarks("BTC/USDT")
    assert marks == sorted(marks)


async def test_heartbeats_carry_the_exchanges_time_in_silence_and_stop_with_the_connection(
    exchange: ExchangeServer, tmp_path: Path
) -> None:
    async with _live(exchange, tmp_path, options={"extra_streams": ["btcusdt@kline_1s"]}) as live:
        connection = await exchange.next_connection()
        assert "btcusdt@kline_1s" in connection.streams
        await exchange.send(_btc(1))
        await connection.send(other_frame("BTCUSDT", "kline", _TIME + 5_000))
        await live.until("several heartbeats of each", lambda: live.ingest.counts.heartbeats >= 6)
        for symbol in ("BTC/USDT", "ETH/USDT"):
            marks = live.sink.watermarks(symbol)
            assert marks == sorted(set(marks))
            assert marks[-1] >= _TIME + 5_000 - 250
        exchange.refuse = True
        connection.cut()
        await live.until("the loss is seen", lambda: not live.ingest.counts.connected)
        await live.until("what was under way is appended", lambda: live.ingest.status().trades.waiting == 0)
        before = live.ingest.counts.heartbeats
        await live.until("two more tries", lambda: live.ingest.counts.reconnects >= 2)
        # One may have been on its way to the sink when the connection ended.
        assert live.ingest.counts.heartbeats <= before + 2


async def test_more_than_two_hundred_streams_are_subscribed_in_messages(
    exchange: ExchangeServer, tmp_path: Path
) -> None:
    symbols = [f"A{index}/USDT" for index in range(450)]
    async with _live(exchange, tmp_path, symbols=symbols) as live:
        connection = await exchange.next_connection()
        await connection.until("all are subscribed", lambda: len(connection.streams) == 450)
        assert [len(request["params"]) for request in connection.requests] == [200, 50]
        assert {request["method"] for request in connection.requests} == {"SUBSCRIBE"}
        assert set(connection.streams) == {f"a{index}usdt@trade" for index in range(450)}
        await exchange.send(trade_frame("A449USDT", 1, "1.5", "2", _TIME))
        await live.until("the last symbol trades", lambda: live.ingest.counts.appended == 1)
        await live.until("answers are counted", lambda: live.ingest.counts.skipped_frames["response"] == 2)


async def test_symbols_that_the_exchange_refuses_are_reported_and_the_others_flow(tmp_path: Path) -> None:
    async with (
        ExchangeServer(known=["btcusdt"]) as exchange,
        _live(exchange, tmp_path, symbols=["BTC/USDT", "NOPE/USDT"]) as live,
    ):
        await live.until("it is reported", lambda: live.ingest.status().unknown_symbols == ["NOPE/USDT"])
        await exchange.send(_btc(1))
        await live.until("the other flows", lambda: live.ingest.counts.appended == 1)


async def test_a_symbol_that_the_exchange_has_by_the_next_connection_is_unknown_no_more(tmp_path: Path) -> None:
    async with (
        ExchangeServer(known=["btcusdt", "newusdt"]) as exchange,
        _live(exchange, tmp_path, symbols=["BTC/USDT", "NEW/USDT", "NOPE/USDT"]) as live,
    ):
        connection = await exchange.next_connection()
        await live.until("one is unknown", lambda: live.ingest.status().unknown_symbols == ["NOPE/USDT"])
        live.ingest.counts.unknown_symbols.add("NEW/USDT")  # it was, when the exchange didn't list it yet
        connection.cut()
        again = await exchange.next_connection()
        await again.until("it is asked for", lambda: "newusdt@trade" in again.streams)
        await live.until("it is had", lambda: live.ingest.status().unknown_symbols == ["NOPE/USDT"])
        await exchange.send(trade_frame("NEWUSDT", 1, "1.5", "2", _TIME))
        await live.until("it trades", lambda: live.sink.ids("NEW/USDT") == [1])


async def test_a_request_without_an_answer_has_the_connection_renewed_and_the_others_miss_nothing(
    exchange: ExchangeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chandlery.stream.ingest.binance._ANSWER_TIMEOUT_S", 0.2)
    async with _live(exchange, tmp_path, symbols=["BTC/USDT"]) as live:
        deaf = await exchange.next_connection()
        deaf.deaf = True
        sending = asyncio.create_task(_send_btc(exchange))
        assert await live.adopt(["BTC/USDT", "SOL/USDT"])
        renewed = await exchange.next_connection()
        assert renewed.streams == ["btcusdt@trade", "solusdt@trade"]
        await asyncio.wait_for(deaf.closed.wait(), 10)
        await exchange.send(trade_frame("SOLUSDT", 7, "150.5", "1.5", _TIME))
        await live.until("the new one trades", lambda: live.sink.ids("SOL/USDT") == [7])
        sending.cancel()
        await asyncio.wait([sending])
        assert [request["params"] for request in deaf.requests] == [["solusdt@trade"]]
        assert live.ingest.status().symbols["BTC/USDT"].gap_ids == 0
        assert (exchange.accepted, live.ingest.counts.reconnects) == (2, 1)


async def test_a_new_symbols_opening_is_kept_before_its_first_trade_and_a_full_disk_stops_nobody(
    exchange: ExchangeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    positions = tmp_path / "position.json"
    async with _live(exchange, tmp_path, symbols=["BTC/USDT"], position_file=str(positions)) as live:
        connection = await exchange.next_connection()
        source = live.ingest._source
        assert isinstance(source, BinanceSource)
        kept: list[set[str]] = []
        follow = source.follow

        def follow_and_note(symbols: list[str]) -> None:
            kept.append(set(read_positions(str(positions), 0)))
            follow(symbols)

        monkeypatch.setattr(source, "follow", follow_and_note)
        assert await live.adopt(["BTC/USDT", "SOL/USDT"])
        assert kept == [{"BTC/USDT", "SOL/USDT"}]
        with monkeypatch.context() as full:
            full.setattr("chandlery.stream.ingest.app.write_positions", _no_room)
            assert await live.adopt(["BTC/USDT", "ETH/USDT"])
        assert list(live.ingest.status().symbols) == ["BTC/USDT", "ETH/USDT"]
        await connection.until("it is asked for", lambda: "ethusdt@trade" in connection.streams)


def _no_room(*_: object) -> None:
    raise MachineError("no room")


async def test_a_connection_is_renewed_before_its_age_limit_without_a_gap(
    exchange: ExchangeServer, tmp_path: Path
) -> None:
    async with _live(exchange, tmp_path, options={"max_connection_age_s": 0.15}) as live:
        old = await exchange.next_connection()
        ids = itertools.count(1)
        while live.ingest.counts.reconnects < 2:
            await exchange.send(_btc(next(ids)))
            await asyncio.sleep(0.005)
            assert live.ingest.counts.received < 5_000, live.ingest.status()
        await asyncio.wait_for(old.closed.wait(), 10)
        await exchange.send(_btc(next(ids)))
        last = next(ids) - 1
        await live.until("the newest is had", lambda: live.ingest.status().symbols["BTC/USDT"].last_id == last)
        assert live.ingest.status().symbols["BTC/USDT"].gap_ids == 0
        assert live.ingest.counts.connected
    assert set(live.sink.ids("BTC/USDT")) == set(range(1, last + 1))


async def test_a_connection_that_ends_while_its_successor_waits_for_data_is_followed_by_it(
    exchange: ExchangeServer, tmp_path: Path
) -> None:
    async with _live(exchange, tmp_path, options={"max_connection_age_s": 0.15}) as live:
        old = await exchange.next_connection()
        successor = await exchange.next_connection()  # the market rests: neither has brought anything
        assert isinstance(live.ingest._options, BinanceOptions)
        live.ingest._options.max_connection_age_s = 3_600.0
        old.cut()
        await live.until("it is counted", lambda: live.ingest.counts.reconnects == 1)
        await live.until("the successor stands", lambda: live.ingest.counts.connected)
        await successor.send(_btc(1))
        await live.until("it goes on", lambda: live.ingest.status().symbols["BTC/USDT"].last_id == 1)
        assert (exchange.accepted, live.ingest.counts.reconnects) == (2, 1)


async def test_what_was_received_is_appended_before_a_stop_ends(exchange: ExchangeServer, tmp_path: Path) -> None:
    async with _live(exchange, tmp_path) as live:
        await exchange.next_connection()
        live.sink.gate.clear()
        for trade_id in range(1, 1_001):
            await exchange.send(_btc(trade_id))
        await live.until("all are had", lambda: live.ingest.counts.received == 1_000)
        stopping = asyncio.create_task(live.stop())
        await asyncio.sleep(0)
        assert not stopping.done()
        live.sink.gate.set()
        await stopping
        assert live.sink.ids("BTC/USDT") == list(range(1, 1_001))


async def test_a_restart_goes_on_without_a_second_opening_and_counts_what_it_missed(
    exchange: ExchangeServer, tmp_path: Path
) -> None:
    position_file = str(tmp_path / "position.json")
    async with _live(exchange, tmp_path, position_file=position_file) as live:
        await exchange.next_connection()
        await exchange.send(_btc(1))
        await live.until("it is appended", lambda: live.ingest.counts.appended == 1)
    async with _live(exchange, tmp_path, position_file=position_file) as again:
        await exchange.next_connection()
        await exchange.send(_btc(4))
        await again.until("it is appended", lambda: again.ingest.counts.appended == 1)
        assert again.ingest.status().symbols["BTC/USDT"].gap_ids == 2
    assert again.sink.openings() == []
    assert min(again.sink.watermarks("BTC/USDT")) >= _TIME + 1


def test_backoff_has_full_jitter_over_a_doubling_capped_window() -> None:
    assert [backoff_s(attempt, 1.0) for attempt in range(4)] == [0.25, 0.5, 1.0, 2.0]
    assert backoff_s(50, 1.0) == LAST_BACKOFF_S
    assert backoff_s(3, 0.0) == 0.0
    assert backoff_s(3, 0.5) == 1.0


def test_more_streams_than_a_connection_carries_are_refused() -> None:
    symbols = [f"A{index}/USDT" for index in range(MAX_STREAMS + 1)]
    with pytest.raises(InputError, match="1024"):
        BinanceSource(BinanceOptions(), symbols, 250, 10_000, new_counts({}), VirtualClock())


@pytest.mark.parametrize("options", [{"market": "futures"}, {"base": "x"}])
def test_options_that_cannot_be_used_are_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        read_options("binance", options, BinanceOptions)


@pytest.mark.skipif(not BTC_CAPTURE.exists(), reason="the captures of ../shared/data are not here")
async def test_the_real_captures_served_by_an_exchange_arrive_whole(exchange: ExchangeServer, tmp_path: Path) -> None:
    async with _live(exchange, tmp_path) as live:
        await exchange.next_connection()
        await exchange.replay([BTC_CAPTURE, ETH_CAPTURE], everything=True)
        await live.until("all are appended", lambda: live.ingest.counts.appended == 15_863, timeout_s=60)
        status = live.ingest.status()
        assert status.frames == 41_249 + 33_618
        assert {symbol: one.trades for symbol, one in status.symbols.items()} == {"BTC/USDT": 9_757, "ETH/USDT": 6_106}
        assert all(one.gap_ids == one.duplicates == 0 for one in status.symbols.values())
        assert status.clock_offset_ms is not None
        assert status.skipped_frames["other"] == 2
