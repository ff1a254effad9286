"""Every name that spans and resources have is one of OpenTelemetry's semantic conventions, or begins with ours."""

from __future__ import annotations

import importlib
from pathlib import Path

from tests.core.test_core_telemetry import STAMPS, TOPICS, a_signal
from tests.workers_feed.feed_setup import feed_settings

from chandlery.core.latency import account
from chandlery.core.settings import KafkaSettings, TelemetrySettings
from chandlery.core.telemetry import Broker, signal_spans, tick_spans, trace_export
from chandlery.workers.feed.trace_resources import resources

WHERE = Broker("kafka-0", 9092, "market.aggregator")


def conventions() -> set[str]:
    """All names of attributes, as the package has them; those that are deprecated aren't told apart."""
    package = importlib.import_module("opentelemetry.semconv")
    names: set[str] = set()
    for folder in map(Path, package.__path__):
        for path in folder.rglob("*_attributes.py"):
            module = importlib.import_module(".".join(("opentelemetry.semconv", *path.relative_to(folder).parts))[:-3])
            names |= {value for value in vars(module).values() if isinstance(value, str) and "." in value}
    return names


def test_every_name_is_of_the_conventions_or_begins_with_ours(tmp_path: Path) -> None:
    known = conventions()
    signal = a_signal()
    told = account(signal.stamps)
    spans = [
        *signal_spans(signal, STAMPS, told, TOPICS, partition=3, broker=WHERE, hosts=("aa", "bb")),
        *tick_spans(b"t" * 16, "BTC/USDT", "1m", False, STAMPS, told, TOPICS, partition=3, broker=WHERE),
    ]
    telemetry = TelemetrySettings("http://c:4318")
    export = trace_export(telemetry, {})
    assert export is not None
    whose = resources(feed_settings(tmp_path, KafkaSettings("b:9092", "market"), telemetry=telemetry), export)
    said = {name for span in spans for name in span.attributes} | {name for about in whose.values() for name in about}
    foreign = {name for name in said if not name.startswith("chandlery.")}
    assert len(foreign) > 20
    assert foreign <= known
