"""The typed client, against a real server."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.console_api.conftest import Serve
from tests.console_api.lively import manifest_of
from tests.console_api.stage import FEED, SOON_S, Stage, candle, signal, until

from chandlery.console import client
from chandlery.console.api.models import Overview, TraderDetail
from chandlery.console.client import ApiClient, ApiInputError, ApiUnavailableError, EventLines
from chandlery.console.serving import ApiServer
from chandlery.core.errors import InputError

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "api-client" / "follow_signals.py"


async def _next(events: AsyncIterator[Any]) -> Any:
    async with asyncio.timeout(SOON_S):
        return await anext(events)


async def test_every_answer_is_of_its_type(stage: Stage, serve: Serve) -> None:
    server = await serve()
    stage.signals.tell(signal(1))
    async with ApiClient(server.address) as api:
        assert isinstance(await api.overview(), Overview)
        assert [one.pool async for one in api.pools()] == ["default/standard"]
        assert [one.feed async for one in api.feeds()] == [FEED]
        assert [one.open_time_ms for one in (await api.candles(FEED, "BTC/USDT", "1m", limit=1)).candles] == [60_000]
        assert (await api.signal(f"{1:032x}")).action == "buy"
        assert (await api.latency(60)).window_s == 60
        assert (await api.memory()).processes == []
        assert [one.trader async for one in api.traders(namespace="default")] == ["default/alpha", "default/beta"]


async def test_pages_are_read_to_their_end(stage: Stage, serve: Serve) -> None:
    server = await serve()
    for number in range(250):
        stage.signals.tell(signal(number))
        stage.add_trader(f"many/t-{number:03}")
    async with ApiClient(server.address) as api:
        assert [int(one.id, 16) async for one in api.signals()] == list(reversed(range(250)))
        assert [one.trader async for one in api.traders(namespace="many")] == [f"many/t-{n:03}" for n in range(250)]


async def test_a_trader_is_made_changed_suspended_and_removed(stage: Stage, serve: Serve) -> None:
    server = await serve()
    async with ApiClient(server.address) as api:
        made = await api.create_trader(manifest_of("default/new", "default/standard", "macd", ["BTC/USDT"]))
        assert isinstance(made, TraderDetail)
        manifest = made.manifest
        manifest["spec"]["market"]["interval"] = "5m"
        changed = await api.replace_trader(manifest, made.resource_version)
        assert changed.interval == "5m"
        with pytest.raises(ApiInputError) as refused:
            await api.replace_trader(manifest, made.resource_version)
        assert refused.value.problem.reason == "Conflict"
        assert (await api.suspend_trader("default/new")).suspended
        assert not (await api.suspend_trader("default/new", suspend=False)).suspended
        await api.delete_trader("default/new")
        with pytest.raises(ApiInputError) as gone:
            await api.trader("default/new")
        assert gone.value.problem.status == 404


async def test_the_token_is_sent_and_a_wrong_one_is_said(stage: Stage, token: str, serve: Serve) -> None:
    server = await serve()
    async with ApiClient(server.address, token=token) as api:
        assert (await api.overview()).traders == 3
    async with ApiClient(server.address, token="wrong") as api:
        with pytest.raises(ApiInputError) as refused:
            await api.overview()
        assert refused.value.problem.reason == "Unauthorized"
        with pytest.raises(ApiInputError):
            await _next(api.follow_signals())


async def test_nobody_there_is_unavailable(serve: Serve) -> None:
    server = await serve()
    await server.stop()
    async with ApiClient(server.address) as api:
        with pytest.raises(ApiUnavailableError, match="doesn't answer"):
            await api.overview()


async def test_a_stream_goes_on_where_it_was_when_the_server_comes_back(stage: Stage, tmp_path: Path) -> None:
    stage.settings.listen = f"unix:{tmp_path}/api.sock"
    troubles: list[str] = []

    def server() -> ApiServer:
        # As another process would: its streams aren't those that ended with the one before.
        stage.services.streams.ending.clear()
        return ApiServer(stage.app, stage.settings.listen, stage.services.streams)

    first, second = server(), server()
    await first.start()
    async with ApiClient(stage.settings.listen, on_trouble=troubles.append) as api:
        events = api.follow_signals()
        told = asyncio.create_task(_next(events))
        await until(lambda: stage.signals.following)
        stage.signals.tell(signal(1))
        assert (await told).signal.id == f"{1:032x}"
        await first.stop()
        for number in range(2, 5):
            stage.signals.tell(signal(number))
        told = asyncio.create_task(_next(events))
        await until(lambda: troubles)
        stage.services.streams.ending.clear()
        await second.start()
        later = [await told, await _next(events), await _next(events)]
        assert [int(one.signal.id, 16) for one in later] == [2, 3, 4]
        assert [one.lost for one in later] == [0, 0, 0]
        await events.aclose()
    await second.stop()


async def test_a_stream_that_is_cut_before_its_first_signal_misses_none(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.settings.listen = f"unix:{tmp_path}/api.sock"
    stage.signals.tell(signal(0))
    lines: list[EventLines] = []

    def made(last_id: str) -> EventLines:
        lines.append(EventLines(last_id))
        return lines[-1]

    monkeypatch.setattr(client, "EventLines", made)
    first, second = (ApiServer(stage.app, stage.settings.listen, stage.services.streams) for _ in range(2))
    await first.start()
    async with ApiClient(stage.settings.listen) as api:
        events = api.follow_signals()
        told = asyncio.create_task(_next(events))
        await until(lambda: lines and lines[0].last_id)
        await first.stop()
        stage.signals.tell(signal(1))
        stage.services.streams.ending.clear()
        await second.start()
        assert (await told).signal.id == f"{1:032x}"
        await events.aclose()
    await second.stop()


async def test_another_process_resumes_from_a_position_and_learns_what_was_lost(stage: Stage, serve: Serve) -> None:
    stage.signals.events = type(stage.signals.events)(maxlen=2)
    server = await serve()
    positions = [stage.signals.tell(signal(number)) for number in range(6)]
    async with ApiClient(server.address) as api:
        events = api.follow_signals(after=positions[0])
        event = await _next(events)
        assert (event.position, event.lost) == (positions[4], 3)
        assert (await _next(events)).lost == 0
        await events.aclose()


async def test_candles_are_followed(stage: Stage, serve: Serve) -> None:
    server = await serve()
    async with ApiClient(server.address) as api:
        events = api.follow_candles(FEED, "BTC/USDT", "1m")
        told = asyncio.create_task(_next(events))
        await until(lambda: stage.market.following)
        stage.market.tell(FEED, "BTC/USDT", "1m", candle(120_000, "101.5"), reset=True)
        event = await told
        assert (event.candle.close, event.reset) == ("101.5", True)
        await events.aclose()


async def test_a_client_that_isn_t_open_says_how_to_open_it() -> None:
    with pytest.raises(InputError, match="async with"):
        await ApiClient("http://127.0.0.1:1").overview()


async def test_the_example_prints_signals_and_goes_on_where_it_stopped(
    stage: Stage, token: str, serve: Serve, tmp_path: Path
) -> None:
    server = await serve()
    position = tmp_path / "position"

    async def run(after: int) -> str:
        """The example's words about two signals that come while it runs, or came before."""
        command = ["--address", server.address, "--position", str(position), "--count", "2"]
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(EXAMPLE), *command, stdout=asyncio.subprocess.PIPE, env={**os.environ, "CHANDLERY_TOKEN": token}
        )  # fmt: skip
        try:
            await until(lambda: stage.signals.following)
            for number in (after + 1, after + 2):
                stage.signals.tell(signal(number, reason=f"reason {number}"))
                stage.signals.tell(signal(number, reason=f"reason {number}", stages=[("decided", 1.0)]))
            told, _ = await asyncio.wait_for(process.communicate(), SOON_S)
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode == 0
        return told.decode()

    first = await run(0)
    assert "3 of 3 Traders Ready" in first
    assert "reason 1" in first
    assert "reason 2" in first
    # This one comes while nobody follows.
    stage.signals.tell(signal(3, reason="reason 3", stages=[("decided", 1.0)]))
    second = await run(3)
    assert "reason 3" in second
    assert "reason 4" in second
    assert "reason 5" not in second
