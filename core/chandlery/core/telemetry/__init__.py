"""What Chandlery tells of itself in OpenTelemetry's and Prometheus' words. Pure: nothing here sends or serves anything."""

from chandlery.core.telemetry.environment import TraceExport, shown_endpoint, trace_export
from chandlery.core.telemetry.spans import (
    Attributes,
    Broker,
    Kind,
    Link,
    Service,
    Shared,
    Span,
    ids_in,
    ids_of,
    signal_spans,
    tick_spans,
    trace_id_of,
    traceparent_of,
)

__all__ = [
    "Attributes",
    "Broker",
    "Kind",
    "Link",
    "Service",
    "Shared",
    "Span",
    "TraceExport",
    "ids_in",
    "ids_of",
    "shown_endpoint",
    "signal_spans",
    "tick_spans",
    "trace_export",
    "trace_id_of",
    "traceparent_of",
]
