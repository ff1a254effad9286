"""One stream for all that a console shows, and the smaller ones: states pulled, signals and candles followed.

States (overview, traders …) are read when they are to be sent, so a slow client gets the newest and never a queue.
Candles wait in one slot each, the newest in it. Signals wait in order, few of them: then the reader's own store is
where they wait, and what falls out of it comes as ``gap``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from chandlery.console.api.events import CandleChange, Failed, Gap
from chandlery.console.api.fields import LAST_EVENT_ID
from chandlery.console.api.models import Problem
from chandlery.console.api.problems import problem_of
from chandlery.console.api.services import Services
from chandlery.console.api.sse import KEEP_ALIVE, KEEP_ALIVE_S, event, place
from chandlery.console.api.states import States, rows_event
from chandlery.console.api.topics import SIGNALS, Series, Topics
from chandlery.console.backend import BadFieldError
from chandlery.console.market import CandleEvent, SignalQuery
from chandlery.core.errors import ChandleryError, InputError

log = logging.getLogger("chandlery.console.api")

#: States, and candles of the console's stream, are told at most so often, s.
PERIOD_S: Final = 1.0
#: What failed is tried again after this, s.
RETRY_S: Final = 1.0
#: Signals that wait for a stream's socket; behind them the reader's own store waits.
MOST_SIGNALS: Final = 256
#: Candles that wait for a stream's socket, over all series: as many as one answer of the API has at most.
MOST_CANDLES: Final = 5_000
#: First bytes: they make a proxy pass the headers on, and a client know that it is connected.
OPENED: Final = b": open\n\n"

Item = TypeVar("Item")


@dataclass
class Waiting:
    """Events that came and wait for the socket. Who brings more than fits waits himself."""

    candle_period_s: float
    signals: deque[bytes] = field(default_factory=deque)
    candles: dict[Series, dict[int, CandleChange]] = field(default_factory=dict)
    _due: dict[Series, float] = field(default_factory=dict)
    _came: asyncio.Event = field(default_factory=asyncio.Event)
    _room: asyncio.Event = field(default_factory=asyncio.Event)

    async def bring(self, chunk: bytes) -> None:
        """A signal, or what is told in order with signals."""
        await self._fits(lambda: len(self.signals) < MOST_SIGNALS)
        self.signals.append(chunk)
        self._came.set()

    async def bring_candle(self, series: Series, came: CandleEvent) -> None:
        """A candle: it takes the place of an older state of itself; a new session that of everything before."""
        await self._fits(lambda: sum(map(len, self.candles.values())) < MOST_CANDLES)
        slots = self.candles.setdefault(series, {})
        if came.reset:
            slots.clear()
        before = slots.get(came.candle.open_time_ms)
        # A new session that the client hasn't heard of yet stays one.
        reset = came.reset or (before is not None and before.reset)
        slots[came.candle.open_time_ms] = CandleChange(
            feed=came.feed, symbol=came.symbol, interval=came.interval, candle=came.candle, reset=reset
        )
        self._came.set()

    def take(self, now_s: float) -> list[bytes]:
        """All that may be told now, in order."""
        taken = list(self.signals)
        self.signals.clear()
        for series, slots in self.candles.items():
            if slots and now_s >= self._due.get(series, 0.0):
                taken += [event("candle", change.model_dump_json()) for change in slots.values()]
                slots.clear()
                self._due[series] = now_s + self.candle_period_s
        if taken:
            self._room.set()
        return taken

    async def wait(self, now_s: float, until_s: float) -> None:
        """Until something may be told, or a moment of the loop's clock."""
        due = [self._due.get(series, 0.0) for series, slots in self.candles.items() if slots]
        until_s = min([until_s, *due])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, until_s - now_s)):
                await self._came.wait()
        self._came.clear()

    async def _fits(self, fits: Callable[[], bool]) -> None:
        while not fits():
            self._room.clear()
            await self._room.wait()


class LiveEvents:
    """The events of one stream.

    Args:
        query: which signals. after: the position to resume from; empty: from now on.
        candle_period_s: least time between two events of one candle; 0: as they come.
    """

    def __init__(
        self,
        services: Services,
        states: States,
        topics: Topics,
        *,
        query: SignalQuery | None = None,
        after: str = "",
        candle_period_s: float = PERIOD_S,
    ) -> None:
        self._services = services
        self._states = states
        self._topics = topics
        self._query = query or SignalQuery()
        self._after = after
        self._waiting = Waiting(candle_period_s)
        self._sent: dict[str, str] = {}
        self._rows: dict[str, str] | None = None
        #: What was said of topics that fail now.
        self._failing: dict[str, str] = {}

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Encoded events for ever; each is made when the one before was taken."""
        clock = asyncio.get_running_loop().time
        followers = [asyncio.create_task(self._follow_candles(series)) for series in self._topics.series]
        if self._topics.signals:
            followers.append(asyncio.create_task(self._follow_signals()))
        try:
            yield OPENED
            due_s, told_s = clock(), clock()
            while True:
                if clock() >= due_s:
                    due_s = clock() + PERIOD_S
                    for topic in self._topics.states:
                        if chunk := self._state(topic):
                            yield chunk
                            told_s = clock()
                if waiting := self._waiting.take(clock()):
                    yield b"".join(waiting)
                    told_s = clock()
                if clock() - told_s >= KEEP_ALIVE_S:
                    yield KEEP_ALIVE
                    told_s = clock()
                wake_s = told_s + KEEP_ALIVE_S
                await self._waiting.wait(clock(), min(due_s, wake_s) if self._topics.states else wake_s)
        finally:
            for follower in followers:
                follower.cancel()
            await asyncio.gather(*followers, return_exceptions=True)

    def _state(self, topic: str) -> bytes:
        """One topic's event; empty: nothing new."""
        try:
            if topic == "traders":
                chunk = self._trader_rows()
            else:
                told = self._states.told(topic)
                chunk = event(topic, told.json) if self._sent.get(topic) != told.key else b""
                self._sent[topic] = told.key
        except ChandleryError as error:
            return self._failed(topic, error)
        except Exception as error:
            if topic not in self._failing:
                log.exception("a topic can't be told", extra={"topic": topic})
            return self._failed(topic, error)
        self._failing.pop(topic, None)
        return chunk

    def _trader_rows(self) -> bytes:
        rows = self._states.rows()
        data = rows_event(rows, self._rows or {}, whole=self._rows is None)
        self._rows = {name: told.key for name, told in rows.items()}
        return event("traders", data) if data else b""

    def _failed(self, topic: str, error: Exception) -> bytes:
        """Says it once for as long as it stays the same; the state comes whole again afterwards."""
        told: Problem = problem_of(error)
        self._sent.pop(topic, None)
        if topic == "traders":
            self._rows = None
        if self._failing.get(topic) == told.detail:
            return b""
        self._failing[topic] = told.detail
        self._services.metrics.failed += 1
        return event("failed", Failed(topic=topic, problem=told).model_dump_json())

    async def _follow_signals(self) -> None:
        async def once() -> None:
            signals = self._services.signals
            begin = "" if self._after else signals.position()
            async with _closing(signals.follow(self._after, self._query)) as following:
                if begin:
                    # A stream that is cut before its first signal goes on from here, and so does the next `once`.
                    await self._waiting.bring(place(begin))
                    self._after = begin
                async for one in following:
                    self._failing.pop(SIGNALS, None)
                    if one.lost:
                        self._services.metrics.lost += one.lost
                        await self._waiting.bring(event("gap", Gap(lost=one.lost).model_dump_json()))
                    await self._waiting.bring(event("signal", one.signal.model_dump_json(), one.position))
                    self._after = one.position

        await self._for_ever(SIGNALS, once)

    async def _follow_candles(self, series: Series) -> None:
        async def once() -> None:
            market = self._services.market
            async with _closing(market.follow(series.feed, series.symbol, series.interval)) as following:
                async for one in following:
                    self._failing.pop(str(series), None)
                    await self._waiting.bring_candle(series, one)

        await self._for_ever(str(series), once)

    async def _for_ever(self, topic: str, once: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await once()
            except ChandleryError as error:
                await self._say_failed(topic, error)
            except Exception as error:
                log.exception("a topic can't be followed", extra={"topic": topic})
                await self._say_failed(topic, error)
            await asyncio.sleep(RETRY_S)

    async def _say_failed(self, topic: str, error: Exception) -> None:
        if topic == SIGNALS and self._after and isinstance(error, InputError):
            # A position that isn't known any more won't be: from now on.
            self._after = ""
            error = BadFieldError(f"{LAST_EVENT_ID}: {error}; the stream goes on from now", LAST_EVENT_ID)
        if chunk := self._failed(topic, error):
            await self._waiting.bring(chunk)


@contextlib.asynccontextmanager
async def _closing(items: AsyncIterator[Item]) -> AsyncIterator[AsyncIterator[Item]]:
    """The items; a generator behind them is closed in time, not when it is collected."""
    try:
        yield items
    finally:
        if isinstance(items, AsyncGenerator):
            await items.aclose()
