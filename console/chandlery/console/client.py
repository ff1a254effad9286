"""A typed client of the REST API: pages read to their end, streams that go on after a cut where they were.

::

    async with ApiClient("http://127.0.0.1:8420") as api:
        print(await api.overview())
        async for event in api.follow_signals(trader="default/btc-cross"):
            print(event.signal.action, event.signal.price)
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from urllib.parse import quote

import aiohttp
from pydantic import BaseModel, ValidationError

from chandlery.console.api.events import CandleChange, Failed, Gap
from chandlery.console.api.models import (
    Candles,
    Feed,
    Latency,
    Memory,
    Overview,
    Page,
    Pool,
    Problem,
    Signal,
    SignalDetail,
    Trader,
    TraderDetail,
)
from chandlery.console.market import CandleEvent, SignalEvent
from chandlery.core.errors import InputError, UnavailableError

#: Pauses before a stream is opened again, s: the first, and the longest; each is half to once as long.
_FIRST_PAUSE_S: Final = 0.25
_LONGEST_PAUSE_S: Final = 10.0
#: A stream that says nothing for so long is dead: the server says something every 10 s.
_SILENCE_S: Final = 30.0
_ANSWER_S: Final = 30.0
#: Longest line of a stream: one event is one line, and the longest has 5,000 candles or 1,000 Traders.
_LINE_BYTES: Final = 4 * 1024 * 1024

Model = TypeVar("Model", bound=BaseModel)


class ApiInputError(InputError):
    """The API refused a request. ``problem`` names the field."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


class ApiUnavailableError(UnavailableError):
    """The API, or what it looks at, doesn't answer. ``problem``: what it said, if it did."""

    def __init__(self, message: str, problem: Problem | None = None) -> None:
        super().__init__(message)
        self.problem = problem


@dataclass
class StreamEvent:
    """One server-sent event."""

    name: str
    data: str
    event_id: str


@dataclass
class EventLines:
    """Lines of a stream made into events. ``last_id``: of the newest whole event, what to resume from."""

    last_id: str = ""
    _id: str = ""
    _name: str = ""
    _data: list[str] = field(default_factory=list)

    def take(self, line: str) -> StreamEvent | None:
        """One line without its end; an event where it completes one."""
        if not line:
            self.last_id = self._id or self.last_id
            made = StreamEvent(self._name or "message", "\n".join(self._data), self.last_id) if self._data else None
            self.forget()
            return made
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._name = value
        elif name == "id" and "\0" not in value:
            self._id = value
        return None

    def forget(self) -> None:
        """Half an event that a cut left behind is none."""
        self._id, self._name, self._data = "", "", []


class ApiClient:
    """Asks one server.

    Args:
        address: ``http://host:port``, ``https://…`` or ``unix:/path``.
        token: for ``Authorization: Bearer``; empty: none.
        on_trouble: told in a sentence when a stream is cut or can't be told; it goes on by itself.

    Every method raises ApiInputError where the API refuses, ApiUnavailableError where nobody answers.
    """

    def __init__(self, address: str, token: str = "", on_trouble: Callable[[str], None] | None = None) -> None:
        self._socket = address.removeprefix("unix:") if address.startswith("unix:") else ""
        self._base = "http://localhost" if self._socket else address.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._on_trouble = on_trouble or (lambda _: None)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> ApiClient:
        connector = aiohttp.UnixConnector(self._socket) if self._socket else aiohttp.TCPConnector()
        self._session = aiohttp.ClientSession(
            connector=connector, headers=self._headers, read_bufsize=_LINE_BYTES, raise_for_status=False
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def overview(self) -> Overview:
        """The first look."""
        return await self._get("overview", Overview)

    def traders(self, *, namespace: str = "", pool: str = "", state: str = "", q: str = "") -> AsyncIterator[Trader]:
        """Traders by name, page after page."""
        return self._pages("traders", Trader, {"namespace": namespace, "pool": pool, "state": state, "q": q})

    async def trader(self, trader: str) -> TraderDetail:
        """One Trader (``namespace/name``) with its manifest."""
        return await self._get(f"traders/{_quoted(trader)}", TraderDetail)

    async def create_trader(self, manifest: Mapping[str, Any]) -> TraderDetail:
        """Make a Trader."""
        return TraderDetail.model_validate_json(await self._ask("POST", "traders", body=manifest))

    async def replace_trader(self, manifest: Mapping[str, Any], resource_version: str = "") -> TraderDetail:
        """Change a Trader; with ``resource_version`` only if nobody else changed it meanwhile."""
        metadata = manifest["metadata"]
        path = f"traders/{metadata.get('namespace', 'default')}/{metadata['name']}"
        headers = {"If-Match": f'"{resource_version}"'} if resource_version else {}
        return TraderDetail.model_validate_json(await self._ask("PUT", path, body=manifest, headers=headers))

    async def suspend_trader(self, trader: str, *, suspend: bool = True) -> TraderDetail:
        """Let a Trader decide nothing more; ``suspend=False``: let it go on."""
        answer = await self._ask("PUT", f"traders/{_quoted(trader)}/suspend", body={"suspend": suspend})
        return TraderDetail.model_validate_json(answer)

    async def delete_trader(self, trader: str) -> None:
        """Remove a Trader."""
        await self._ask("DELETE", f"traders/{_quoted(trader)}")

    def pools(self) -> AsyncIterator[Pool]:
        """TraderPools by name."""
        return self._pages("pools", Pool, {})

    def feeds(self) -> AsyncIterator[Feed]:
        """MarketFeeds by name."""
        return self._pages("feeds", Feed, {})

    async def candles(
        self, feed: str, symbol: str, interval: str, *, limit: int = 500, before_ms: int | None = None
    ) -> Candles:
        """The newest candles of a series, oldest first; or the last ones that open before a moment (ms)."""
        asked = {"feed": feed, "symbol": symbol, "interval": interval, "limit": limit, "before_ms": before_ms}
        return await self._get("candles", Candles, asked)

    def signals(
        self,
        *,
        trader: str = "",
        symbol: str = "",
        action: str = "",
        feed: str = "",
        state: str = "",
        since_ms: int | None = None,
        until_ms: int | None = None,
    ) -> AsyncIterator[Signal]:
        """Signals, newest first, page after page, as far back as the server keeps them. Times in ms.

        Args:
            state: only those whose life is in it now: ``detected``, ``invalidated``, ``active``, ``closed`` or ``expired``.
        """
        times = {"since_ms": since_ms, "until_ms": until_ms}
        asked = {**_filters(trader, symbol, action, feed), "state": state, **times}
        return self._pages("signals", Signal, asked)

    async def signal(self, signal_id: str) -> SignalDetail:
        """One signal whole."""
        return await self._get(f"signals/{signal_id}", SignalDetail)

    async def latency(self, window_s: int = 300, trader: str = "") -> Latency:
        """Latency over the signals of the last seconds."""
        return await self._get("latency", Latency, {"window_s": window_s, "trader": trader})

    async def memory(self) -> Memory:
        """Where the memory is."""
        return await self._get("memory", Memory)

    async def follow_signals(
        self, *, after: str = "", trader: str = "", symbol: str = "", action: str = "", feed: str = ""
    ) -> AsyncGenerator[SignalEvent, None]:
        """Signals as they come, for ever: first without stages, again with them. A cut stream goes on where it was.

        Args:
            after: the ``position`` of an event seen before, also by another process; empty: from now on.

        Raises:
            ApiInputError: the server refuses; asking again won't help.
        """
        lost = 0
        async for event in self._stream("signals/stream", _filters(trader, symbol, action, feed), after):
            if event.name == "gap":
                lost += Gap.model_validate_json(event.data).lost
            elif event.name == "signal":
                yield SignalEvent(event.event_id, Signal.model_validate_json(event.data), lost)
                lost = 0

    async def follow_candles(self, feed: str, symbol: str, interval: str) -> AsyncGenerator[CandleEvent, None]:
        """Changes of a series from now on, for ever. After a cut, what came meanwhile isn't told: ask for candles.

        Raises:
            ApiInputError: the server refuses; asking again won't help.
        """
        asked = {"feed": feed, "symbol": symbol, "interval": interval}
        async for event in self._stream("candles/stream", asked, ""):
            if event.name == "candle":
                change = CandleChange.model_validate_json(event.data)
                yield CandleEvent(change.feed, change.symbol, change.interval, change.candle, change.reset)

    async def _get(self, path: str, model: type[Model], asked: Mapping[str, Any] | None = None) -> Model:
        return model.model_validate_json(await self._ask("GET", path, asked=asked))

    async def _pages(self, path: str, model: type[Model], asked: Mapping[str, Any]) -> AsyncGenerator[Model, None]:
        cursor = ""
        while True:
            # mypy takes no variable for a type argument; the class is made at run time.
            page_type: type[Page[Model]] = Page.__class_getitem__(model)  # type: ignore[assignment]
            page = await self._get(path, page_type, {**asked, "cursor": cursor})
            for item in page.items:
                yield item
            cursor = page.next
            if not cursor:
                return

    def _url(self, path: str) -> str:
        return f"{self._base}/api/v1/{path}"

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise InputError("use the client as `async with ApiClient(…) as api:`")
        return self._session

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        asked: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        timeout = aiohttp.ClientTimeout(total=_ANSWER_S)
        try:
            async with self._open().request(
                method, self._url(path), params=_given(asked), json=body, headers=headers, timeout=timeout
            ) as response:
                answer = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ApiUnavailableError(f"{self._base} doesn't answer: {error or type(error).__name__}") from error
        if response.status >= 400:
            raise _error(response.status, answer)
        return answer

    async def _stream(self, path: str, asked: Mapping[str, Any], after: str) -> AsyncGenerator[StreamEvent, None]:
        lines, pause_s = EventLines(last_id=after), _FIRST_PAUSE_S
        while True:
            try:
                async for event in self._once(path, asked, lines):
                    pause_s = _FIRST_PAUSE_S
                    if event.name == "failed":
                        self._on_trouble(Failed.model_validate_json(event.data).problem.detail)
                    else:
                        yield event
                self._on_trouble("the stream ended")
            except ApiUnavailableError as error:
                self._on_trouble(str(error))
            # Streams of many clients that one restart cut don't come back in one moment.
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _once(self, path: str, asked: Mapping[str, Any], lines: EventLines) -> AsyncGenerator[StreamEvent, None]:
        headers = {"Accept": "text/event-stream"}
        if lines.last_id:
            headers["Last-Event-ID"] = lines.last_id
        lines.forget()
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_ANSWER_S, sock_read=_SILENCE_S)
        try:
            async with self._open().get(
                self._url(path), params=_given(asked), headers=headers, timeout=timeout
            ) as response:
                if response.status >= 400:
                    raise _error(response.status, await response.read())
                async for line in response.content:
                    event = lines.take(line.decode("utf-8", "replace").rstrip("\r\n"))
                    if event is not None:
                        yield event
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ApiUnavailableError(f"the stream was cut: {error or type(error).__name__}") from error


def _given(asked: Mapping[str, Any] | None) -> dict[str, str]:
    """A query string's parameters; empty ones are left out."""
    return {name: str(value) for name, value in (asked or {}).items() if value not in ("", None)}


def _filters(trader: str, symbol: str, action: str, feed: str) -> dict[str, Any]:
    return {"trader": trader, "symbol": symbol, "action": action, "feed": feed}


def _error(status: int, answer: bytes) -> ApiInputError | ApiUnavailableError:
    try:
        problem = Problem.model_validate_json(answer)
    except ValidationError:
        text = answer[:200].decode("utf-8", "replace")
        problem = Problem(title="", status=status, detail=f"status {status}: {text}", reason="Unknown")
    if status >= 500:
        return ApiUnavailableError(problem.detail, problem)
    return ApiInputError(problem)


def _quoted(trader: str) -> str:
    """``namespace/name`` as two parts of a path, whatever stands in it."""
    namespace, _, name = trader.partition("/")
    return f"{quote(namespace, safe='')}/{quote(name, safe='')}"
