"""Real OTLP receivers to send traces to: over HTTP (aiohttp) and over gRPC (grpcio), well-behaved or not."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import subprocess
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import grpc
from aiohttp import web
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass
class Seen:
    """One span as received; ids in hex, attributes and those of its resource as plain values."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    resource: dict[str, Any]
    links: list[tuple[str, str, dict[str, Any]]]

    @property
    def length_us(self) -> float:
        """End less start, µs."""
        return (self.end_ns - self.start_ns) / 1_000

    @property
    def service(self) -> str:
        """``service.name``."""
        return str(self.resource["service.name"])


@dataclass
class Receiver:
    """What came, and how requests are answered.

    Attributes:
        endpoint: base URL. requests: headers of each, names in lower case. answers: HTTP status codes of the next
            requests (gRPC: code names); 200 (OK) when there are none left. stall: requests wait until it is set.
    """

    endpoint: str = ""
    spans: list[Seen] = field(default_factory=list)
    requests: list[dict[str, str]] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)
    always: Any = None
    rejected: int = 0
    stall: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.stall.set()

    def traces(self) -> dict[str, list[Seen]]:
        """Spans by trace id."""
        found: defaultdict[str, list[Seen]] = defaultdict(list)
        for span in list(self.spans):
            found[span.trace_id].append(span)
        return dict(found)

    def answer(self) -> Any:
        """How the next request is answered; None: well."""
        if self.always is not None:
            return self.always
        return self.answers.pop(0) if self.answers else None

    def take(self, request: ExportTraceServiceRequest) -> ExportTraceServiceResponse:
        """Keep a request's spans."""
        for by_resource in request.resource_spans:
            resource = _plain(by_resource.resource.attributes)
            for by_scope in by_resource.scope_spans:
                assert by_scope.scope.name == "chandlery"
                for span in by_scope.spans:
                    links = [(link.trace_id.hex(), link.span_id.hex(), _plain(link.attributes)) for link in span.links]
                    self.spans.append(
                        Seen(
                            span.name,
                            Span.SpanKind.Name(span.kind),
                            span.trace_id.hex(),
                            span.span_id.hex(),
                            span.parent_span_id.hex(),
                            span.start_time_unix_nano,
                            span.end_time_unix_nano,
                            _plain(span.attributes),
                            resource,
                            links,
                        )
                    )
        response = ExportTraceServiceResponse()
        if self.rejected:
            response.partial_success.rejected_spans = self.rejected
            response.partial_success.error_message = "too many attributes"
        return response


class Identity(NamedTuple):
    """A certificate for 127.0.0.1 that vouches for itself, and its key; PEM files."""

    certificate: Path
    key: Path


def make_identity(folder: Path) -> Identity:
    """A new one, by openssl."""
    made = Identity(folder / "certificate.pem", folder / "key.pem")
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    words += ["-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*words, "-out", made.certificate, "-keyout", made.key], check=True, capture_output=True)
    return made


def _plain(pairs: Sequence[KeyValue]) -> dict[str, Any]:
    found = {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in pairs}
    assert len(found) == len(pairs), "an attribute's name stands once"
    return found


@contextmanager
def http_receiver(identity: Identity | None = None, host: str = "127.0.0.1") -> Iterator[Receiver]:
    """OTLP over HTTP on a free port of this machine, in a thread of its own; over TLS with an identity."""
    receiver = Receiver()
    tls: ssl.SSLContext | None = None
    if identity is not None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(identity.certificate, identity.key)

    async def export(request: web.Request) -> web.Response:
        receiver.requests.append({name.lower(): value for name, value in request.headers.items()})
        body = await request.read()
        await asyncio.to_thread(receiver.stall.wait)
        status = receiver.answer()
        if status is not None:
            return web.Response(status=status, text="no")
        assert request.content_type == "application/x-protobuf"
        if not body.startswith(b"\n"):  # aiohttp has unpacked it already where it says so
            body = gzip.decompress(body)
        response = receiver.take(ExportTraceServiceRequest.FromString(body))
        return web.Response(body=response.SerializeToString(), content_type="application/x-protobuf")

    async def serve(started: Callable[[int], object], stop: asyncio.Event) -> None:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_post("/v1/traces", export)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, host, 0, ssl_context=tls).start()
        started(runner.addresses[0][1])
        await stop.wait()
        await runner.cleanup()

    ready = threading.Event()
    ends: list[Callable[[], object]] = []

    def run() -> None:
        async def main() -> None:
            stop = asyncio.Event()
            loop = asyncio.get_running_loop()
            ends.append(lambda: loop.call_soon_threadsafe(stop.set))

            def started(port: int) -> None:
                receiver.endpoint = f"{'https' if tls else 'http'}://{host}:{port}"
                ready.set()

            await serve(started, stop)

        asyncio.run(main())

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(30), "the receiver listens"
    try:
        yield receiver
    finally:
        receiver.stall.set()
        ends[0]()
        thread.join()


@contextmanager
def grpc_receiver(identity: Identity | None = None) -> Iterator[Receiver]:
    """OTLP over gRPC on a free port of this machine; over TLS with an identity."""
    receiver = Receiver()

    class Service(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(
            self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
        ) -> ExportTraceServiceResponse:
            receiver.requests.append({name.lower(): str(value) for name, value in context.invocation_metadata()})
            receiver.stall.wait()
            code = receiver.answer()
            if code is not None:
                context.abort(grpc.StatusCode[code], "no")
            return receiver.take(request)

    server = grpc.server(ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Service(), server)  # type: ignore[no-untyped-call]
    if identity is None:
        receiver.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    else:
        pair = (identity.key.read_bytes(), identity.certificate.read_bytes())
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
        receiver.endpoint = f"https://127.0.0.1:{port}"
    server.start()
    try:
        yield receiver
    finally:
        receiver.stall.set()
        server.stop(0).wait()
