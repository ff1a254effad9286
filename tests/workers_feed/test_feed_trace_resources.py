"""Who a span says it is from: names of the semantic conventions for hosts, processes and services, or our own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from tests.workers_feed.feed_setup import feed_settings

from chandlery.core.clocks import boot_id
from chandlery.core.settings import KafkaSettings, TelemetrySettings
from chandlery.core.telemetry import trace_export
from chandlery.core.topics import CANDLES_CLIENT, SIGNALS_CLIENT
from chandlery.workers.feed import trace_resources
from chandlery.workers.feed.clients import candle_consumer, forming_consumer, signal_producer

#: Resource attributes of the conventions (service, host, process, process.runtime) that ours say.
SERVICE = {"service.name", "service.namespace", "service.version", "service.instance.id"}
RUNTIME = {"process.runtime.name", "process.runtime.version", "process.runtime.description"}
PROCESS = {"process.pid", "process.parent_pid", "process.executable.name", "process.executable.path", *RUNTIME}
KAFKA = KafkaSettings("127.0.0.1:9", "market")


def test_each_service_says_what_is_known_of_it_in_the_conventions_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = tmp_path / "machine-id"
    machine.write_text("fdbf79e8af94cb7f9e8df36789187052\n")
    monkeypatch.setattr(trace_resources, "MACHINE_ID_FILES", (str(tmp_path / "none"), str(machine)))
    telemetry = TelemetrySettings("http://c:4318", resource={"k8s.pod.name": "w-0"}, ingest={"k8s.pod.name": "i-0"})
    export = trace_export(telemetry, {})
    assert export is not None
    told = trace_resources.resources(feed_settings(tmp_path, KAFKA, telemetry=telemetry), export)
    ours = {name: {key for key in about if not key.startswith("chandlery.")} for name, about in told.items()}
    assert ours["feed"] == {*SERVICE, *PROCESS, "host.id", "k8s.pod.name"}
    # Its instance is its Trader, said with its spans; its pid another namespace's.
    assert ours["trader"] == {*SERVICE, *RUNTIME, "host.id", "k8s.pod.name"} - {"service.instance.id"}
    assert ours["ingest"] == {*SERVICE, "k8s.pod.name"}
    assert ours["aggregator"] == SERVICE
    feed = told["feed"]
    assert feed["host.id"] == "fdbf79e8af94cb7f9e8df36789187052"
    assert feed["chandlery.host.boot_id"] == boot_id().hex()
    assert feed["process.pid"] == os.getpid()
    assert feed["process.executable.path"] == sys.executable
    assert (told["ingest"]["k8s.pod.name"], feed["k8s.pod.name"]) == ("i-0", "w-0")


def test_a_host_without_a_machine_id_is_told_by_its_boot_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = tmp_path / "machine-id"
    empty.write_text("")
    monkeypatch.setattr(trace_resources, "MACHINE_ID_FILES", (str(empty),))
    export = trace_export(TelemetrySettings("http://c:4318"), {})
    assert export is not None
    told = trace_resources.resources(feed_settings(tmp_path, KAFKA), export)
    assert "host.id" not in told["feed"]
    assert told["feed"]["chandlery.host.boot_id"]


async def test_kafkas_clients_bear_the_names_that_spans_tell() -> None:
    for consumer in (candle_consumer(KAFKA), forming_consumer(KAFKA, urgent=True)):
        assert consumer._client._client_id == CANDLES_CLIENT
        await consumer.stop()
    producer = signal_producer(KAFKA)
    assert producer.client._client_id == SIGNALS_CLIENT
    await producer.stop()
