"""Runs of ``chandlery up`` over the captures: served by an exchange at many times their pace, or replayed as files."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import pandas as pd
from tests.real_input.real_captures import SYMBOLS, Captures
from tests.real_input.real_checks import Outcome, firsts
from tests.real_input.real_desk import FEED, desks, write_manifests
from tests.real_input.real_run import Run, up
from tests.real_input.real_topics import read_topics
from tests.support.exchange_server import ExchangeServer, ServerConnection, other_frame

from chandlery.core.settings import KafkaSettings
from chandlery.stream.broker import EmbeddedBroker

#: Times the captured pace: 346 s of market in 14 s.
SPEED: Final = 25.0
#: Where the exchange's clock stands when the last frame is served: midnight and 12 s, the last trade being 1.3 s past
#: midnight. Every candle with a trade then is closed, and final 5 s of lateness later.
LAST_EVENT_MS: Final = 1_723_161_612_000
Seen = TypeVar("Seen")
_numbers = itertools.count(1)


def new_prefix() -> str:
    """Of topics that are nobody else's."""
    return f"real-{os.getpid()}-{next(_numbers)}."


async def _while_awake(exchange: ExchangeServer, work: Awaitable[Seen]) -> Seen:
    """Wait for something while no trade comes: quotes without a time do, so that no watchdog barks."""
    done = asyncio.Event()

    async def quote() -> None:
        text = '{"stream":"btcusdt@bookTicker","data":{"u":1,"s":"BTCUSDT","b":"1","B":"1","a":"2","A":"1"}}'
        while not done.is_set():
            for connection in list(exchange.connections):
                await connection.send(text)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(done.wait(), 1.0)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(quote())
        found = await work
        done.set()
    return found


async def play(exchange: ExchangeServer, run: Run, market: Captures) -> tuple[ServerConnection, dict[str, Any]]:
    """Serve the captures to a run, from when its traders are Ready until ingest has all of it at the broker.

    Returns:
        The connection it was served on, and ingest's status then.
    """
    await _while_awake(exchange, run.running())
    connection = await exchange.next_connection()
    await exchange.replay(market.paths, speed=SPEED, everything=market.whole)
    # A quiet market still has a time: this frame of another stream tells it, and the last candles close.
    await connection.send(other_frame("BTCUSDT", "depthUpdate", LAST_EVENT_MS))

    async def all_taken() -> dict[str, Any] | None:
        status = await run.status_of(f"ingest-{FEED}")
        done = all(one["watermark_ms"] >= LAST_EVENT_MS - 500 for one in status["symbols"].values())
        return status if done and not status["trades"]["waiting"] else None

    return connection, await run.until(all_taken, "all is appended, and the watermark is where the exchange's time is")


async def run_live(
    folder: Path,
    broker: EmbeddedBroker,
    market: Captures,
    trades: pd.DataFrame,
    count: int,
    look: Callable[[Run], Awaitable[None]] | None = None,
) -> Outcome:
    """A run over an exchange that serves the captures.

    Args:
        count: of traders. look: called when all is taken in, before the run is ended.
    """
    began, prefix, traders = time.time(), new_prefix(), desks(count)
    async with ExchangeServer(known=[name.lower() for name in SYMBOLS]) as exchange:
        source = {"binance": {"baseUrl": exchange.base_url}}
        manifests = write_manifests(folder / "manifests", source, prefix, traders, firsts(trades))
        async with up(folder, manifests, broker.bootstrap, "--for", "300s") as run:
            connection, ingest = await play(exchange, run, market)
            if look is not None:
                await _while_awake(exchange, look(run))
            summary = await run.end()
        assert exchange.accepted == 1, "one connection carried it all"
    topics = await read_topics(KafkaSettings(broker.bootstrap, FEED, prefix))
    return Outcome(traders, summary, topics, connection.sent, ingest, (began, time.time()))


async def run_replayed(
    folder: Path, broker: EmbeddedBroker, market: Captures, trades: pd.DataFrame, count: int, speed: float
) -> Outcome:
    """A run of so many traders over the captures as files, at so many times their pace."""
    began, prefix, traders = time.time(), new_prefix(), desks(count)
    source = {"replay": {"files": [str(path) for path in market.paths], "speed": speed}}
    manifests = write_manifests(folder / "manifests", source, prefix, traders, firsts(trades))
    async with up(folder, manifests, broker.bootstrap, "--until-end") as run:
        summary = await run.ended()
    topics = await read_topics(KafkaSettings(broker.bootstrap, FEED, prefix))
    return Outcome(traders, summary, topics, 0, {}, (began, time.time()))
