"""What the encoder writes is what OpenTelemetry's own messages read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from chandlery.core.telemetry import Link, Span
from chandlery.workers.feed.span_encoder import Encoder

WHOLE = st.integers(-(2**63), 2**63 - 1)
VALUES = st.one_of(st.text(max_size=300), st.booleans(), WHOLE, st.floats(allow_nan=False))
ABOUT = st.dictionaries(st.text(min_size=1, max_size=140), VALUES, max_size=4)
KINDS = st.sampled_from(["internal", "producer", "consumer", "client"])
LINKS = st.builds(Link, st.binary(min_size=16, max_size=16), st.binary(min_size=8, max_size=8), ABOUT)
SPANS = st.builds(
    Span,
    name=st.text(min_size=1, max_size=200),
    kind=KINDS,
    service=st.sampled_from(["ingest", "aggregator", "feed", "trader"]),
    trace_id=st.binary(min_size=16, max_size=16),
    span_id=st.binary(min_size=8, max_size=8),
    parent_id=st.one_of(st.just(b""), st.binary(min_size=8, max_size=8)),
    start_ns=st.integers(0, 2**64 - 1),
    end_ns=st.integers(0, 2**64 - 1),
    shared=ABOUT.map(lambda about: tuple((f"shared.{name}", value) for name, value in about.items())),
    own=ABOUT,
    links=st.lists(LINKS, max_size=2),
)


def plain(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in pairs}


def same(told: dict[str, Any], read: dict[str, Any]) -> None:
    assert read == told
    assert {name: type(value) for name, value in read.items()} == {name: type(value) for name, value in told.items()}


@settings(deadline=None)
@given(st.lists(SPANS, max_size=4), st.text(max_size=200))
def test_opentelemetrys_messages_read_what_is_written(spans: list[Span], trader: str) -> None:
    resources: Any = {name: {"service.name": name, "n": -3} for name in ("ingest", "aggregator", "feed", "trader")}
    request = ExportTraceServiceRequest.FromString(Encoder(resources, "1.2").encode(spans, trader))
    read = [
        (plain(by_resource.resource.attributes), by_scope.scope, span)
        for by_resource in request.resource_spans
        for by_scope in by_resource.scope_spans
        for span in by_scope.spans
    ]
    told = [
        span for service in dict.fromkeys(span.service for span in spans) for span in spans if span.service == service
    ]
    assert len(read) == len(told)
    for span, (resource, scope, message) in zip(told, read, strict=True):
        whose = {"service.instance.id": trader} if span.service == "trader" and trader else {}
        same({"service.name": span.service, "n": -3, **whose}, resource)
        assert (scope.name, scope.version) == ("chandlery", "1.2")
        assert (message.name, SpanMessage.SpanKind.Name(message.kind)) == (span.name, f"SPAN_KIND_{span.kind.upper()}")
        assert (message.trace_id, message.span_id, message.parent_span_id) == (
            span.trace_id, span.span_id, span.parent_id,
        )  # fmt: skip
        assert (message.start_time_unix_nano, message.end_time_unix_nano) == (span.start_ns, span.end_ns)
        assert message.flags == 1
        same(span.attributes, plain(message.attributes))
        assert [(link.trace_id, link.span_id, plain(link.attributes)) for link in message.links] == [
            (link.trace_id, link.span_id, link.attributes) for link in span.links
        ]


def test_what_is_remembered_has_a_bound_and_what_was_forgotten_is_encoded_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("chandlery.workers.feed.span_encoder._MOST_ABOUTS", 3)
    spans = [
        Span("n", "internal", "feed", b"t" * 16, b"s" * 8, b"", 1, 2, (("chandlery.number", number),), {})
        for number in range(10)
    ]
    one = Encoder({"feed": {}}, "")
    for span in [*spans, *spans[::-1], *spans]:
        assert one.encode([span], "") == Encoder({"feed": {}}, "").encode([span], "")
        assert len(one._abouts) <= 3


@pytest.mark.parametrize(
    "changes",
    [
        {"start_ns": -1},
        {"end_ns": 2**64},
        {"own": {"n": 2**63}},
        {"own": {"n": -(2**63) - 1}},
        {"own": {"t": "\ud800"}},
    ],
)
def test_what_no_message_can_hold_is_no_span(changes: dict[str, Any]) -> None:
    span = Span("n", "internal", "feed", b"t" * 16, b"s" * 8, b"", 1, 2, (), {})._replace(**changes)
    with pytest.raises(ValueError, match=r"."):
        Encoder({"feed": {}}, "").encode([span], "")
