"""The worker's figures for Prometheus: the status' own numbers, in clean OpenMetrics."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import aiohttp
import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from tests.support.otlp_receiver import http_receiver
from tests.support.promtool import promtool_finds_nothing
from tests.workers_feed.feed_setup import (
    api,
    assignment,
    candle_writer,
    feed_settings,
    make_ring,
    put,
    running_feed,
    signal,
    supervisor,
    trader,
    until,
)
from tests.workers_feed.trace_setup import stamped

from chandlery.core import signals as signal_format
from chandlery.core.assignment import TraderStatus
from chandlery.core.settings import KafkaSettings, TelemetrySettings
from chandlery.core.telemetry.exposition import Labelled
from chandlery.stream.topics import ensure_topics
from chandlery.workers.feed.metrics import families

BTC = "BTC/USDT"
OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}


async def scraped(address: str) -> tuple[str, dict[str, Metric]]:
    """The classic text, and the families of OpenMetrics."""
    url = f"http://{address}/metrics"
    async with aiohttp.ClientSession() as client:
        async with client.get(url, headers=OPENMETRICS) as got:
            assert got.status == 200
            assert got.headers["Content-Type"].startswith("application/openmetrics-text")
            parsed = text_string_to_metric_families(await got.text())  # type: ignore[no-untyped-call]
            families = {family.name: family for family in parsed}
        async with client.get(url) as got:
            return await got.text(), families


def value(families: dict[str, Metric], name: str, **labels: str) -> float:
    """One sample's value; ``_total`` is left out in ``name``."""
    (found,) = [
        one.value
        for one in families[name].samples
        if one.labels == labels and one.name in (name, f"{name}_total", f"{name}_count")
    ]
    return found


@pytest.mark.broker
async def test_the_figures_are_the_statuss(tmp_path: Path, kafka_settings: KafkaSettings) -> None:
    await ensure_topics(kafka_settings)
    with http_receiver() as receiver:
        settings = feed_settings(
            tmp_path,
            kafka_settings,
            metrics_listen="127.0.0.1:0",
            metrics_traders=2,
            telemetry=TelemetrySettings(receiver.endpoint),
        )
        async with (
            running_feed(settings) as feed,
            api(settings) as client,
            candle_writer(kafka_settings) as writer,
            supervisor(settings) as said,
        ):
            await put(client, assignment(1, *[trader(name, [BTC]) for name in "abc"]))
            await writer.closed(BTC, 0, 10)
            rings = {name: make_ring(settings, name) for name in "abc"}
            made = [stamped(number) for number in range(5)]
            for one in made:
                assert rings["a"].push(signal_format.encode(one))
            assert rings["b"].push(signal_format.encode(signal("a", 1)))  # not its own
            said.say(
                sequence=1, hash="x",
                traders={
                    f"desk/{name}": TraderStatus("Active", calls=10, rss_bytes=1_000, pss_bytes=400 * (name != "b"))
                    for name in "abc"
                },
                pss_bytes={"supervisor": 30, "fork_server": 20},
            )  # fmt: skip
            await until("published", lambda: feed.status().feed["signals"]["published"] == 5)
            await until("candles", lambda: feed.status().feed["candles"]["closed"] == 10)
            await until("traders", lambda: feed.status().traders["desk/a"].calls == 10)
            await until("traces", lambda: feed.status().feed["traces"]["exported"] == 5)
            await until("dropped", lambda: feed.status().feed["drops"].get("bad_signal"))
            text, found = await scraped(feed.metrics_address)
            told = feed.status()
    for name, labels, number in [
        ("chandlery_feed_signals_published", {}, 5),
        ("chandlery_feed_candles", {"outcome": "closed"}, told.feed["candles"]["closed"]),
        ("chandlery_feed_drops", {"reason": "bad_signal"}, 1),
        ("chandlery_feed_series", {}, 1),
        ("chandlery_feed_series_unread", {}, 0),
        ("chandlery_feed_series_freed", {}, 0),
        ("chandlery_feed_series_capacity", {}, 16),
        ("chandlery_feed_segment_series", {}, 1),
        ("chandlery_feed_segment_series_room", {}, 16),
        ("chandlery_feed_segment_growths", {}, 0),
        ("chandlery_feed_traces_exported", {}, 5),
        ("chandlery_feed_broker_connected", {}, 1),
        ("chandlery_trader_calls", {"trader": "desk/a"}, 10),
        ("chandlery_trader_calls", {"trader": "_other"}, 10),
        ("chandlery_trader_resident_memory_bytes", {"trader": "desk/b"}, 1_000),
        ("chandlery_trader_pss_bytes", {"trader": "desk/a"}, 400),
        ("chandlery_trader_pss_bytes", {"trader": "_other"}, 400),
        ("chandlery_worker_pss_bytes", {"process": "supervisor"}, 30),
        ("chandlery_worker_pss_bytes", {"process": "fork_server"}, 20),
        ("chandlery_trader_state", {"trader": "desk/a", "state": "Active"}, 1),
        ("chandlery_feed_traders_unlabelled", {}, 1),
        ("chandlery_frame_to_signal_seconds", {}, 5),
        ("chandlery_stage_seconds", {"stage": "decided"}, 5),
    ]:
        assert value(found, name, **labels) == number, name
    shares = {one.labels["trader"] for one in found["chandlery_trader_pss_bytes"].samples}
    assert "desk/b" not in shares, "nobody has looked at it yet"
    shown = [one.exemplar for one in found["chandlery_frame_to_signal_seconds"].samples if one.exemplar]
    assert shown
    assert {one.labels["trace_id"] for one in shown} <= receiver.traces().keys(), "each exemplar's trace is there"
    await asyncio.to_thread(promtool_finds_nothing, text)


async def test_ten_thousand_traders_are_a_hundred_labels_and_the_rest_one(tmp_path: Path, unused_tcp_port: int) -> None:
    kafka = KafkaSettings(bootstrap=f"127.0.0.1:{unused_tcp_port}", feed="none")
    async with running_feed(feed_settings(tmp_path, kafka)) as feed:
        status = feed.status()
    many = [f"desk/t{number:05}" for number in range(10_000)]
    status.traders = {name: TraderStatus("Active", calls=1, pss_bytes=1) for name in many}
    gauges = {"depth": 1, "capacity": 256, "in_flight": 0, "blocked": 0, "last_error": ""}
    status.feed["rings"] = dict.fromkeys(many, gauges)
    labelled = Labelled(feed_settings(tmp_path, kafka).metrics_traders)
    labelled.follow(many)
    told = list(families(status, feed.latency, labelled))
    for family in told:
        labels = {one.labels["trader"] for one in family.samples if "trader" in one.labels}
        assert len(labels) <= 101, family.name
    by_name = {family.name: family for family in told}
    for name in ("chandlery_trader_calls", "chandlery_trader_pss_bytes", "chandlery_trader_ring_depth"):
        assert value(by_name, name, trader="_other") == 9_900
        assert sum(one.value for one in by_name[name].samples) == 10_000, "nobody is left out"
    assert value(by_name, "chandlery_feed_traders_unlabelled") == 9_900
    assert sum(len(family.samples) for family in told) < 3_000


@pytest.mark.broker
async def test_nothing_listens_where_nothing_is_asked(tmp_path: Path, kafka_settings: KafkaSettings) -> None:
    async with running_feed(feed_settings(tmp_path, kafka_settings)) as feed:
        assert feed.metrics_address == ""


async def test_an_address_that_is_taken_costs_the_figures_alone(
    tmp_path: Path, unused_tcp_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        kafka = KafkaSettings(bootstrap=f"127.0.0.1:{unused_tcp_port}", feed="none")
        settings = feed_settings(tmp_path, kafka, metrics_listen=address)
        async with running_feed(settings) as feed, api(settings) as client:
            await put(client, assignment(1, trader("a", [BTC])))
            told = feed.status().feed
            assert feed.metrics_address == ""
    assert "for metrics" in told["metrics_problem"]
    assert "no figures for Prometheus" in caplog.text
