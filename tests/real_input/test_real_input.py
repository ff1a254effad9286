"""The whole chain on real input: captured frames of Binance spot in, candles and signals out, all accounted for."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pytest
from tests.real_input.real_captures import SYMBOLS, TRADES, Captures, captures, read_trades
from tests.real_input.real_checks import (
    Outcome,
    check_account,
    check_candles,
    check_counts,
    check_decisions,
    check_exchange_clock,
    check_frames,
    check_traders,
    firsts,
)
from tests.real_input.real_desk import FEED, desks, write_manifests
from tests.real_input.real_run import Run, up
from tests.real_input.real_topics import read_topics
from tests.support.exchange_server import ExchangeServer, ServerConnection, other_frame
from tests.support.otlp_receiver import Receiver, http_receiver
from tests.support.whole_traces import check_all_traced

from chandlery.core.latency import account
from chandlery.core.settings import KafkaSettings
from chandlery.stream.broker import EmbeddedBroker

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(400)]

#: Times the captured pace: 346 s of market in 14 s.
SPEED: Final = 25.0
#: Where the exchange's clock stands when the last frame is served: midnight and 12 s, the last trade being 1.3 s past
#: midnight. Every candle with a trade then is closed, and final 5 s of lateness later.
LAST_EVENT_MS: Final = 1_723_161_612_000
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def market() -> Captures:
    return captures()


@pytest.fixture(scope="module")
def trades(market: Captures) -> pd.DataFrame:
    """All trades, by our own reading; the counts are known beforehand."""
    table = read_trades(market.paths)
    assert dict(table["symbol"].value_counts()) == TRADES
    return table


@pytest.fixture
def traced_to(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """An OTLP receiver to which the runs of a test send their traces."""
    with http_receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        yield receiver


def new_prefix() -> str:
    """Of topics that are nobody else's."""
    return f"real-{os.getpid()}-{next(_numbers)}."


async def keep_awake(exchange: ExchangeServer, opening: asyncio.Event) -> None:
    """A market before its opening: quotes without a time, so that no watchdog barks."""
    quote = '{"stream":"btcusdt@bookTicker","data":{"u":1,"s":"BTCUSDT","b":"1","B":"1","a":"2","A":"1"}}'
    while not opening.is_set():
        for connection in list(exchange.connections):
            await connection.send(quote)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(opening.wait(), 1.0)


async def play(exchange: ExchangeServer, run: Run, market: Captures) -> tuple[ServerConnection, dict[str, Any]]:
    """Serve the captures to a run, from when its traders are Ready until ingest has all of it at the broker.

    Returns:
        The connection it was served on, and ingest's status then.
    """
    opening = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(keep_awake(exchange, opening))
        await run.running()
        opening.set()
    connection = await exchange.next_connection()
    await exchange.replay(market.paths, speed=SPEED, everything=market.whole)
    # A quiet market still has a time: this frame of another stream tells it, and the last candles close.
    await connection.send(other_frame("BTCUSDT", "depthUpdate", LAST_EVENT_MS))

    async def all_taken() -> dict[str, Any] | None:
        status = await run.status_of(f"ingest-{FEED}")
        done = all(one["watermark_ms"] >= LAST_EVENT_MS - 500 for one in status["symbols"].values())
        return status if done and not status["trades"]["waiting"] else None

    return connection, await run.until(all_taken, "all is appended, and the watermark is where the exchange's time is")


async def run_live(folder: Path, broker: EmbeddedBroker, market: Captures, trades: pd.DataFrame, count: int) -> Outcome:
    """A run over an exchange that serves the captures."""
    began, prefix, traders = time.time(), new_prefix(), desks(count)
    async with ExchangeServer(known=[name.lower() for name in SYMBOLS]) as exchange:
        source = {"binance": {"baseUrl": exchange.base_url}}
        manifests = write_manifests(folder / "manifests", source, prefix, traders, firsts(trades))
        async with up(folder, manifests, broker.bootstrap, "--for", "300s") as run:
            connection, ingest = await play(exchange, run, market)
            summary = await run.end()
        assert exchange.accepted == 1, "one connection carried it all"
    topics = await read_topics(KafkaSettings(broker.bootstrap, FEED, prefix))
    return Outcome(traders, summary, topics, connection.sent, ingest, (began, time.time()))


async def run_replayed(folder: Path, broker: EmbeddedBroker, market: Captures, trades: pd.DataFrame) -> Outcome:
    """A run over the captures as files."""
    began, prefix, traders = time.time(), new_prefix(), desks(5)
    source = {"replay": {"files": [str(path) for path in market.paths], "speed": 100}}
    manifests = write_manifests(folder / "manifests", source, prefix, traders, firsts(trades))
    async with up(folder, manifests, broker.bootstrap, "--until-end") as run:
        summary = await run.ended()
    topics = await read_topics(KafkaSettings(broker.bootstrap, FEED, prefix))
    return Outcome(traders, summary, topics, 0, {}, (began, time.time()))


@pytest.mark.parametrize("count", [5, 10, 20])
async def test_real_frames_become_exact_candles_and_accounted_signals(
    tmp_path: Path,
    broker: EmbeddedBroker,
    market: Captures,
    trades: pd.DataFrame,
    traced_to: Receiver,
    count: int,
) -> None:
    outcome = await run_live(tmp_path, broker, market, trades, count)
    check_frames(outcome)
    check_counts(outcome, trades)
    check_candles(outcome, trades)
    check_traders(outcome)
    for signal in outcome.topics.signals:
        check_account(signal)
    check_all_traced(traced_to, outcome.topics.signals)
    check_exchange_clock(outcome, trades)
    check_decisions(outcome, trades)


async def test_a_replay_keeps_the_recorded_clock_skew_apart(
    tmp_path: Path, broker: EmbeddedBroker, market: Captures, trades: pd.DataFrame, traced_to: Receiver
) -> None:
    outcome = await run_replayed(tmp_path, broker, market, trades)
    check_counts(outcome, trades)
    check_candles(outcome, trades)
    check_traders(outcome)
    check_decisions(outcome, trades)
    check_all_traced(traced_to, outcome.topics.signals)
    recorded = {symbol: set(trades.loc[trades["symbol"] == symbol, "skew_ns"]) for symbol in TRADES}
    skews_s = []
    for signal in outcome.topics.signals:
        # The receiving clock was 1.05 to 1.27 s behind the exchange's; no stage goes backwards for that.
        check_account(signal)
        assert account(signal.stamps).skew_us is None, "the exchange's time of back then means nothing today"
        if signal.stamps.recorded_skew_ns:
            assert signal.stamps.recorded_skew_ns in recorded[signal.symbol]
            skews_s.append(signal.stamps.recorded_skew_ns / 1e9)
    assert len(skews_s) > len(outcome.topics.signals) / 2
    assert float(np.median(skews_s)) == pytest.approx(-1.27, abs=0.1)
