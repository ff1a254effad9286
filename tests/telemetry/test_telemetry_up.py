"""``chandlery up`` with an OTLP receiver: every signal is one whole trace, and says what everything else says."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.runtime.up_process import Up, teller, until, write_manifests
from tests.support.free_ports import free_ports
from tests.support.otlp_receiver import Receiver, grpc_receiver, http_receiver
from tests.support.promtool import promtool_finds_nothing
from tests.support.whole_traces import check_trace

from chandlery.cli.signal_topic import SignalTopic
from chandlery.console.model import FeedRow
from chandlery.core.signals import Signal

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(400)]


async def on_topic(feed: FeedRow) -> dict[str, Signal]:
    """Every signal on the topic of a feed."""
    async with SignalTopic(feed.kafka(), feed.signals_topic) as topic:
        return (await topic.collect()).signals


@pytest.mark.parametrize(("receiving", "protocol"), [(http_receiver, "http/protobuf"), (grpc_receiver, "grpc")])
def test_every_signal_is_one_whole_trace(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    receiving: Callable[[], AbstractContextManager[Receiver]],
    protocol: str,
) -> None:
    manifests = write_manifests(tmp_path / "m", one=teller("one"), two=teller("two", "ETH/USDT"), three=teller("three"))
    with receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        with Up(tmp_path, manifests, "--json") as up:
            (feed,) = up.running().feeds
            signals: dict[str, Signal] = {}

            def enough() -> bool:
                signals.update(asyncio.run(on_topic(feed)))
                return len(signals) >= 9

            until(enough, "nine signals are on the topic")
            assert up.end() == 0, up.said
            published = up.summary()["signals"]["published"]
        traces = receiver.traces()
    assert len(traces) == published, "a trace each, the last ones too"
    for signal_id, signal in signals.items():
        if signal.stamps.acknowledged_ns:
            check_trace(traces[signal_id], signal)
    linked = [span for spans in traces.values() for span in spans if span.links]
    assert linked, "traders on one symbol decided on the same record"
    for span in linked:
        assert all(trace_id in traces for trace_id, _, _ in span.links)


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1", "nonsense"])
def test_a_receiver_that_is_not_there_changes_neither_signals_nor_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    manifests = write_manifests(tmp_path / "m", one=teller("one"))
    with Up(tmp_path, manifests, "--for", "4s", "--json") as up:
        summary = up.summary()
        assert up.wait() == 0, up.said
        assert up.left() == []
    assert summary["reconciles"] is True
    assert summary["signals"]["emitted"] == summary["signals"]["published"] > 0


def test_every_process_shows_its_figures_to_prometheus(tmp_path: Path) -> None:
    manifests = write_manifests(tmp_path / "m", one=teller("one"))
    with Up(tmp_path, manifests, "--metrics-port", str(free_ports(3))) as up:
        until(lambda: (row := up.trader("one")) is not None and row.signals > 2, "signals")
        groups = json.loads((up.state / "prometheus-targets.json").read_text())
        targets = {group["labels"]["process"]: group["targets"][0] for group in groups}
        pools = {group["labels"]["process"]: group["labels"].get("chandlery_dev_pool") for group in groups}
        assert pools == {"ingest-market": None, "aggregator-market": None, "feed-demo-0": "demo"}
        assert targets.keys() == {"ingest-market", "aggregator-market", "feed-demo-0"}
        found: dict[str, float] = {}
        for target in targets.values():
            text = fetch(target, "*/*")
            promtool_finds_nothing(text)
            assert fetch(target, "application/openmetrics-text").endswith("# EOF\n")
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    found.setdefault(sample.name, sample.value)
        assert up.end() == 0, up.said
    assert json.loads((up.state / "prometheus-targets.json").read_text()) == [], "what has ended is not away"
    for name in (
        "chandlery_ingest_trades_appended_total",
        "chandlery_ingest_append_seconds_count",
        "chandlery_aggregator_trades_received_total",
        "chandlery_aggregator_aggregated_seconds_count",
        "chandlery_feed_signals_published_total",
        "chandlery_frame_to_signal_seconds_count",
        "chandlery_trader_calls_total",
        "process_proportional_memory_bytes",
    ):
        assert found[name] > 0, name


def fetch(target: str, accept: str) -> str:
    """A target's figures."""
    request = urllib.request.Request(f"http://{target}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=30) as answer:
        text: str = answer.read().decode()
        return text
