"""Settings of traces that can't be followed, or lead to something else: told, and nothing else stands still."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import grpc
import pytest
from aiohttp import web
from tests.workers_feed.feed_setup import feed_settings
from tests.workers_feed.trace_setup import exported, stamped, traced

from chandlery.core.clocks import HostClocks
from chandlery.core.latency import account
from chandlery.core.settings import KafkaSettings
from chandlery.core.signals import Completion
from chandlery.workers.feed import otlp
from chandlery.workers.feed.board import Receipt
from chandlery.workers.feed.tracing import Tracing


def test_a_wrong_setting_is_told_and_nothing_else_stands_still(tmp_path: Path) -> None:
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "nowhere"}
    made = Tracing(feed_settings(tmp_path, KafkaSettings("b:9092", "f")), Receipt(), HostClocks(), environment)
    one = stamped(1)
    made.completed(one, Completion(one.id, one.trader, 1, 1), one.stamps, account(one.stamps))
    assert (made.on, made.built) == (False, 0)
    assert "http://host:port" in made.report()["last_error"]


def test_a_certificate_that_is_not_there_is_told(tmp_path: Path) -> None:
    environment = {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(tmp_path / "none.pem")}
    made = Tracing(
        traced(tmp_path, KafkaSettings("b:9092", "f"), "https://localhost:1"), Receipt(), HostClocks(), environment
    )
    assert not made.on
    assert "certificates" in made.report()["last_error"]


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("headers", ["a=s3cret%0A", "s3cret name=x", "s3cret%0A=x", "a=s3cret%C3%B6"])
def test_headers_that_cannot_be_sent_turn_traces_off_and_are_told_without_their_values(
    tmp_path: Path, protocol: str, headers: str
) -> None:
    settings = traced(tmp_path, KafkaSettings("b:9092", "f"), "http://user:s3cret@[::1]:1", protocol)
    made = Tracing(settings, Receipt(), HostClocks(), {"OTEL_EXPORTER_OTLP_HEADERS": headers})
    assert not made.on
    assert "header" in made.problem
    assert "s3cret" not in str(made.report())


def test_grpcs_own_and_binary_headers_are_told(tmp_path: Path) -> None:
    settings = traced(tmp_path, KafkaSettings("b:9092", "f"), "http://c:1", "grpc")
    for headers in ("token-bin=x", "grpc-timeout=x"):
        assert not Tracing(settings, Receipt(), HostClocks(), {"OTEL_EXPORTER_OTLP_HEADERS": headers}).on
    assert Tracing(settings, Receipt(), HostClocks(), {"OTEL_EXPORTER_OTLP_HEADERS": "x-api-key=x"}).on


async def test_what_grpc_cannot_send_is_refused_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otlp, "_check_header", lambda *_: None)
    for headers, kind in (("a=x%0A", "ExecuteBatchError"), ("a-bin=x", "TypeError")):
        made = Tracing(
            traced(tmp_path, KafkaSettings("b:9092", "f"), "http://127.0.0.1:1", "grpc"),
            Receipt(),
            HostClocks(),
            {"OTEL_EXPORTER_OTLP_HEADERS": headers},
        )
        assert await exported(made, [stamped(1), stamped(2)]) == 0
        assert made.dropped == {"refused": 2}
        assert kind in made.problem


PAGE = "<!DOCTYPE html><title>Welcome</title>"


@asynccontextmanager
async def a_web_server() -> AsyncIterator[str]:
    """It answers everything by 200 and a page."""

    async def welcome(_request: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", welcome)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def another_service() -> AsyncIterator[str]:
    """It has the name of OTLP's and answers something else."""
    method = grpc.unary_unary_rpc_method_handler(lambda _request, _context: PAGE.encode())
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


@pytest.mark.parametrize(
    ("serving", "protocol"), [(a_web_server, "http/protobuf"), (another_service, "grpc")], ids=["http", "grpc"]
)
async def test_who_says_yes_in_other_words_than_otlps_is_no_receiver(
    tmp_path: Path, serving: Callable[[], AbstractAsyncContextManager[str]], protocol: str
) -> None:
    async with serving() as endpoint:
        made = Tracing(traced(tmp_path, KafkaSettings("b:9092", "f"), endpoint, protocol), Receipt(), HostClocks(), {})
        assert await exported(made, [stamped(1), stamped(2)]) == 0
    assert made.dropped == {"refused": 2}
    assert made.report()["last_error"] == "an answer that is none of OTLP's"
