"""Traces as OTLP's requests, what spans share encoded once and remembered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from chandlery.core.telemetry import Kind, Service, Shared, Span
from chandlery.workers.feed.otlp_wire import SPAN_ATTRIBUTES, attribute, field, link_field, span_head

SCOPE: Final = "chandlery"
#: Numbers of fields: opentelemetry/proto/collector/trace/v1/trace_service.proto, …/trace/v1/trace.proto,
#: …/resource/v1/resource.proto and …/common/v1/common.proto.
_REQUEST_RESOURCE_SPANS: Final = 1
_RESOURCE_SPANS_RESOURCE: Final = 1
_RESOURCE_SPANS_SCOPE_SPANS: Final = 2
_RESOURCE_ATTRIBUTES: Final = 1
_SCOPE_SPANS_SCOPE: Final = 1
_SCOPE_SPANS_SPANS: Final = 2
_SCOPE_NAME: Final = 1
_SCOPE_VERSION: Final = 2
_SPAN_NAME: Final = 5
#: About 500 bytes each: 2 MB at most.
_MOST_ABOUTS: Final = 4_096
#: The field kind (6, a number) and its values.
_KINDS: Final[dict[Kind, bytes]] = {
    "internal": b"\x30\x01",
    "client": b"\x30\x03",
    "producer": b"\x30\x04",
    "consumer": b"\x30\x05",
}


class Encoder:
    """Makes spans into requests.

    A message of Protocol Buffers is its fields put behind each other, whoever encoded them: what many spans say is
    encoded once, and only ids, times and what is a span's own are written anew.

    Args:
        resources: attributes of each process by whom spans are told, without those of one trader.
        version: of the instrumentation scope.
    """

    def __init__(self, resources: Mapping[Service, Mapping[str, str | int]], version: str) -> None:
        self._resources = resources
        scope = field(_SCOPE_NAME, SCOPE.encode()) + field(_SCOPE_VERSION, version.encode())
        self._scope = field(_SCOPE_SPANS_SCOPE, scope)
        #: By the identity of what spans share, which is kept here so that it stays its own: its name, and both encoded.
        self._abouts: dict[int, tuple[Shared, str, Kind, bytes]] = {}
        self._resource = lru_cache(maxsize=1_024)(self._encoded_resource)

    def encode(self, spans: Iterable[Span], trader: str) -> bytes:
        """One request with one trace. Requests put behind each other are one request with all of their traces.

        Args:
            trader: whose process told the spans of service ``trader``.

        Raises:
            ValueError: a number doesn't fit into 64 bits, or a time is before 1970.
        """
        placed: dict[Service, list[bytes]] = {}
        for span in spans:
            parts = placed.get(span.service)
            if parts is None:
                parts = placed[span.service] = [self._scope]
            body = span_head(span.trace_id, span.span_id, span.parent_id, span.start_ns, span.end_ns)
            body += self._about(span)
            for name, value in span.own.items():
                body += attribute(SPAN_ATTRIBUTES, name, value)
            for link in span.links:
                body += link_field(link)
            parts.append(field(_SCOPE_SPANS_SPANS, body))
        return b"".join(
            field(
                _REQUEST_RESOURCE_SPANS,
                self._resource(service, trader if service == "trader" else "")
                + field(_RESOURCE_SPANS_SCOPE_SPANS, b"".join(parts)),
            )
            for service, parts in placed.items()
        )

    def _about(self, span: Span) -> bytes:
        """The part of a span that is the same in other traces. Whoever makes them shares one tuple: nothing is hashed."""
        found = self._abouts.get(id(span.shared))
        if found is not None and found[1] == span.name and found[2] == span.kind:
            return found[3]
        if len(self._abouts) >= _MOST_ABOUTS:
            self._abouts.clear()
        encoded = _encoded_about(span.name, span.kind, span.shared)
        self._abouts[id(span.shared)] = span.shared, span.name, span.kind, encoded
        return encoded

    def _encoded_resource(self, service: Service, trader: str) -> bytes:
        about = dict(self._resources[service])
        if trader:
            about["service.instance.id"] = trader
        attributes = b"".join(attribute(_RESOURCE_ATTRIBUTES, name, value) for name, value in about.items())
        return field(_RESOURCE_SPANS_RESOURCE, attributes)


def _encoded_about(name: str, kind: Kind, shared: Shared) -> bytes:
    about = b"".join(attribute(SPAN_ATTRIBUTES, key, value) for key, value in shared)
    return field(_SPAN_NAME, name.encode()) + _KINDS[kind] + about
