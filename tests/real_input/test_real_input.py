"""The whole chain on real input: captured frames of Binance spot in, candles and signals out, all accounted for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.real_input.real_captures import TRADES, Captures, captures, read_trades
from tests.real_input.real_checks import (
    check_account,
    check_candles,
    check_counts,
    check_decisions,
    check_exchange_clock,
    check_frames,
    check_traders,
)
from tests.real_input.real_playing import run_live, run_replayed
from tests.support.otlp_receiver import Receiver, grpc_receiver, http_receiver
from tests.support.whole_traces import check_all_traced

from chandlery.core.latency import account
from chandlery.stream.broker import EmbeddedBroker

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(400)]


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
def traced_to(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Receiver]:
    """An OTLP receiver to which the runs of a test send their traces, by HTTP where the test names no protocol."""
    protocol = getattr(request, "param", "http/protobuf")
    with (grpc_receiver if protocol == "grpc" else http_receiver)() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        yield receiver


@pytest.mark.parametrize(
    ("count", "traced_to"), [(5, "grpc"), (10, "http/protobuf"), (20, "grpc")], indirect=["traced_to"]
)
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
    outcome = await run_replayed(tmp_path, broker, market, trades, 5, speed=100)
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
