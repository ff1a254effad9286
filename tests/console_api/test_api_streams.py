"""Streams: what they tell, in which order, and how they resume, fail and end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator

import aiohttp
import pytest
from starlette.types import Message
from tests.console_api.conftest import Serve
from tests.console_api.stage import FEED, Stage, candle, signal, stream, until

from chandlery.console.api import live as live_module
from chandlery.console.api.live import MOST_SIGNALS, Waiting
from chandlery.console.api.metrics import ApiMetrics
from chandlery.console.api.problems import ProblemError
from chandlery.console.api.sse import EventStream, Streams, event
from chandlery.console.api.states import Told, rows_event
from chandlery.console.api.topics import MOST_SERIES, Series, parse_topics
from chandlery.console.client import EventLines
from chandlery.console.market import CandleEvent
from chandlery.core.errors import UnavailableError

SERIES = Series(FEED, "BTC/USDT", "1m")
LIVE = f"live?topics=overview,traders,pools,feeds,latency,memory,signals,{SERIES}"


async def test_the_live_stream_tells_every_topic(stage: Stage, serve: Serve) -> None:
    server = await serve()
    async with stream(server.address, LIVE) as live:
        states = {(one := await live.next()).name: json.loads(one.data) for _ in range(6)}
        assert list(states) == ["overview", "traders", "pools", "feeds", "latency", "memory"]
        assert states["overview"]["traders_ready"] == 3
        assert states["pools"][0]["pool"] == "default/standard"
        assert states["latency"]["window_s"] == 60
        rows = states["traders"]
        assert (rows["whole"], rows["removed"]) == (True, [])
        assert [row["trader"] for row in rows["rows"]] == ["default/alpha", "default/beta", "research/gamma"]
        assert rows["rows"][0]["sparkline"] == [0] * 30
        await until(lambda: stage.signals.following and stage.market.following)
        position = stage.signals.tell(signal(1))
        told = await live.next("signal")
        assert (told.event_id, json.loads(told.data)["id"]) == (position, f"{1:032x}")
        stage.market.tell(FEED, "BTC/USDT", "1m", candle(120_000, state="forming"))
        change = await live.next_data("candle")
        assert (change["symbol"], change["candle"]["open_time_ms"], change["reset"]) == ("BTC/USDT", 120_000, False)


async def test_only_traders_that_changed_are_told_again(stage: Stage, serve: Serve) -> None:
    server = await serve()
    async with stream(server.address, "live?topics=traders") as live:
        assert (await live.next_data())["whole"]
        stage.backend.traders["default/beta"] = stage.backend.traders["default/beta"].model_copy(
            update={"state": "CrashLoop"}
        )
        del stage.backend.traders["research/gamma"]
        delta = await live.next_data()
        assert [row["trader"] for row in delta["rows"]] == ["default/beta"]
        assert (delta["removed"], delta["whole"]) == (["research/gamma"], False)


async def test_a_state_is_told_again_only_when_it_changed(stage: Stage, serve: Serve) -> None:
    server = await serve()
    async with stream(server.address, "live?topics=feeds,memory,pools") as live:
        assert [(await live.next()).name for _ in range(3)] == ["feeds", "memory", "pools"]
        stage.backend.pools[0] = stage.backend.pools[0].model_copy(update={"pending": 1})
        again = await live.next()
        assert (again.name, json.loads(again.data)[0]["pending"]) == ("pools", 1)


async def test_a_stream_with_nothing_to_tell_says_that_it_lives(
    stage: Stage, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_module, "KEEP_ALIVE_S", 0.05)
    server = await serve()
    async with stream(server.address, "signals/stream") as signals:
        told = [await signals.response.content.readline() for _ in range(7)]
        assert told == [b"\n", b"id: memory:0\n", b"\n", b": keep-alive\n", b"\n", b": keep-alive\n", b"\n"]


def test_rows_are_told_whole_then_only_as_they_change() -> None:
    rows = {"b/x": Told('{"trader":"b/x"}', "1"), "a/y": Told('{"trader":"a/y"}', "1")}
    whole = json.loads(rows_event(rows, {}, whole=True))
    assert [row["trader"] for row in whole["rows"]] == ["a/y", "b/x"]
    sent = {name: told.key for name, told in rows.items()}
    assert rows_event(rows, sent, whole=False) == ""
    assert json.loads(rows_event({}, {}, whole=True)) == {"rows": [], "removed": [], "whole": True}
    assert json.loads(rows_event({}, sent, whole=False))["removed"] == ["a/y", "b/x"]


async def test_a_topic_that_fails_says_so_once_and_the_others_go_on(stage: Stage, serve: Serve) -> None:
    server = await serve()
    stage.market.failing = UnavailableError("Kafka at 127.0.0.1:9 doesn't answer")
    stage.backend.broken = RuntimeError("inside")
    async with stream(server.address, f"live?topics=overview,latency,signals,{SERIES}") as live:
        failed = [await live.next_data("failed") for _ in range(2)]
        by_topic = {one["topic"]: one["problem"] for one in failed}
        assert by_topic[str(SERIES)]["detail"] == "Kafka at 127.0.0.1:9 doesn't answer"
        assert by_topic["overview"]["reason"] == "Defect"
        await until(lambda: stage.signals.following)
        stage.signals.tell(signal(1))
        assert (await live.next("signal", "failed")).name == "signal"
        stage.market.failing = stage.backend.broken = None
        assert (await live.next("overview", "failed")).name == "overview"
        await until(lambda: stage.market.following)
        stage.market.tell(FEED, "BTC/USDT", "1m", candle(120_000))
        assert (await live.next("candle", "failed")).name == "candle"
        assert stage.services.metrics.failed == 2


async def test_a_stream_resumes_after_the_event_it_names(stage: Stage, serve: Serve) -> None:
    server = await serve()
    positions = [stage.signals.tell(signal(number)) for number in range(5)]
    async with stream(server.address, "signals/stream", Last_Event_ID=positions[2]) as signals:
        told = [await signals.next() for _ in range(2)]
        assert [one.event_id for one in told] == positions[3:]
        assert {one.name for one in told} == {"signal"}
        later = stage.signals.tell(signal(5))
        assert (await signals.next()).event_id == later


@pytest.mark.parametrize("path", ["signals/stream", "live?topics=signals"])
async def test_a_stream_that_begins_now_says_first_from_where(stage: Stage, serve: Serve, path: str) -> None:
    server = await serve()
    position = stage.signals.tell(signal(1))
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{server.address}/api/v1/{path}") as answer,
    ):
        lines = [(await answer.content.readline()).decode() for _ in range(4)]
    assert lines == [": open\n", "\n", f"id: {position}\n", "\n"]


async def test_what_is_lost_between_is_told_as_a_gap_and_counted(stage: Stage, serve: Serve) -> None:
    stage.signals.events = type(stage.signals.events)(maxlen=3)
    server = await serve()
    positions = [stage.signals.tell(signal(number)) for number in range(10)]
    async with stream(server.address, "signals/stream", Last_Event_ID=positions[1]) as signals:
        gap = await signals.next()
        assert (gap.name, json.loads(gap.data)) == ("gap", {"lost": 5})
        assert (await signals.next()).event_id == positions[7]
    assert stage.services.metrics.lost == 5


async def test_a_position_nobody_knows_fails_and_goes_on_from_now(stage: Stage, serve: Serve) -> None:
    server = await serve()
    async with stream(server.address, "signals/stream", Last_Event_ID="elsewhere:1") as signals:
        failed = await signals.next_data("failed")
        told = failed["problem"]
        assert (failed["topic"], told["reason"], told["field"]) == ("signals", "BadField", "Last-Event-ID")
        assert told["detail"].startswith("Last-Event-ID: ")
        assert told["detail"].endswith("; the stream goes on from now")
        await until(lambda: stage.signals.following)
        position = stage.signals.tell(signal(1))
        assert (await signals.next()).event_id == position


async def test_filters_choose_the_signals_of_a_stream(stage: Stage, serve: Serve) -> None:
    server = await serve()
    async with stream(server.address, "signals/stream?action=sell&trader=default/alpha&symbol=btcusdt") as signals:
        await until(lambda: stage.signals.following)
        stage.signals.tell(signal(1))
        stage.signals.tell(signal(2, action="sell", trader="default/beta"))
        stage.signals.tell(signal(3, action="sell"))
        assert (await signals.next_data("signal"))["id"] == f"{3:032x}"


async def test_candles_of_one_series_come_at_once(stage: Stage, serve: Serve) -> None:
    server = await serve()
    async with stream(server.address, f"candles/stream?feed={FEED}&symbol=BTC/USDT&interval=1m") as candles:
        await until(lambda: stage.market.following)
        for close in ("101.0", "102.0", "103.0"):
            stage.market.tell(FEED, "BTC/USDT", "1m", candle(120_000, close, "forming"))
            while (await candles.next_data("candle"))["candle"]["close"] != close:
                pass


@pytest.mark.parametrize(
    ("path", "status", "field"),
    [
        ("live", 422, "topics"),
        ("live?topics=", 422, "topics"),
        ("live?topics=,", 422, "topics"),
        ("live?topics=overviews", 422, "topics"),
        ("live?topics=candles:default/binance:BTC/USDT", 422, "topics"),
        ("live?topics=candles:binance:BTC/USDT:1m", 422, "topics"),
        ("live?topics=candles:default/binance:nothing:1m", 422, "topics"),
        ("live?topics=candles:../x:BTC/USDT:1m", 422, "topics"),
        ("live?topics=overview&extra=1", 422, "extra"),
        ("live?topics=" + "overview," * 600, 422, "topics"),
        ("signals/stream?action=hold", 422, "action"),
        ("candles/stream?feed=default/none&symbol=BTC/USDT&interval=1m", 404, "feed"),
    ],
)
async def test_a_stream_that_can_t_be_is_a_problem(stage: Stage, path: str, status: int, field: str) -> None:
    async with stage.ask() as api:
        answer = await api.get(path)
    assert (answer.status_code, answer.json()["field"]) == (status, field)


@pytest.mark.parametrize("position", ["a b", "x" * 1_025, "<script>", "ü".encode()])
async def test_a_last_event_id_of_another_form_is_refused(stage: Stage, position: str | bytes) -> None:
    async with stage.ask() as api:
        answer = await api.get("signals/stream", headers=[(b"Last-Event-ID", position.encode() if isinstance(position, str) else position)])  # fmt: skip
    assert (answer.status_code, answer.json()["field"]) == (422, "Last-Event-ID")
    assert answer.json()["detail"].startswith("Last-Event-ID: must be the `id` of an event of this stream")


def test_topics_may_have_symbols_with_a_colon_and_come_once() -> None:
    topics = parse_topics("overview,candles:default/binance:BTC/USDT:USDT:1h,overview,candles:default/binance:btcusdt:1m,candles:default/binance:BTC/USDT:1m")  # fmt: skip
    assert topics.states == ("overview",)
    assert topics.series == (Series(FEED, "BTC/USDT:USDT", "1h"), SERIES)
    assert not topics.signals
    with pytest.raises(ProblemError, match=f"at most {MOST_SERIES}"):
        parse_topics(",".join(f"candles:default/f{number}:BTC/USDT:1m" for number in range(MOST_SERIES + 1)))


async def test_streams_beyond_the_most_are_refused_and_room_comes_back(stage: Stage, serve: Serve) -> None:
    stage.settings.streams = 2
    server = await serve()
    async with (
        stream(server.address, "live?topics=overview"),
        stream(server.address, "signals/stream"),
        aiohttp.ClientSession() as session,
    ):
        async with session.get(f"{server.address}/api/v1/live?topics=overview") as refused:
            problem = await refused.json()
            assert (refused.status, problem["reason"]) == (503, "TooManyStreams")
            assert refused.headers["Retry-After"]
        assert stage.services.metrics.refused == 1
        async with session.get(f"{server.address}/api/v1/overview") as answer:
            assert answer.status == 200
    await until(lambda: stage.services.streams.open == 0)
    async with stream(server.address, "live?topics=overview") as live:
        assert (await live.next()).name == "overview"


async def test_a_client_that_leaves_leaves_nothing_behind(stage: Stage, serve: Serve) -> None:
    server = await serve()
    async with stream(server.address, LIVE) as live:
        await live.next()
        await until(lambda: stage.signals.following and stage.market.following)
    await until(lambda: stage.services.streams.open == 0)
    await until(lambda: not stage.signals.following and not stage.market.following)


async def test_streams_end_in_order_when_the_process_does(stage: Stage, serve: Serve) -> None:
    server = await serve()
    async with stream(server.address, LIVE) as live:
        await live.next()
        stopping = asyncio.create_task(server.stop())
        await live.ended()
        await stopping
    assert stage.services.streams.open == 0


async def test_candles_wait_in_one_slot_each_and_a_new_session_replaces_what_waits() -> None:
    waiting = Waiting(candle_period_s=1.0)

    async def bring(open_time_ms: int, close: str, *, reset: bool = False) -> None:
        came = CandleEvent(FEED, "BTC/USDT", "1m", candle(open_time_ms, close), reset)
        await waiting.bring_candle(SERIES, came)

    def told(now_s: float) -> list[tuple[int, str, bool]]:
        lines = EventLines()
        changes = [lines.take(line) for chunk in waiting.take(now_s) for line in chunk.decode().split("\n")]
        data = [json.loads(one.data) for one in changes if one is not None]
        return [(one["candle"]["open_time_ms"], one["candle"]["close"], one["reset"]) for one in data]

    for close in ("1.0", "2.0", "3.0"):
        await bring(0, close)
    assert told(10.0) == [(0, "3.0", False)]
    await bring(0, "4.0")
    await bring(60_000, "5.0")
    assert told(10.5) == []
    assert told(11.0) == [(0, "4.0", False), (60_000, "5.0", False)]
    await bring(0, "6.0")
    await bring(120_000, "7.0", reset=True)
    await bring(120_000, "8.0")
    assert told(12.0) == [(120_000, "8.0", True)]


async def test_who_brings_more_signals_than_fit_waits_until_some_are_taken() -> None:
    waiting = Waiting(candle_period_s=0.0)

    async def bring_all() -> None:
        for number in range(MOST_SIGNALS + 10):
            await waiting.bring(b"%d" % number)

    bringing = asyncio.create_task(bring_all())
    await until(lambda: len(waiting.signals) == MOST_SIGNALS)
    assert not bringing.done()
    first = waiting.take(0.0)
    await bringing
    assert [*first, *waiting.take(0.0)] == [b"%d" % number for number in range(MOST_SIGNALS + 10)]


@pytest.mark.parametrize("data", ["", "one", "one\ntwo", "a\r\nb\rc", " leading", "a: b\n\nid: 7"])
def test_an_event_is_read_as_it_was_written(data: str) -> None:
    lines = EventLines()
    told = [lines.take(line) for line in event("name", data, "p:1").decode().split("\n")]
    made = [one for one in told if one is not None]
    assert [(one.name, one.event_id) for one in made] == [("name", "p:1")]
    assert made[0].data == data.replace("\r\n", "\n").replace("\r", "\n")


def test_half_an_event_moves_no_position() -> None:
    lines = EventLines(last_id="p:1")
    for line in ("event: signal", "id: p:2", "data: {}"):
        assert lines.take(line) is None
    lines.forget()
    assert lines.last_id == "p:1"
    assert lines.take("") is None
    assert lines.last_id == "p:1"


async def test_a_long_event_is_handed_over_in_parts_so_that_a_slow_line_is_not_taken_for_a_dead_one() -> None:
    sent: list[bytes] = []
    told = event("traders", "x" * 100_000)

    async def events() -> AsyncGenerator[bytes, None]:
        yield told

    async def send(message: Message) -> None:
        sent.append(message.get("body", b""))

    async def receive() -> Message:
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    await EventStream(Streams(1, ApiMetrics()), "live", events)({"type": "http"}, receive, send)
    assert b"".join(sent) == told
    assert max(map(len, sent)) <= 16 * 1024
