"""OTLP: one request that takes encoded spans to a receiver, and what the receiver answers.

The answer's message is OpenTelemetry's own (opentelemetry-proto), imported only where traces go somewhere. Its SDK isn't
used: it makes spans while they happen, where these are made after the fact in the name of four processes, and for that
it takes five times as long a signal and four times the memory (docs/architecture.md, Choices).
"""

from __future__ import annotations

import gzip
import re
import ssl
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlsplit

import aiohttp
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from chandlery.core.errors import InputError
from chandlery.core.telemetry import TraceExport
from chandlery.workers.feed.trace_answer import Answer

if TYPE_CHECKING:
    import grpc

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


class Exporter(Protocol):
    """One way to a receiver."""

    async def send(self, body: bytes) -> Answer:
        """Send one encoded request; never raises but CancelledError."""
        ...

    async def close(self) -> None: ...


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
    """A receiver may take a request and leave some of its spans out. Who says yes in other words is none."""
    try:
        partial = ExportTraceServiceResponse.FromString(body).partial_success
    except DecodeError:  # a web page, say
        return Answer("refused", "an answer that is none of OTLP's")
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
