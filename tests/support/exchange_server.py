"""A WebSocket server that speaks Binance spot's combined-stream protocol, and misbehaves on request.

::

    async with ExchangeServer() as exchange:
        ... options={"base_url": exchange.base_url}
        connection = await exchange.next_connection()
        await exchange.send(trade_frame("BTCUSDT", 1, "61837.63", "0.02", 1_723_161_255_342))
        await exchange.replay(["capture.frames.gz"], speed="max")

Frames go to the connections that asked for their stream. What is sent while nobody is connected is lost, as
at an exchange.
"""

from __future__ import annotations

import asyncio
import gzip
import heapq
import json
import time
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from aiohttp import WSMsgType, web


def trade_frame(
    symbol: str,
    trade_id: int,
    price: str,
    quantity: str,
    time_ms: int,
    *,
    event_ms: int | None = None,
    buyer_maker: bool = False,
) -> str:
    """A trade as the exchange writes it (``symbol`` in its spelling: ``BTCUSDT``)."""
    data = {
        "e": "trade",
        "E": time_ms if event_ms is None else event_ms,
        "s": symbol,
        "t": trade_id,
        "p": price,
        "q": quantity,
        "T": time_ms,
        "m": buyer_maker,
        "M": True,
    }
    return json.dumps({"stream": f"{symbol.lower()}@trade", "data": data}, separators=(",", ":"))


def other_frame(symbol: str, kind: str, event_ms: int) -> str:
    """A frame of another stream, such as ``depthUpdate``, with an event time."""
    data = {"e": kind, "E": event_ms, "s": symbol}
    return json.dumps({"stream": f"{symbol.lower()}@{kind}", "data": data}, separators=(",", ":"))


def capture_lines(paths: Sequence[str | Path]) -> Iterator[tuple[int, str]]:
    """Lines of captures, merged by receive time: (ns, JSON text)."""
    return heapq.merge(*(_lines(Path(path)) for path in paths), key=itemgetter(0))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        for line in lines:
            stamp, _, payload = line.rstrip("\n").partition(" ")
            yield int(stamp), payload


class ServerConnection:
    """One client's connection, seen from the exchange.

    Attributes:
        streams: what the client asked for, in the address and by SUBSCRIBE, and not left by UNSUBSCRIBE.
        requests: such messages as they came.
        pongs, pings: payloads of the client's pongs and own pings.
        deaf: while true, requests are noted and neither done nor answered; frames go out.
        silent: while true, nothing is sent on this connection and nothing answered; frames are lost.
        sent: text messages sent on this connection, answers to requests included.
        closed: set when the connection has ended.
    """

    def __init__(self, socket: web.WebSocketResponse, request: web.Request) -> None:
        self._socket = socket
        self._request = request
        query = request.query.get("streams", "")
        self.streams: list[str] = [stream for stream in query.split("/") if stream]
        self.requests: list[dict[str, Any]] = []
        self.pongs: list[bytes] = []
        self.pings: list[bytes] = []
        self.deaf = False
        self.silent = False
        self.sent = 0
        self.closed = asyncio.Event()
        self.changed = asyncio.Event()

    async def send(self, text: str) -> None:
        """Send a text message, subscribed or not."""
        if not self.silent and not self.closed.is_set():
            await self._socket.send_str(text)
            self.sent += 1

    async def send_bytes(self, content: bytes) -> None:
        """Send a binary message."""
        await self._socket.send_bytes(content)

    async def ping(self, payload: bytes) -> None:
        """Send a ping; wait for its pong with :meth:`until`."""
        await self._socket.ping(payload)

    async def close(self) -> None:
        """Close in order."""
        await self._socket.close()

    def cut(self) -> None:
        """Reset the TCP connection."""
        transport = self._request.transport
        assert transport is not None
        transport.abort()

    async def cut_mid_frame(self, text: str) -> None:
        """Send the head and half the payload of a text frame, then end the TCP connection."""
        transport = self._request.transport
        assert isinstance(transport, asyncio.Transport)
        payload = text.encode()
        # RFC 6455: FIN and opcode 1, then the length as 16 bits.
        transport.write(b"\x81\x7e" + len(payload).to_bytes(2, "big") + payload[: len(payload) // 2])
        transport.close()
        await self.closed.wait()

    async def until(self, what: str, condition: Any, timeout_s: float = 10.0) -> None:
        """Wait until ``condition()`` holds for this connection.

        Raises:
            AssertionError: it doesn't within the time; says what was waited for and what there is.
        """
        deadline = time.monotonic() + timeout_s
        while not condition():
            self.changed.clear()
            left = deadline - time.monotonic()
            assert left > 0, f"not within {timeout_s} s: {what}; streams {self.streams[:5]}, pongs {self.pongs}"
            try:
                await asyncio.wait_for(self.changed.wait(), min(left, 0.05))
            except TimeoutError:
                continue

    async def converse(self, known: frozenset[str] | None) -> None:
        """Answer the client until it is gone."""
        async for message in self._socket:
            if message.type is WSMsgType.PONG:
                self.pongs.append(bytes(message.data))
            elif message.type is WSMsgType.PING:
                self.pings.append(bytes(message.data))
                if not self.silent:
                    await self._socket.pong(message.data)
            elif message.type is WSMsgType.TEXT:
                await self._answer(json.loads(message.data), known)
            self.changed.set()

    async def _answer(self, request: dict[str, Any], known: frozenset[str] | None) -> None:
        self.requests.append(request)
        if self.deaf:
            return
        wanted = request.get("params", [])
        if request.get("method") == "UNSUBSCRIBE":
            self.streams = [stream for stream in self.streams if stream not in wanted]
            await self.send(json.dumps({"result": None, "id": request.get("id")}))
            return
        refused = [name for name in wanted if known is not None and name.partition("@")[0] not in known]
        if refused:
            error = {"code": 2, "msg": f"Invalid symbol in {refused[0]}"}
            await self.send(json.dumps({"error": error, "id": request.get("id")}))
            return
        self.streams += wanted
        await self.send(json.dumps({"result": None, "id": request.get("id")}))


class ExchangeServer:
    """The exchange. Use as an asynchronous context.

    Args:
        known: symbols it has, in its spelling and lower case (``btcusdt``); None for any. Streams of others
            are answered by an error, whether asked for in the address or by SUBSCRIBE.
        host: address of this machine that it is reached at.
    """

    def __init__(self, known: Sequence[str] | None = None, host: str = "127.0.0.1") -> None:
        self._host = host
        self._known = None if known is None else frozenset(known)
        self._arrivals: asyncio.Queue[ServerConnection] = asyncio.Queue()
        self.connections: list[ServerConnection] = []
        self.accepted = 0
        self.refuse = False
        self.base_url = ""
        app = web.Application()
        app.router.add_get("/stream", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)

    async def __aenter__(self) -> ExchangeServer:
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.base_url = f"ws://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for connection in list(self.connections):
            connection.cut()
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if self.refuse:
            return web.Response(status=503)
        socket = web.WebSocketResponse(autoping=False)
        await socket.prepare(request)
        connection = ServerConnection(socket, request)
        self.accepted += 1
        self.connections.append(connection)
        self._arrivals.put_nowait(connection)
        try:
            await self._refuse_unknown(connection)
            await connection.converse(self._known)
        except ConnectionError:
            pass  # The client went, or a test cut it: both are ends of the conversation.
        finally:
            self.connections.remove(connection)
            connection.closed.set()
        return socket

    async def _refuse_unknown(self, connection: ServerConnection) -> None:
        if self._known is None:
            return
        for stream in list(connection.streams):
            if stream.partition("@")[0] not in self._known:
                connection.streams.remove(stream)
                error = {"code": 2, "msg": f"Invalid symbol in {stream}"}
                await connection.send(json.dumps({"error": error, "id": None}))

    async def next_connection(self, timeout_s: float = 15.0) -> ServerConnection:
        """The next connection that comes, or came and wasn't asked for yet.

        Raises:
            TimeoutError: none comes.
        """
        return await asyncio.wait_for(self._arrivals.get(), timeout_s)

    async def send(self, text: str) -> int:
        """Send a frame to every connection that asked for its stream; returns how many."""
        stream = json.loads(text).get("stream")
        sent = 0
        for connection in list(self.connections):
            if stream in connection.streams:
                await connection.send(text)
                sent += 1
        return sent

    async def replay(
        self,
        paths: Sequence[str | Path],
        *,
        speed: float | Literal["max"] = "max",
        everything: bool = False,
        limit: int | None = None,
    ) -> int:
        """Send captured frames in the order and, by ``speed``, at the pace of their receive times.

        Args:
            paths: ``.frames`` or ``.frames.gz`` files, merged.
            speed: 1 for the captured pace, N for N times that, ``max`` for as fast as clients read.
            everything: send each frame to every connection, asked for or not.
            limit: at most so many frames.

        Returns:
            How many messages were sent.
        """
        sent = 0
        origin: tuple[int, float] | None = None
        for index, (stamp_ns, text) in enumerate(capture_lines(paths)):
            if limit is not None and index >= limit:
                break
            if speed != "max":
                origin = origin or (stamp_ns, time.monotonic())
                wait_s = origin[1] + (stamp_ns - origin[0]) / 1e9 / speed - time.monotonic()
                if wait_s > 0.001:
                    await asyncio.sleep(wait_s)
            if everything:
                for connection in list(self.connections):
                    await connection.send(text)
                    sent += 1
            else:
                sent += await self.send(text)
            if index % 500 == 0:
                await asyncio.sleep(0)
        return sent
