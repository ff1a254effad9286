"""A small world behind the app, asked in process; and the same app behind a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from tests.console_api.stage import FEED, Stage, candle

from chandlery.console.api.models import Feed, Pool
from chandlery.console.serving import ApiServer

Serve = Callable[[], Awaitable[ApiServer]]


@pytest.fixture
def stage() -> Stage:
    """Three Traders, a pool, a feed with two candles; nothing moves by itself."""
    made = Stage()
    for name in ("default/alpha", "default/beta", "research/gamma"):
        made.add_trader(name)
    made.backend.pools = [Pool(pool="default/standard", feed=FEED, workers=1, ready_workers=1, capacity=8, used=3)]
    made.backend.feeds = [Feed(feed=FEED, alive=True, connected=True, symbols=["BTC/USDT"], intervals=["1m"])]
    made.market.series[FEED, "BTC/USDT", "1m"] = [candle(0), candle(60_000)]
    return made


@pytest.fixture
async def api(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    """Asks the app in process."""
    async with stage.ask() as client:
        yield client


@pytest.fixture
async def serve(stage: Stage) -> AsyncIterator[Serve]:
    """Starts a server of the stage's app on a port of its own; ends it."""
    servers: list[ApiServer] = []

    async def started() -> ApiServer:
        server = ApiServer(stage.app, stage.settings.listen, stage.services.streams)
        await server.start()
        servers.append(server)
        return server

    yield started
    for server in servers:
        await server.stop()


@pytest.fixture
def token(stage: Stage, tmp_path: Path) -> str:
    """The server asks for this token; use it before the app is made."""
    file = tmp_path / "token"
    file.write_text("right\n")
    stage.settings.token_file = str(file)
    return "right"
