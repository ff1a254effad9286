"""Server-sent events: their form, and a response that holds no more than its client takes.

Nothing is queued for a slow client: events are made when the socket has taken those before (``Events``), so a client
that doesn't read holds one event in memory and what the kernel buffers. One whose socket takes nothing for
:data:`CUT_AFTER_S` is cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from chandlery.console.api.metrics import ApiMetrics
from chandlery.console.api.problems import headers_of, problem, response

log = logging.getLogger("chandlery.console.api")

#: A socket that takes nothing for so long has nobody behind it, s: three of the console's longest pauses (10 s).
CUT_AFTER_S: Final = 30.0
#: Handed over at once: a client on a slow line that takes so much in time is not one that takes nothing, though a state
#: of all Traders may have half a megabyte.
_SLICE_BYTES: Final = 16 * 1024
#: A client that reads takes the end of its stream within this, s; a process that ends waits no longer.
_END_S: Final = 1.0
#: Silence longer than this makes proxies close a connection: most wait 30 s or 60 s.
KEEP_ALIVE_S: Final = 10.0
#: Key of the scope under which a server gives the way to drop a connection at once (see console/serving.py).
ABORT_KEY: Final = "chandlery.abort"
KEEP_ALIVE: Final = b": keep-alive\n\n"
_BREAKS: Final = re.compile(r"\r\n|\r|\n")
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Type": "text/event-stream; charset=utf-8",
    # nginx would gather a stream otherwise.
    "X-Accel-Buffering": "no",
}


def event(name: str, data: str, event_id: str = "") -> bytes:
    """One event. ``data`` may have several lines; an ``event_id`` is what a client resumes from."""
    lines = [f"event: {name}"]
    if event_id:
        lines.append(f"id: {event_id}")
    lines += [f"data: {line}" for line in _BREAKS.split(data)]
    return ("\n".join(lines) + "\n\n").encode("utf-8", "replace")


def place(event_id: str) -> bytes:
    """An event of no data: a client takes its id for what to resume from, and tells nobody."""
    return f"id: {event_id}\n\n".encode()


@dataclass
class Streams:
    """The streams of one process.

    Attributes:
        most: open at once. cut_after_s: see :data:`CUT_AFTER_S`. ending: set when the process ends: streams end then.
    """

    most: int
    metrics: ApiMetrics
    cut_after_s: float = CUT_AFTER_S
    ending: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def open(self) -> int:
        """How many are."""
        return self.metrics.open.total()

    def end(self) -> None:
        """End all of them now; new ones end at once."""
        self.ending.set()


class EventStream(Response):
    """A response of events.

    Args:
        kind: for the figures: ``live``, ``signals`` or ``candles``.
        events: makes the generator of encoded events; each is asked for when the one before was taken.
    """

    def __init__(self, streams: Streams, kind: str, events: Callable[[], AsyncGenerator[bytes, None]]) -> None:
        super().__init__(status_code=200, headers=_HEADERS)
        del self.headers["content-length"]
        self._streams = streams
        self._kind = kind
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the client goes, the process ends, or nobody takes them."""
        streams, metrics = self._streams, self._streams.metrics
        if streams.open >= streams.most:
            metrics.refused += 1
            told = problem(503, "TooManyStreams", f"{streams.most} streams are open, the most that this process keeps; close one, or raise `streams`")  # fmt: skip
            await response(told, headers_of(told))(scope, receive, send)
            return
        metrics.opened[self._kind] += 1
        metrics.open[self._kind] += 1
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await self._serve(scope, receive, send)
        finally:
            metrics.open[self._kind] -= 1

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        writing = asyncio.create_task(self._write(send))
        leaving = asyncio.create_task(_until_gone(receive))
        ending = asyncio.create_task(self._streams.ending.wait())
        tasks = (writing, leaving, ending)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if not writing.cancelled() and isinstance(error := writing.exception(), _CutError):
            await self._cut(scope)
            return
        if not writing.cancelled() and error is not None:
            log.error("a stream failed", exc_info=error, extra={"stream": self._kind})
        try:
            async with asyncio.timeout(_END_S):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            await _drop(scope)

    async def _cut(self, scope: Scope) -> None:
        self._streams.metrics.cut += 1
        peer = scope.get("client")
        log.warning("a stream was cut: its client reads nothing", extra={"stream": self._kind, "peer": peer})
        await _drop(scope)

    async def _write(self, send: Send) -> None:
        async with contextlib.aclosing(self._events()) as events:
            async for chunk in events:
                for begin in range(0, len(chunk), _SLICE_BYTES):
                    await self._hand_over(chunk[begin : begin + _SLICE_BYTES], send)

    async def _hand_over(self, part: bytes, send: Send) -> None:
        try:
            async with asyncio.timeout(self._streams.cut_after_s):
                await send({"type": "http.response.body", "body": part, "more_body": True})
        except TimeoutError as error:
            raise _CutError from error


class _CutError(Exception):
    """The client takes nothing."""


async def _drop(scope: Scope) -> None:
    """Drop the connection: closing in order would wait for what the client doesn't take."""
    abort = scope.get(ABORT_KEY)
    if abort is not None:
        abort()
        # The server is told in its own turn.
        await asyncio.sleep(0)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
