"""Real captures through ``chandlery up`` into a real Jaeger: read back by its query API, every signal is a whole trace."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pytest
from tests.e2e.cluster.commands import ClusterError, run
from tests.e2e.jaeger.building import build
from tests.e2e.jaeger.query import Query
from tests.e2e.jaeger.server import Jaeger, running_jaeger
from tests.real_input.real_captures import Captures, captures, read_trades
from tests.real_input.real_checks import Outcome, check_traders
from tests.real_input.real_playing import SPEED, run_live, run_replayed
from tests.real_input.real_run import Run
from tests.support.otlp_receiver import Seen
from tests.support.whole_traces import check_links, check_trace

from chandlery.core.signals import Signal, decode_record
from chandlery.stream.broker import EmbeddedBroker

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(400)]

#: As a worker's pod says of itself (operator/children/pods.py).
POD: Final = {
    "k8s.pod.name": "desk-0-0",
    "k8s.namespace.name": "quants",
    "k8s.pod.uid": "6f1c2a34-0000-4000-8000-1234567890ab",
    "k8s.node.name": "node-1",
}
SERVICES: Final = {"chandlery-ingest", "chandlery-aggregator", "chandlery-feed", "chandlery-trader"}
_ASKED_FOR: Final = 3


@pytest.fixture(scope="session")
def program() -> Path:
    """Jaeger's program. In CI it must be had."""
    try:
        return build()
    except ClusterError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"Jaeger can't be built here: {error}")


@pytest.fixture
def jaeger(program: Path, tmp_path: Path) -> Iterator[Jaeger]:
    """One of the test's own, empty."""
    with running_jaeger(program, tmp_path) as running:
        yield running


@pytest.fixture
async def query(jaeger: Jaeger) -> AsyncIterator[Query]:
    """Its query API."""
    async with Query(jaeger.query) as client:
        yield client


@pytest.fixture(scope="module")
def market() -> Captures:
    return captures()


@pytest.fixture(scope="module")
def trades(market: Captures) -> pd.DataFrame:
    return read_trades(market.paths)


def send_traces(to: Jaeger, protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the next runs send their traces there, as from a pod."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", to.receivers[protocol])
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", ",".join(f"{name}={value}" for name, value in POD.items()))


def check_resource(span: Seen) -> None:
    """A span says whose it is; feed and trader say the pod that both run in."""
    whose = span.resource
    assert whose["service.namespace"] == "chandlery"
    assert whose["chandlery.feed"] == "market"
    assert whose["service.instance.id"]
    assert ("process.pid" in whose) == (span.service == "chandlery-feed")
    if span.service in ("chandlery-feed", "chandlery-trader"):
        assert POD.items() <= whose.items()
        assert whose["chandlery.worker"]
        assert whose["chandlery.host.boot_id"]


def check_drawn(spans: list[dict[str, Any]], signal: Signal) -> None:
    """As Jaeger's pages draw it, in whole µs: one root, nothing negative, and stages that sum to it within 1 %."""
    (root,) = [span for span in spans if not parents(span)]
    assert root["operationName"] == "frame to signal"
    assert not any(span["warnings"] for span in spans), "Jaeger finds nothing odd"
    assert all(span["duration"] >= 0 for span in spans)
    stages = [span for span in spans if parents(span) == [root["spanID"]]]
    # Each is cut to whole µs: nine of them may lose 1 µs each.
    assert sum(span["duration"] for span in stages) == pytest.approx(root["duration"], rel=0.01, abs=9), signal.id


def parents(span: dict[str, Any]) -> list[str]:
    """Span ids of its parents."""
    return [one["spanID"] for one in span["references"] if one["refType"] == "CHILD_OF"]


async def check_stored(query: Query, outcome: Outcome) -> dict[str, list[Seen]]:
    """Every signal on the topic is one whole trace in Jaeger, and there is no other."""
    signals = outcome.topics.signals
    # It answers an export when it has stored it, so that nothing has to be waited for.
    traces = {signal.id: await query.trace(signal.id) for signal in signals}
    missing = [signal.id for signal in signals if not traces[signal.id]]
    assert not missing, f"{len(missing)} of {len(signals)} signals have no trace: {missing[:3]} …"
    for signal in signals:
        check_trace(traces[signal.id], signal)
        for span in traces[signal.id]:
            check_resource(span)
    links = check_links(traces, signals)
    assert links > 0, "traders decided on the same record"
    assert await query.services() == SERVICES
    assert await query.found("chandlery-feed") == {signal.id for signal in signals}
    drawn: dict[str, list[dict[str, Any]]] = {}
    for trader in {signal.trader for signal in signals}:
        found = await query.drawn("chandlery-ingest", {"chandlery.trader": trader})  # the root's service
        assert found.keys() == {signal.id for signal in signals if signal.trader == trader}
        drawn |= found
    for signal in signals:
        check_drawn(drawn[signal.id], signal)
    spans = sum(map(len, traces.values()))
    print(
        f"{len(signals)} signals of {len(outcome.desks)} traders: {len(traces)} whole traces, {spans} spans, {links} links"
    )
    return traces


@pytest.mark.parametrize(
    ("count", "protocol"), [(5, "grpc"), (10, "http/protobuf"), (20, "grpc"), (20, "http/protobuf")]
)
async def test_a_jaeger_has_one_whole_trace_of_every_signal(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    broker: EmbeddedBroker,
    jaeger: Jaeger,
    query: Query,
    market: Captures,
    trades: pd.DataFrame,
    count: int,
    protocol: str,
) -> None:
    send_traces(jaeger, protocol, monkeypatch)
    outcome = await run_replayed(tmp_path, broker, market, trades, count, SPEED)
    check_traders(outcome)
    await check_stored(query, outcome)


async def test_chandlery_trace_tells_the_numbers_that_jaeger_tells(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    broker: EmbeddedBroker,
    jaeger: Jaeger,
    query: Query,
    market: Captures,
    trades: pd.DataFrame,
) -> None:
    send_traces(jaeger, "http/protobuf", monkeypatch)
    told: list[Signal] = []

    async def ask(run: Run) -> None:
        told.extend(await asyncio.to_thread(partial(told_by_command, run.state)))

    outcome = await run_live(tmp_path, broker, market, trades, 5, ask)
    traces = await check_stored(query, outcome)
    assert len({signal.id for signal in told}) == _ASKED_FOR
    for signal in told:
        check_trace(traces[signal.id], signal)


def told_by_command(state: Path) -> list[Signal]:
    """What ``chandlery trace ID --json`` tells of the newest signal of each of some Traders."""
    listed = chandlery("signals", "--last", "100", "--json", state=state)
    newest = {
        one["trader"]: one for one in map(json.loads, listed.splitlines()) if one["stamps"].get("acknowledged_ns")
    }
    chosen = list(newest.values())[:_ASKED_FOR]
    answers = [chandlery("trace", one["id"], "--json", state=state) for one in chosen]
    signals = [decode_record(answer.encode()) for answer in answers]
    return [signal for signal in signals if isinstance(signal, Signal)]


def chandlery(*words: str, state: Path) -> str:
    """What the command prints."""
    return run(sys.executable, "-m", "chandlery.cli", *words, "--state", state, timeout_s=60.0)
