"""The browser and what it looks at: the demo as a process of its own, or a world whose knobs a test turns."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest_asyncio
from fastapi import FastAPI
from playwright.async_api import Browser
from tests.console_api.lively import World
from tests.console_web import browsing
from tests.console_web.browsing import Sight

from chandlery.console.api.app import create_app
from chandlery.console.serving import ApiServer
from chandlery.console.settings import ConsoleSettings

ROOT = Path(__file__).resolve().parents[2]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """One Chromium for the tests of a module."""
    async with browsing.browser() as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def demo() -> AsyncIterator[str]:
    """Address of the demo, a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.console_api.demo", "--port", "0", cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            yield (await process.stdout.readline()).decode().strip()
    finally:
        process.terminate()
        await process.wait()


@dataclass
class Served:
    """A world behind the app in this process; change settings before :meth:`start`."""

    world: World = field(default_factory=World)
    settings: ConsoleSettings = field(default_factory=lambda: ConsoleSettings(listen="127.0.0.1:0"))
    app: FastAPI | None = None
    server: ApiServer | None = None
    moving: asyncio.Task[None] | None = None

    async def start(self, *, moves: bool = True) -> str:
        """Serve; returns the address. moves: whether the world goes on by itself."""
        self.app = create_app(self.settings, self.world.backend, self.world.signals, self.world.market)
        self.server = ApiServer(self.app, self.settings.listen, self.app.state.services.streams)
        await self.server.start()
        if moves:
            self.moving = asyncio.create_task(self.world.run())
        return self.server.address

    async def stop(self) -> None:
        """End the server and the world."""
        if self.moving is not None:
            self.moving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.moving
        if self.server is not None:
            await self.server.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def served() -> AsyncIterator[Served]:
    """A world of its own for a test."""
    made = Served()
    yield made
    await made.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def sight(browser: Browser, demo: str) -> AsyncIterator[Sight]:
    """A page on the demo; whatever it complained of fails the test."""
    async with browsing.sight(browser, demo) as page:
        yield page
        assert page.complaints == []
