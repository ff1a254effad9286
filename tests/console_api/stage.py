"""What stands behind an app in tests, and ways to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import httpx
from fastapi import FastAPI
from tests.console_api.doubles import InMemoryBackend, InMemoryMarket, InMemorySignals
from tests.console_api.lively import manifest_of

from chandlery.console.api.app import create_app
from chandlery.console.api.models import Candle, Signal
from chandlery.console.api.services import Services
from chandlery.console.client import EventLines, StreamEvent
from chandlery.console.settings import ConsoleSettings

FEED = "default/binance"
#: No test waits longer for what must come, s.
SOON_S = 10.0


@dataclass
class Stage:
    """Change settings before the app is first asked for."""

    backend: InMemoryBackend = field(default_factory=InMemoryBackend)
    signals: InMemorySignals = field(default_factory=InMemorySignals)
    market: InMemoryMarket = field(default_factory=InMemoryMarket)
    settings: ConsoleSettings = field(default_factory=lambda: ConsoleSettings(listen="127.0.0.1:0"))
    _app: FastAPI | None = None

    @property
    def app(self) -> FastAPI:
        """Made when first asked for, of the settings then."""
        if self._app is None:
            self._app = create_app(self.settings, self.backend, self.signals, self.market)
        return self._app

    @property
    def services(self) -> Services:
        """The app's."""
        services = self.app.state.services
        assert isinstance(services, Services)
        return services

    def add_trader(self, name: str, **changes: Any) -> None:
        """An Active Trader with a manifest."""
        self.backend.keep(name, manifest_of(name, "default/standard", "sma-cross", ["BTC/USDT"]))
        known = self.backend.traders[name]
        self.backend.traders[name] = known.model_copy(update={"state": "Active", "ready": True, **changes})

    def ask(self, **more: Any) -> httpx.AsyncClient:
        """A client in process."""
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1/api/v1/", **more)


class Stream:
    """One open stream, read event by event."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self._lines = EventLines()

    async def next(self, *names: str) -> StreamEvent:
        """The next event of these names (none: any); fails where none comes soon, or the stream ends."""
        async with asyncio.timeout(SOON_S):
            async for line in self.response.content:
                event = self._lines.take(line.decode().rstrip("\n"))
                if event is not None and (not names or event.name in names):
                    return event
        raise AssertionError("the stream ended")

    async def next_data(self, *names: str) -> Any:
        """Its data as JSON."""
        return json.loads((await self.next(*names)).data)

    async def ended(self) -> bytes:
        """What is left until the stream ends; fails where it doesn't soon."""
        async with asyncio.timeout(SOON_S):
            return await self.response.content.read()


@asynccontextmanager
async def stream(address: str, path: str, **headers: str) -> AsyncIterator[Stream]:
    """Open a stream of a served app and wait for its first bytes."""
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(timeout=timeout, read_bufsize=2**22) as session:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        async with session.get(f"{address}/api/v1/{path}", headers=sent) as response:
            assert response.status == 200, await response.text()
            opened = Stream(response)
            assert (await response.content.readline()).startswith(b": open")
            yield opened


async def until(true: Any) -> None:
    """Wait until something is so; fails where it isn't soon."""
    async with asyncio.timeout(SOON_S):
        while not true():  # noqa: ASYNC110 - nobody sets an event for what a test looks at
            await asyncio.sleep(0.01)


def candle(open_time_ms: int, close: str = "100.0", state: str = "closed") -> Candle:
    """A candle of BTC/USDT."""
    return Candle(
        open_time_ms=open_time_ms, open="100.0", high="101.0", low="99.0", close=close, volume="1", state=state
    )


def signal(number: int, **changes: Any) -> Signal:
    """A signal of default/alpha; its id is made of its number."""
    made = Signal(
        id=f"{number:032x}",
        trader="default/alpha",
        action="buy",
        symbol="BTC/USDT",
        interval="1m",
        open_time_ms=60_000 * number,
        emitted_ms=60_000 * number + 60_010,
        price="100.0",
        feed=FEED,
    )
    return made.model_copy(update=changes)
