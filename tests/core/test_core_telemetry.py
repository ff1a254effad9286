"""Spans from a signal's account, and where they are to go."""

from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chandlery.core.clocks import boot_id
from chandlery.core.errors import InputError
from chandlery.core.latency import STAGES, account
from chandlery.core.settings import KafkaSettings, TelemetrySettings
from chandlery.core.signals import Signal, SignalStamps, signal_id
from chandlery.core.telemetry import (
    Broker,
    Span,
    ids_in,
    ids_of,
    shown_endpoint,
    signal_spans,
    tick_spans,
    trace_export,
    trace_id_of,
    traceparent_of,
)
from chandlery.core.telemetry.spans import span_id_of
from chandlery.core.topics import topics_of

TOPICS = topics_of(KafkaSettings("b:9092", "market"))
BASE = 5_000_000_000_000
WALL = 1_700_000_000_000_000_000
STAMPS = SignalStamps(
    exchange_ns=BASE + WALL - 7_000_000,
    received_ns=BASE,
    appended_ns=BASE + WALL + 500_000,
    aggregated_ns=BASE + 3_000_000,
    emitted_ns=BASE + 3_100_000,
    fed_ns=BASE + 5_000_000,
    published_ns=BASE + 5_200_000,
    woken_ns=BASE + 5_300_000,
    decided_ns=BASE + 5_600_000,
    signalled_ns=BASE + 5_650_000,
    acknowledged_ns=BASE + 8_000_000,
    wall_offset_ns=WALL,
)


def a_signal(stamps: SignalStamps = STAMPS, **changes: object) -> Signal:
    base = Signal(
        id=signal_id(
            trader="desk/a", uid="u", code="c", symbol="BTC/USDT", interval="1m", open_time_ms=0, rule="r", ordinal=0
        ),
        trader="desk/a",
        strategy="x",
        code="c",
        rule="r",
        ordinal=0,
        action="buy",
        symbol="BTC/USDT",
        interval="1m",
        open_time_ms=0,
        session=0,
        price="1",
        strength=0.5,
        reason="why",
        strategy_ns=100_000,
        stamps=stamps,
    )
    return msgspec.structs.replace(base, **changes)


def spans_of(signal: Signal) -> list[Span]:
    return signal_spans(signal, signal.stamps, account(signal.stamps), TOPICS, partition=3)


def test_a_trace_has_its_signals_id_and_the_same_spans_each_time() -> None:
    signal = a_signal()
    spans = spans_of(signal)
    assert {span.trace_id.hex() for span in spans} == {signal.id}
    assert [span.span_id for span in spans] == [span.span_id for span in spans_of(a_signal())]
    assert len({span.span_id for span in spans}) == len(spans)
    assert trace_id_of("no id at all") != trace_id_of("another one")
    assert any(trace_id_of("0" * 32)), "an id of zeros is none in W3C's words"


def test_stages_lie_end_to_end_and_the_strategys_own_time_lies_in_its_decision() -> None:
    root, *others = spans_of(a_signal())
    stages = [span for span in others if span.parent_id == root.span_id]
    assert [span.attributes["chandlery.stage"] for span in stages] == list(STAGES)
    assert sum(span.end_ns - span.start_ns for span in stages) == root.end_ns - root.start_ns == 8_000_000
    assert (root.start_ns, root.end_ns) == (BASE + WALL, BASE + WALL + 8_000_000)
    (inner,) = [span for span in others if span.parent_id != root.span_id]
    (decided,) = [span for span in stages if span.attributes["chandlery.stage"] == "decided"]
    assert (inner.parent_id, inner.end_ns, inner.end_ns - inner.start_ns) == (decided.span_id, decided.end_ns, 100_000)
    assert root.attributes["chandlery.exchange.skew_us"] == 7_000


def test_what_touches_a_topic_is_told_in_the_messaging_conventions_words() -> None:
    by_stage = {span.attributes.get("chandlery.stage"): span for span in spans_of(a_signal())}
    topics = {"appended": TOPICS.trades, "aggregated": TOPICS.trades, "fed": TOPICS.candles}
    for stage, topic in {**topics, "acknowledged": TOPICS.signals}.items():
        attributes = by_stage[stage].attributes
        assert attributes["messaging.system"] == "kafka"
        assert attributes["messaging.destination.name"] == topic
        assert attributes["messaging.destination.partition.id"] == "3"
        assert by_stage[stage].name == f"{attributes['messaging.operation.name']} {topic}"
    forming = {span.attributes.get("chandlery.stage"): span for span in spans_of(a_signal(forming=True))}
    assert forming["fed"].attributes["messaging.destination.name"] == TOPICS.candles_live


def test_the_header_is_w3cs_and_names_the_span_that_sent_the_record() -> None:
    signal = a_signal()
    text = traceparent_of(signal.id, sampled=True).decode()
    found = re.fullmatch(r"00-([0-9a-f]{32})-([0-9a-f]{16})-01", text)
    assert found is not None
    (sent,) = [span for span in spans_of(signal) if span.attributes.get("chandlery.stage") == "acknowledged"]
    assert found.groups() == (signal.id, sent.span_id.hex())
    assert traceparent_of(signal.id, sampled=False).endswith(b"-00")


_ns = st.integers(-(2**62), 2**62)


@settings(deadline=None)
@given(st.builds(SignalStamps, *[_ns] * 13))
def test_whatever_the_stamps_say_no_span_is_negative_and_the_stages_sum_to_the_whole(stamps: SignalStamps) -> None:
    spans = spans_of(a_signal(stamps))
    if not spans:
        return
    root, *stages = [span for span in spans if span.attributes.get("chandlery.stage") or not span.parent_id]
    assert all(span.end_ns > span.start_ns for span in spans)
    assert [span.start_ns for span in stages[1:]] == [span.end_ns for span in stages[:-1]]
    total = sum(span.end_ns - span.start_ns for span in stages)
    assert total == root.end_ns - root.start_ns
    assert total / 1_000 == pytest.approx(account(stamps).whole_us, rel=0.01, abs=0.001 * len(STAGES))


def test_a_stage_of_no_length_is_told_as_a_nanosecond_that_the_next_one_lacks() -> None:
    # The trader was awake already. Jaeger takes a span of no length for a negative one.
    awake = msgspec.structs.replace(STAMPS, woken_ns=STAMPS.published_ns)
    root, *stages = spans_of(a_signal(awake))[: 1 + len(STAGES)]
    lengths_ns = {span.attributes["chandlery.stage"]: span.end_ns - span.start_ns for span in stages}
    exact_ns = {stage.name: round(stage.duration_us * 1_000) for stage in account(awake).stages}
    assert exact_ns["woken"] == 0
    assert lengths_ns == {**exact_ns, "woken": 1, "decided": exact_ns["decided"] - 1}
    assert [span.start_ns for span in stages[1:]] == [span.end_ns for span in stages[:-1]]
    assert root.end_ns - root.start_ns == sum(exact_ns.values())


def test_a_clock_stepped_back_within_a_signal_moves_its_trace_and_stretches_nothing() -> None:
    # The wall clock was put back by an hour between the broker's stamp and the signal's own reading of it.
    stepped = msgspec.structs.replace(STAMPS, wall_offset_ns=WALL - 3_600_000_000_000)
    before, after = spans_of(a_signal()), spans_of(a_signal(stepped))
    assert after[0].end_ns - after[0].start_ns == before[0].end_ns - before[0].start_ns
    assert all(span.end_ns > span.start_ns for span in after)
    uncertain = {
        span.attributes["chandlery.stage"] for span in after if "chandlery.stage.uncertainty_us" in span.attributes
    }
    assert uncertain == {"appended", "aggregated"}, "only what the broker's clock has a part in"


ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318/"}


def test_without_an_endpoint_there_are_no_traces() -> None:
    assert trace_export(TelemetrySettings(), {}) is None
    assert trace_export(TelemetrySettings(), {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}) is None, "of other programs"
    assert trace_export(TelemetrySettings("http://c:4318"), {"OTEL_SDK_DISABLED": "true"}) is None
    assert trace_export(TelemetrySettings("http://c:4318"), {"OTEL_TRACES_EXPORTER": "none"}) is None


@pytest.mark.parametrize(
    ("settings", "environment", "endpoint"),
    [
        (TelemetrySettings(), ENDPOINT, "http://collector:4318/v1/traces"),
        (TelemetrySettings("http://own:1"), ENDPOINT, "http://own:1/v1/traces"),
        (TelemetrySettings("http://own:1/base"), {}, "http://own:1/base/v1/traces"),
        (TelemetrySettings("http://u:s@own:1/base/?api-key=k"), {}, "http://u:s@own:1/base/v1/traces?api-key=k"),
        (TelemetrySettings("http://[::1]:4318"), {}, "http://[::1]:4318/v1/traces"),
        (TelemetrySettings("https://own:4317", "grpc"), {}, "https://own:4317"),
        (TelemetrySettings(), ENDPOINT | {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t:1/x"}, "http://t:1/x"),
        (TelemetrySettings(), ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http://collector:4318/"),
    ],
)
def test_settings_go_before_variables_and_addresses_are_the_specifications(
    settings: TelemetrySettings, environment: dict[str, str], endpoint: str
) -> None:
    export = trace_export(settings, environment)
    assert export is not None
    assert export.endpoint == endpoint


def test_opentelemetrys_variables_mean_what_they_mean_elsewhere() -> None:
    export = trace_export(
        TelemetrySettings(resource={"k8s.pod.name": "p"}),
        {
            **ENDPOINT,
            "OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Bearer%20x, a=b",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "2500",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "0.25",
            "OTEL_RESOURCE_ATTRIBUTES": "k8s.node.name=n,k8s.pod.name=other",
        },
    )
    assert export is not None
    assert export.headers == {"authorization": "Bearer x", "a": "b"}
    assert (export.timeout_s, export.gzip, export.signal_share) == (2.5, True, 0.25)
    assert export.resource == {"k8s.node.name": "n", "k8s.pod.name": "p"}


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"}, "http://host:port"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:99999"}, "http://host:port"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "ftp://user:secret@c:1/x?key=secret"}, "ftp://c:1/x"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "user:secret@c:4318"}, "http://host:port"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://u:secret/a@c:4318"}, "http://host:port"),
        (ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "http/protobuf or grpc"),
        (ENDPOINT | {"OTEL_TRACES_SAMPLER": "jaeger_remote"}, "always_on"),
        (ENDPOINT | {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "2"}, "0 … 1"),
        (ENDPOINT | {"OTEL_EXPORTER_OTLP_TIMEOUT": "soon"}, "a number"),
        (ENDPOINT | {"OTEL_EXPORTER_OTLP_HEADERS": "secret-without-name"}, "name=value"),
    ],
)
def test_what_cannot_be_meant_is_told_and_no_token_with_it(environment: dict[str, str], says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says)) as told:
        trace_export(TelemetrySettings(), environment)
    assert "secret" not in str(told.value)


@pytest.mark.parametrize(
    ("endpoint", "shown"),
    [
        ("http://collector:4318/v1/traces", "http://collector:4318/v1/traces"),
        ("https://user:s3cret@host", "https://host"),
        ("https://host:1/a?api-key=s3cret#s3cret", "https://host:1/a"),
        ("https://[::1]:4317", "https://[::1]:4317"),
        ("https://user:s3/cret@host", "…"),
        ("https://user:s3?cret@host", "…"),
        ("user:s3cret@host", "…"),
        ("http://[s3cret", "…"),
    ],
)
def test_of_an_endpoint_only_what_is_no_secret_is_shown(endpoint: str, shown: str) -> None:
    assert shown_endpoint(endpoint) == shown


def test_a_ticks_trace_names_the_hosts_whose_clocks_stamped_it() -> None:
    ours = boot_id().hex()
    stamps = SignalStamps(*[getattr(STAMPS, name) for name in STAMPS.__struct_fields__][:7])
    stamps.wall_offset_ns, stamps.origin_uncertainty_ns, stamps.host_uncertainty_ns = WALL, 30_000, 20_000
    root, *stages = tick_spans(
        b"t" * 16, "BTC/USDT", "1m", False, stamps, account(stamps), TOPICS, partition=3, hosts=("aa", "bb")
    )
    hosts = {span.attributes["chandlery.stage"]: span.attributes["chandlery.stage.clock.host"] for span in stages}
    assert hosts == {"appended": "broker", "aggregated": "bb", "emitted": "bb", "fed": ours, "published": ours}
    assert root.attributes["chandlery.received.clock.host"] == "aa"
    assert root.attributes["chandlery.received.clock.uncertainty_us"] == 30.0
    assert root.attributes["chandlery.aggregated.clock.uncertainty_us"] == 20.0


#: Span attributes of the semantic conventions for messaging and for Kafka that ours say (release 1.37 and later).
MESSAGING = {
    "messaging.system", "messaging.operation.name", "messaging.operation.type", "messaging.destination.name",
    "messaging.destination.partition.id", "messaging.client.id", "messaging.consumer.group.name",
    "messaging.message.id", "messaging.kafka.message.key", "server.address", "server.port",
}  # fmt: skip
#: Own names have a prefix of their own; ``code.function.name`` is the conventions' for code.
OTHERS = {"code.function.name"}


def test_messaging_spans_say_broker_client_group_and_message_in_the_conventions_names() -> None:
    signal = a_signal()
    broker = Broker("kafka-0", 9092, "market.aggregator")
    spans = signal_spans(signal, signal.stamps, account(signal.stamps), TOPICS, partition=3, broker=broker)
    said = {name for span in spans for name in span.attributes if not name.startswith("chandlery.")}
    assert said - OTHERS == MESSAGING
    by_stage = {span.attributes.get("chandlery.stage"): span.attributes for span in spans}
    for stage, client in {
        "appended": "chandlery-ingest",
        "aggregated": "chandlery-aggregator",
        "fed": "chandlery-feed-candles",
        "acknowledged": "chandlery-feed-signals",
    }.items():
        about = by_stage[stage]
        assert (about["server.address"], about["server.port"]) == ("kafka-0", 9092)
        assert about["messaging.client.id"] == client
        assert about["messaging.kafka.message.key"] == "BTC/USDT"
        assert about.get("messaging.consumer.group.name") == ("market.aggregator" if stage == "aggregated" else None)
        assert about.get("messaging.message.id") == (signal.id if stage == "acknowledged" else None)
    for stage in ("emitted", "published", "woken", "decided", "signalled"):
        assert not MESSAGING & by_stage[stage].keys()


def test_ids_of_a_line_are_those_of_the_header() -> None:
    signal = a_signal()
    assert ids_in(traceparent_of(signal.id, sampled=False)) == ids_of(signal.id)
    assert ids_of(signal.id)["trace_id"] == signal.id
    assert not ids_in(b"00-" + b"Z" * 32 + b"-" + b"0" * 16 + b"-00")


def test_each_span_has_the_id_that_its_name_and_trace_give() -> None:
    signal = a_signal()
    told = account(signal.stamps)
    traces = [
        (spans_of(signal), "frame to signal"),
        (tick_spans(b"t" * 16, "BTC/USDT", "1m", True, signal.stamps, told, TOPICS, partition=3), "frame to segment"),
    ]
    for spans, root in traces:
        for span in spans:
            name = span.attributes.get("chandlery.stage", root if not span.parent_id else "strategy")
            assert span.span_id == span_id_of(span.trace_id, str(name))
