"""Settings of traces that can't be followed: told, and nothing else stands still."""

from __future__ import annotations

from pathlib import Path

import pytest
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
