"""What several files of tests start from."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from tests.operator_parts.feeds_bench import PACED, Market
from tests.operator_parts.pools_bench import Bench


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    async with aiohttp.ClientSession() as session:
        made = Bench(session)
        yield made
        await made.workers.close()


@pytest_asyncio.fixture
async def market(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Market]:
    async with aiohttp.ClientSession() as session:
        made = Market(session, getattr(request, "param", PACED))
        runners = []
        for component in made.answers:

            async def answer(_request: web.Request, component: str = component) -> web.Response:
                return web.json_response(made.answers[component])

            app = web.Application()
            app.router.add_get("/v1/status", answer)
            runner = web.AppRunner(app)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            runners.append(runner)
            monkeypatch.setattr(f"chandlery.operator.feeds.{component.upper()}_PORT", runner.addresses[0][1])
        # Each look asks, and what holds for two looks in a row holds for long enough.
        monkeypatch.setattr("chandlery.operator.feeds._ASK_S", 0.0)
        monkeypatch.setattr("chandlery.core.behind.HOLDS_S", 0.0)
        yield made
        for runner in runners:
            await runner.cleanup()
