"""The source ``binance``: trades of Binance spot by its combined WebSocket streams."""

from __future__ import annotations

import asyncio
import logging
import random
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import aiohttp

from chandlery.core.errors import InputError, UnavailableError
from chandlery.core.symbols import exchange_symbol
from chandlery.core.wire import BackfillRecord
from chandlery.stream.ingest.binance_subscription import Subscription
from chandlery.stream.ingest.clock import Clock
from chandlery.stream.ingest.counts import Counts
from chandlery.stream.ingest.frames import (
    MalformedFrame,
    OtherFrame,
    TradeEvent,
    read_amounts,
    read_error,
    read_frame,
    read_request,
)
from chandlery.stream.ingest.options import BinanceOptions
from chandlery.stream.ingest.source import Outlet, Position, Trades
from chandlery.stream.ingest.watermark import ClockOffset, ExchangeTime

log = logging.getLogger("chandlery.ingest")

#: The exchange's limit a connection.
MAX_STREAMS: Final = 1_024
# The exchange cuts clients that send more than five messages a second; one of them is our ping.
_REQUEST_PERIOD_S: Final = 0.3
_PING_PERIOD_NS: Final = 1_000_000_000
# TCP and TLS to another continent take under a second; ten leave room for two lost SYNs (1 s + 2 s + 4 s).
_CONNECT_TIMEOUT_S: Final = 10.0
# An answer takes a round trip, half a second at most; as above, ten leave room for what is lost and sent again.
_ANSWER_TIMEOUT_S: Final = 10.0
# The exchange's answer to our close frame isn't worth waiting for: what it sent before has been read.
_CLOSE_TIMEOUT_S: Final = 0.5
_MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
# Streams of one exchange are not in step by up to 0.2 s, and two connections not by as much again; ten times that, and
# well below the five seconds of lateness that the aggregator allows.
_IN_STEP_S: Final = 2.0
# Ten minutes lie between our age limit and the exchange's 24 hours: room for ten tries.
_HANDOVER_RETRY_S: Final = 60.0
FIRST_BACKOFF_S: Final = 0.25
LAST_BACKOFF_S: Final = 30.0


class ConnectionLost(UnavailableError):
    """A connection ended, or brought nothing for too long."""


def backoff_s(attempt: int, chance: float) -> float:
    """Wait before a reconnect: full jitter over a doubling, capped window.

    Args:
        attempt: failures in a row before this one, from 0. chance: uniform in 0 … 1.
    """
    return chance * min(LAST_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(attempt, 16))


class BinanceSource:
    """Live trades. Reconnects for ever; never waits for room.

    Args:
        options: see :class:`BinanceOptions`. symbols: unified symbols.
        heartbeat_ms: silence after which a symbol's watermark moves without a trade.
        silence_timeout_ms: a connection that brings nothing at all for this long, no pong either, is lost. One that brings
            no data only, as of a market that rests, gets a second one beside it, and is left if that one brings some.

    Raises:
        InputError: more streams than one connection carries.
    """

    def __init__(
        self,
        options: BinanceOptions,
        symbols: Sequence[str],
        heartbeat_ms: int,
        silence_timeout_ms: int,
        counts: Counts,
        clock: Clock,
    ) -> None:
        self._options = options
        self._symbols = {exchange_symbol(symbol): symbol for symbol in symbols}
        self._heartbeat_ns = heartbeat_ms * 1_000_000
        self._silence_ns = silence_timeout_ms * 1_000_000
        self._counts = counts
        self._clock = clock
        self._offset = ClockOffset()
        self._time = ExchangeTime()
        self._current: Connection | None = None
        self._connections: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._streams = self._streams_of(self._symbols)

    def _streams_of(self, names: Iterable[str]) -> list[str]:
        streams = [f"{name.lower()}@trade" for name in names] + self._options.extra_streams
        if len(streams) > MAX_STREAMS:
            raise InputError(
                f"{len(streams)} streams: the exchange carries {MAX_STREAMS} a connection; use several feeds"
            )
        return streams

    def carries(self, symbols: Sequence[str]) -> bool:
        """Whether one connection carries all of them."""
        return len(symbols) + len(self._options.extra_streams) <= MAX_STREAMS

    def follow(self, symbols: Sequence[str]) -> None:
        """Have these symbols from now on, as many as it carries; those that stay don't notice."""
        names = {exchange_symbol(symbol): symbol for symbol in symbols}
        streams, before = self._streams_of(names), self._streams
        added = [stream for stream in streams if stream not in before]
        left = [stream for stream in before if stream not in streams]
        self._symbols, self._streams = names, streams
        self._counts.unknown_symbols.intersection_update(symbols)
        for connection in self._connections:
            connection.subscription.change(added, left)

    def joined_by(self, connection: Connection) -> None:
        """A connection that has to hear of other symbols, for as long as it is there."""
        self._connections.add(connection)

    def first_trade_ms(self, symbol: str) -> int | None:
        """Now: an exchange trades in the present."""
        return self._clock.wall_ns() // 1_000_000

    def backfill(self, symbol: str) -> Iterator[BackfillRecord]:
        """The WebSocket streams have no history."""
        return iter(())

    async def run(self, outlet: Outlet, resume: Mapping[str, Position]) -> None:
        """Stay connected and push, for ever. An exchange can't be asked to resume: it goes on with what comes."""
        async with aiohttp.ClientSession() as http:
            both = [asyncio.create_task(self._beat(outlet)), asyncio.create_task(self._stay_connected(http, outlet))]
            try:
                done, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                for task in done:  # neither ends by itself: without beats, silent symbols' candles would never close
                    task.result()
            finally:
                for task in both:
                    task.cancel()
                await asyncio.gather(*both, return_exceptions=True)
                self._counts.connected = False

    async def _stay_connected(self, http: aiohttp.ClientSession, outlet: Outlet) -> None:
        attempt = 0
        while True:
            began_ns = self._clock.monotonic_ns()
            try:
                await self._serve(http, outlet)
            except ConnectionLost as error:
                log.warning("connection lost", extra={"reason": str(error), "attempt": attempt})
            # Only a connection that lasted proves that the next one may be tried at once.
            if self._clock.monotonic_ns() - began_ns > LAST_BACKOFF_S * 1e9:
                attempt = 0
            self._counts.reconnects += 1
            await self._clock.sleep(backoff_s(attempt, random.random()))
            attempt += 1

    async def _serve(self, http: aiohttp.ClientSession, outlet: Outlet) -> None:
        """Run one connection after another, each handing over to the next before it grows too old.

        Raises:
            ConnectionLost: the current one ended.
        """
        self._current = Connection(self, http, outlet, _ANSWER_TIMEOUT_S)
        task = asyncio.create_task(self._current.run())
        renew_s = left_s = self._options.max_connection_age_s
        began_ns = self._clock.monotonic_ns()
        try:
            while True:
                await self._grown_old_or_doubted(task, left_s)
                if task.done():
                    await task
                unheard = self._current.unheard.is_set()
                doubted = unheard or self._current.quiet.is_set()
                # An exchange that answers no request at all isn't left every ten seconds.
                answer_s = _HANDOVER_RETRY_S if unheard else _ANSWER_TIMEOUT_S
                successor = await self._hand_over(self._current, Connection(self, http, outlet, answer_s), task)
                now_ns = self._clock.monotonic_ns()
                if successor is not None:
                    task, began_ns, renew_s = successor, now_ns, self._options.max_connection_age_s
                elif not doubted:
                    began_ns, renew_s = now_ns, min(self._options.max_connection_age_s, _HANDOVER_RETRY_S)
                left_s = max(0.0, renew_s - (now_ns - began_ns) / 1e9)
        finally:
            self._counts.connected = False
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _grown_old_or_doubted(self, task: asyncio.Task[None], age_s: float) -> None:
        """Return when the current connection ended, is as old as this, or has brought no data or no answer for too long."""
        assert self._current is not None
        quiet, unheard = (asyncio.create_task(one.wait()) for one in (self._current.quiet, self._current.unheard))
        try:
            await asyncio.wait({task, quiet, unheard}, timeout=age_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            quiet.cancel()
            unheard.cancel()

    async def _spoke(self, quiet: Connection, successor: Connection, ends: set[asyncio.Task[None]]) -> bool:
        """Whether a quiet connection brings data too, once there are any: then it is the market that rested."""
        spoke, ready = (asyncio.create_task(one.wait()) for one in (quiet.spoke, successor.ready))
        try:
            await asyncio.wait({spoke, ready, *ends}, return_when=asyncio.FIRST_COMPLETED)
            if ready.done() and not spoke.done():
                await asyncio.wait({spoke, *ends}, timeout=_IN_STEP_S, return_when=asyncio.FIRST_COMPLETED)
            return spoke.done()
        finally:
            spoke.cancel()
            ready.cancel()

    async def _hand_over(
        self, current: Connection, successor: Connection, task: asyncio.Task[None]
    ) -> asyncio.Task[None] | None:
        """Let both run until the successor has data, so that nothing is missed; some trades come twice.

        Where the current one ends meanwhile, the successor goes on in its place: another would only come later.

        Args:
            task: in which the current one runs.

        Returns:
            The successor's task, or None where it failed, or wasn't needed, and the current connection was kept.
        """
        next_task = asyncio.create_task(successor.run())
        ready = asyncio.create_task(successor.ready.wait())
        rests = False
        try:
            if current.quiet.is_set():
                rests = await self._spoke(current, successor, {next_task, task})
            else:
                await asyncio.wait({next_task, ready, task}, return_when=asyncio.FIRST_COMPLETED)
            lost = task.exception() if task.done() else None
            better = isinstance(lost, ConnectionLost) or (lost is None and successor.ready.is_set() and not rests)
            replaced = better and not next_task.done()
            retired = task if replaced else next_task
            retired.cancel()
            await asyncio.gather(retired, return_exceptions=True)
        except asyncio.CancelledError:
            # Until we return nobody else knows of it, also while the old one takes its time to close.
            next_task.cancel()
            await asyncio.gather(next_task, return_exceptions=True)
            raise
        finally:
            ready.cancel()
        doubt = "no data" if current.quiet.is_set() else "no answer" if current.unheard.is_set() else "age"
        if not replaced:
            current.trust()
            if rests:
                log.info("the market rested, not the connection")
            elif not task.done():
                log.warning("a successor connection failed; keeping the old one")
            return None
        successor.trust()
        self._current = successor
        self._counts.reconnects += 1
        self._counts.connected = False
        if successor.stands:
            self.up(successor)
        log.info("connection renewed", extra={"because": str(lost or doubt)})
        return next_task

    def up(self, connection: Connection) -> None:
        """A connection stands; only the current one's time counts."""
        if connection is self._current:
            self._time = connection.time
            self._counts.connected = True

    @property
    def streams(self) -> list[str]:
        """Streams to ask for: what the exchange refused before is left out."""
        doubtful = set(self.doubtful_streams)
        return [stream for stream in self._streams if stream not in doubtful]

    @property
    def doubtful_streams(self) -> list[str]:
        """Streams that the exchange refused before: it may have listed their symbols since."""
        return [f"{exchange_symbol(symbol).lower()}@trade" for symbol in sorted(self._counts.unknown_symbols)]

    @property
    def address(self) -> str:
        """Base of the connection's address."""
        return self._options.base_url.rstrip("/")

    @property
    def clock(self) -> Clock:
        """The run's clock."""
        return self._clock

    @property
    def silence_ns(self) -> int:
        """Longest time without a word that a connection is kept, and without data that it isn't doubted."""
        return self._silence_ns

    def take(self, data: bytes, connection: Connection, outlet: Outlet) -> None:
        """Take one frame."""
        now_ns = self._clock.monotonic_ns()
        counts = self._counts
        counts.frames += 1
        frame = read_frame(data)
        if isinstance(frame, TradeEvent):
            self._heard(frame.E, now_ns, connection)
            self._take_trade(frame, now_ns, outlet)
        elif isinstance(frame, OtherFrame):
            counts.skipped_frames[frame.kind] += 1
            self._heard(frame.exchange_ms, now_ns, connection)
            if frame.kind == "error":
                self._refused(frame.payload, now_ns, connection)
            elif frame.kind == "response":
                granted = connection.subscription.answered(read_request(frame.payload))
                counts.unknown_symbols.difference_update(self._symbols_of(granted))
        else:
            counts.malformed[frame.reason] += 1

    def take_binary(self) -> None:
        """Count a binary message: the exchange has none."""
        self._counts.frames += 1
        self._counts.malformed["binary"] += 1

    def _heard(self, exchange_ms: int, now_ns: int, connection: Connection) -> None:
        connection.time.alive(now_ns)
        if exchange_ms > 0:
            connection.time.heard(exchange_ms, now_ns)
            self._offset.observe(exchange_ms, self._clock.wall_ns())
            self._counts.clock_offset_ms = self._offset.offset_ms

    def _take_trade(self, trade: TradeEvent, now_ns: int, outlet: Outlet) -> None:
        symbol = self._symbols.get(trade.s)
        if symbol is None:
            self._counts.skipped_frames["other-symbol"] += 1
            return
        amounts = read_amounts(trade)
        if isinstance(amounts, MalformedFrame):
            self._counts.malformed[amounts.reason] += 1
            return
        outlet.trades(
            Trades(
                symbol, [trade.t], [trade.T], [amounts.price], [amounts.quantity],
                [] if trade.m is None else [int(trade.m)], amounts.price_scale, amounts.quantity_scale,
                received_ns=now_ns, exchange_ns=trade.T * 1_000_000, frame=self._counts.frames,
            )
        )  # fmt: skip

    def _refused(self, payload: bytes, now_ns: int, connection: Connection) -> None:
        request, code, message = read_error(payload)
        streams = connection.subscription.refused(request, code, message, now_ns)
        log.warning("the exchange refuses", extra={"error": message, "streams": streams})
        self._counts.unknown_symbols.update(self._symbols_of(streams))

    def _symbols_of(self, streams: Iterable[str]) -> list[str]:
        names = (stream.partition("@")[0].upper() for stream in streams)
        return [self._symbols[name] for name in names if name in self._symbols]

    async def _beat(self, outlet: Outlet) -> None:
        """Move the watermark of silent symbols while the exchange's time is known."""
        # A fifth of the period: the watermark of a silent symbol is then at most 1.2 periods old.
        period_s = self._heartbeat_ns / 5e9
        while True:
            await self._clock.sleep(period_s)
            exchange_ms = self._time.estimate_ms(self._clock.monotonic_ns())
            if exchange_ms is None:
                continue
            for symbol in self._symbols.values():
                if outlet.silent_ns(symbol) >= self._heartbeat_ns:
                    outlet.heartbeat(symbol, exchange_ms)


class Connection:
    """One WebSocket: reads it, answers pings, subscribes, watches for silence.

    Attributes:
        stands: it is connected. ready: it has brought data. quiet: it has brought none for longer than is usual. spoke: it has, since it was.
        unheard: a request has had no answer for ``answer_s``, so nobody knows whether its streams come.
    """

    def __init__(self, source: BinanceSource, http: aiohttp.ClientSession, outlet: Outlet, answer_s: float) -> None:
        self._source = source
        self._http = http
        self._outlet = outlet
        self._clock = source.clock
        self._data_ns = 0
        self._alive_ns = 0
        self._trusted_ns = 0
        self.time = ExchangeTime()
        self._answer_ns = round(answer_s * 1e9)
        self.subscription = Subscription(source.streams, source.doubtful_streams)
        source.joined_by(self)
        self.stands = False
        self.ready = asyncio.Event()
        self.quiet = asyncio.Event()
        self.unheard = asyncio.Event()
        self.spoke = asyncio.Event()

    async def run(self) -> None:
        """Connect and read until the connection ends.

        Raises:
            ConnectionLost: says why it ended.
        """
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                socket = await self._http.ws_connect(
                    f"{self._source.address}/stream?streams={'/'.join(self.subscription.in_address)}",
                    autoping=False,
                    max_msg_size=_MAX_MESSAGE_BYTES,
                    timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_TIMEOUT_S),
                )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ConnectionLost(f"can't connect: {error!r}") from error
        try:
            await self._converse(socket)
        finally:
            self.time.disconnected()
            await socket.close()

    def trust(self) -> None:
        """It is kept: don't doubt it before it has been quiet, or hasn't answered, for as long again."""
        self._trusted_ns = self._clock.monotonic_ns()
        self.quiet.clear()
        self.unheard.clear()

    async def _converse(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._data_ns = self._alive_ns = self._clock.monotonic_ns()
        self.time.connected(self._data_ns)
        self.stands = True
        self._source.up(self)
        tasks = [
            asyncio.create_task(self._read(socket)),
            asyncio.create_task(self._watch(socket)),
            asyncio.create_task(self._subscribe(socket)),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                await task
        except (aiohttp.ClientError, OSError) as error:
            raise ConnectionLost(f"connection broken: {error!r}") from error
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            message = await socket.receive()
            self._alive_ns = self._clock.monotonic_ns()
            if message.type is aiohttp.WSMsgType.TEXT:
                self._data_ns = self._alive_ns
                self._source.take(message.data.encode(), self, self._outlet)
                self.ready.set()
                self.spoke.set()
            elif message.type is aiohttp.WSMsgType.PING:
                self.time.alive(self._alive_ns)
                await socket.pong(message.data)
            elif message.type is aiohttp.WSMsgType.PONG:
                self.time.alive(self._alive_ns)
            elif message.type is aiohttp.WSMsgType.BINARY:
                self._source.take_binary()
            elif message.type is aiohttp.WSMsgType.ERROR:
                raise ConnectionLost(f"connection broken: {socket.exception()!r}")
            else:
                raise ConnectionLost(f"closed by the exchange, code {socket.close_code}")

    async def _watch(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """End a connection without a word; doubt one without data; ask a quiet one for a pong."""
        source = self._source
        period_s = min(source.silence_ns / 4e9, 0.25)
        pinged_ns = 0
        while True:
            await self._clock.sleep(period_s)
            now_ns = self._clock.monotonic_ns()
            if now_ns - self._alive_ns > source.silence_ns:
                raise ConnectionLost(f"no data and no pong for {source.silence_ns // 1_000_000} ms")
            if now_ns - max(self._data_ns, self._trusted_ns) > source.silence_ns and not self.quiet.is_set():
                # A pong says that the way is free, not that the exchange still sends.
                self.spoke.clear()
                self.quiet.set()
            asked_ns = self.subscription.unanswered_since_ns
            if asked_ns is not None and now_ns - max(asked_ns, self._trusted_ns) > self._answer_ns:
                self.unheard.set()
            if now_ns - max(self._alive_ns, pinged_ns) >= min(_PING_PERIOD_NS, source.silence_ns // 3):
                pinged_ns = now_ns
                await socket.ping()

    async def _subscribe(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            request = self.subscription.next_request(self._clock.monotonic_ns())
            if request is not None:
                await socket.send_str(request.decode())
            await self._clock.sleep(_REQUEST_PERIOD_S)
