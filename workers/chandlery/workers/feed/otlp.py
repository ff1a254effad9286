"""OTLP: spans as OpenTelemetry's protobuf messages, and one request that takes them to a receiver.

The messages are OpenTelemetry's own (opentelemetry-proto), imported only where traces go somewhere. Its SDK isn't used:
it makes spans while they happen, where these are made after the fact in the name of four processes, and for that it
takes five times as long a signal and four times the memory (docs/architecture.md, Choices).
"""

from __future__ import annotations

import gzip
import re
import ssl
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlsplit

import aiohttp
from google.protobuf.message import Message
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from chandlery.core.errors import InputError
from chandlery.core.telemetry import Kind, Service, Shared, Span, TraceExport
from chandlery.workers.feed.trace_answer import Answer

if TYPE_CHECKING:
    import grpc

SCOPE: Final = "chandlery"
#: Answers that mean "later", by the protocol's specification.
_LATER_STATUS: Final = frozenset({429, 502, 503, 504})
#: gRPC's CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS; and RESOURCE_EXHAUSTED, as 429.
_LATER_CODES: Final = frozenset({1, 4, 10, 11, 14, 15, 8})
#: Most of a receiver's words that are kept.
_MOST_WORDS: Final = 200
#: An answer is a number and a sentence.
_MOST_ANSWER_BYTES: Final = 65_536
#: RFC 9110's tokens; gRPC's metadata keys, without those for binary values and its own.
_HEADER_NAMES: Final = {
    "http/protobuf": re.compile(r"[0-9a-z!#$%&'*+.^_`|~-]+"),
    "grpc": re.compile(r"(?!grpc-)[0-9a-z_.-]+(?<!-bin)"),
}
_HEADER_VALUE: Final = re.compile(r"[\x20-\x7e]*")
_EXPORT: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

_KINDS: Final[dict[Kind, SpanMessage.SpanKind.ValueType]] = {
    "internal": SpanMessage.SPAN_KIND_INTERNAL,
    "producer": SpanMessage.SPAN_KIND_PRODUCER,
    "consumer": SpanMessage.SPAN_KIND_CONSUMER,
    "client": SpanMessage.SPAN_KIND_CLIENT,
}


class Exporter(Protocol):
    """One way to a receiver."""

    async def send(self, body: bytes) -> Answer:
        """Send one encoded request; never raises but CancelledError."""
        ...

    async def close(self) -> None: ...


class Encoder:
    """Makes spans into messages.

    What spans share is encoded once and remembered: a message of Protocol Buffers is its fields put behind each other,
    whoever encoded them. That takes a third of the time that whole messages take.

    Args:
        resources: attributes of each process by whom spans are told, without those of one trader.
        version: of the instrumentation scope.
    """

    def __init__(self, resources: Mapping[Service, Mapping[str, str | int]], version: str) -> None:
        self._resources = resources
        self._scope = _field(_SCOPE_SPANS_SCOPE, InstrumentationScope(name=SCOPE, version=version).SerializeToString())
        self._about = lru_cache(maxsize=4_096)(_encoded_about)
        self._resource = lru_cache(maxsize=1_024)(self._encoded_resource)

    def encode(self, spans: Iterable[Span], trader: str) -> bytes:
        """One request with one trace. Requests put behind each other are one request with all of their traces.

        Args:
            trader: whose process told the spans of service ``trader``.
        """
        placed: dict[Service, list[bytes]] = {}
        for span in spans:
            parts = placed.get(span.service)
            if parts is None:
                parts = placed[span.service] = [self._scope]
            message = SpanMessage(
                trace_id=span.trace_id,
                span_id=span.span_id,
                parent_span_id=span.parent_id,
                start_time_unix_nano=span.start_ns,
                end_time_unix_nano=span.end_ns,
                flags=1,
            )
            if span.own:
                _fill(message.attributes, span.own)
            for link in span.links:
                linked = message.links.add(trace_id=link.trace_id, span_id=link.span_id)
                _fill(linked.attributes, link.attributes)
            body = message.SerializeToString() + self._about(span.name, span.kind, span.shared)
            parts.append(_field(_SCOPE_SPANS_SPANS, body))
        return b"".join(
            _field(
                _REQUEST_RESOURCE_SPANS,
                self._resource(service, trader if service == "trader" else "")
                + _field(_RESOURCE_SPANS_SCOPE_SPANS, b"".join(parts)),
            )
            for service, parts in placed.items()
        )

    def _encoded_resource(self, service: Service, trader: str) -> bytes:
        resource = Resource()
        _fill(resource.attributes, self._resources[service])
        if trader:
            _fill(resource.attributes, {"service.instance.id": trader})
        return _field(_RESOURCE_SPANS_RESOURCE, resource.SerializeToString())


def _encoded_about(name: str, kind: Kind, shared: Shared) -> bytes:
    """The part of a span that is the same in other traces."""
    message = SpanMessage(name=name, kind=_KINDS[kind])
    _fill(message.attributes, dict(shared))
    return message.SerializeToString()


def _number(message: type[Message], field: str) -> int:
    found: int = message.DESCRIPTOR.fields_by_name[field].number
    return found


_REQUEST_RESOURCE_SPANS: Final = _number(ExportTraceServiceRequest, "resource_spans")
_RESOURCE_SPANS_RESOURCE: Final = _number(ResourceSpans, "resource")
_RESOURCE_SPANS_SCOPE_SPANS: Final = _number(ResourceSpans, "scope_spans")
_SCOPE_SPANS_SCOPE: Final = _number(ScopeSpans, "scope")
_SCOPE_SPANS_SPANS: Final = _number(ScopeSpans, "spans")
#: Protocol Buffers' wire type of what says its length first. All of these fields' numbers are below 16: one byte.
_DELIMITED: Final = 2


def _field(number: int, body: bytes) -> bytes:
    """A field of length-delimited content: its number and type, the length in seven bits a byte, the content."""
    head = bytearray((number << 3 | _DELIMITED,))
    length = len(body)
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head) + body


def _fill(into: Any, attributes: Mapping[str, str | int | float | bool]) -> None:
    for name, value in attributes.items():
        pair = into.add(key=name)
        kind = type(value)
        if kind is str:
            pair.value.string_value = value
        elif kind is bool:
            pair.value.bool_value = value
        elif kind is int:
            pair.value.int_value = value
        else:
            pair.value.double_value = value


def exporter_to(export: TraceExport) -> Exporter:
    """The way that the settings ask for.

    Raises:
        InputError: a certificate can't be read, or a header can't be sent.
    """
    for name, value in export.headers.items():
        _check_header(name, value, export.protocol)
    try:
        return GrpcExporter(export) if export.protocol == "grpc" else HttpExporter(export)
    except (OSError, ssl.SSLError) as error:
        raise InputError(f"OTLP certificates: {error}") from error


def _check_header(name: str, value: str, protocol: str) -> None:
    """Neither a value nor what is no name is shown: either may be part of a token."""
    if not _HEADER_NAMES[protocol].fullmatch(name):
        raise InputError(f"OTLP headers: a name of them is none for {protocol}: write letters, digits, - and _")
    if not _HEADER_VALUE.fullmatch(value):
        raise InputError(
            f"OTLP header {name}: its value holds a line feed or something else that isn't printable ASCII"
        )


class HttpExporter:
    """OTLP over HTTP, ``http/protobuf``."""

    def __init__(self, export: TraceExport) -> None:
        self._url = export.endpoint
        self._gzip = export.gzip
        self._headers = {**export.headers, "content-type": "application/x-protobuf"}
        if export.gzip:
            self._headers["content-encoding"] = "gzip"
        self._timeout = aiohttp.ClientTimeout(total=export.timeout_s or None)
        self._tls = _tls(export) if export.endpoint.startswith("https:") else None
        self._session: aiohttp.ClientSession | None = None

    async def send(self, body: bytes) -> Answer:
        """POST it."""
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self._tls) if self._tls is not None else None
            self._session = aiohttp.ClientSession(connector=connector, timeout=self._timeout)
        data = gzip.compress(body, compresslevel=1) if self._gzip else body
        try:
            async with self._session.post(
                self._url, data=data, headers=self._headers, allow_redirects=False
            ) as response:
                body = await _most_of(response.content)
                return _http_answer(response.status, body, response.headers.get("Retry-After", ""))
        except TimeoutError:
            return Answer("later", f"no answer within {self._timeout.total} s")
        except (aiohttp.ClientError, OSError) as error:
            # Without what a URL or a header may hold of a token.
            return Answer("later", f"{type(error).__name__}: {getattr(error, 'strerror', '') or 'no connection'}")
        except Exception as error:  # noqa: BLE001 - a request that can't be made won't be made later either
            return Answer("refused", f"HTTP can't send it: {type(error).__name__}")

    async def close(self) -> None:
        """Close the connection."""
        if self._session is not None:
            await self._session.close()


async def _most_of(content: aiohttp.StreamReader) -> bytes:
    """An answer's body; of one that is longer than any of OTLP's, the beginning."""
    body = b""
    async for chunk in content.iter_chunked(4_096):
        body += chunk
        if len(body) >= _MOST_ANSWER_BYTES:
            break
    return body


def _http_answer(status: int, body: bytes, retry_after: str) -> Answer:
    if 200 <= status < 300:
        return _taken(body)
    words = f"HTTP {status}"
    if status in _LATER_STATUS:
        return Answer("later", words, float(retry_after) if retry_after.isdigit() else 0.0)
    return Answer("refused", words)


def _taken(body: bytes) -> Answer:
    """A receiver may take a request and leave some of its spans out."""
    try:
        partial = ExportTraceServiceResponse.FromString(body).partial_success
    except ValueError:  # protobuf's DecodeError: no OTLP receiver, but it said yes
        return Answer("taken", "an answer that is none of OTLP's")
    return Answer("taken", partial.error_message[:_MOST_WORDS], rejected=max(0, partial.rejected_spans))


def _tls(export: TraceExport) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=export.certificate or None)
    if export.client_certificate:
        context.load_cert_chain(export.client_certificate, export.client_key or None)
    return context


class GrpcExporter:
    """OTLP over gRPC."""

    def __init__(self, export: TraceExport) -> None:
        import grpc  # 12 MB: only where it is asked for

        parts = urlsplit(export.endpoint)
        host = parts.hostname or ""
        self._target = f"[{host}]:{parts.port or 4317}" if ":" in host else f"{host}:{parts.port or 4317}"
        self._timeout_s = export.timeout_s or None
        self._metadata = tuple(export.headers.items())
        self._compression = grpc.Compression.Gzip if export.gzip else None
        self._tls: grpc.ChannelCredentials | None = None
        self._error: type[grpc.aio.AioRpcError] = grpc.aio.AioRpcError
        if parts.scheme == "https":
            self._tls = grpc.ssl_channel_credentials(
                _read(export.certificate), _read(export.client_key), _read(export.client_certificate)
            )
        self._channel: grpc.aio.Channel | None = None
        self._call: Any = None

    async def send(self, body: bytes) -> Answer:
        """Call ``Export``."""
        import grpc

        if self._channel is None:
            if self._tls is not None:
                self._channel = grpc.aio.secure_channel(self._target, self._tls)
            else:
                self._channel = grpc.aio.insecure_channel(self._target)
            # What was encoded goes out as it is.
            self._call = self._channel.unary_unary(_EXPORT, request_serializer=None, response_deserializer=None)
        try:
            answer = await self._call(
                body, timeout=self._timeout_s, metadata=self._metadata, compression=self._compression
            )
        except self._error as error:
            code = error.code()
            words = f"gRPC {code.name}"
            return Answer("later" if code.value[0] in _LATER_CODES else "refused", words)
        except Exception as error:  # noqa: BLE001 - gRPC's core has errors of its own for what it can't send
            return Answer("refused", f"gRPC can't send it: {type(error).__name__}")
        return _taken(answer)

    async def close(self) -> None:
        """Close the channel."""
        if self._channel is not None:
            await self._channel.close(grace=None)


def _read(path: str) -> bytes | None:
    if not path:
        return None
    with open(path, "rb") as file:
        return file.read()
