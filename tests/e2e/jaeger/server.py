"""Jaeger as a process of this machine: OTLP in by gRPC and by HTTP, traces kept in its memory, its query API out."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.e2e.jaeger.building import PROGRAM
from tests.e2e.local_service import local_service
from tests.support.free_ports import free_ports

#: Beyond it the oldest trace is forgotten; the captures make two thousand at most.
MOST_TRACES: Final = 20_000
_STORE: Final = "memory"


class Jaeger(NamedTuple):
    """Where one is reached: base URLs, without a slash at the end.

    Attributes:
        receivers: of OTLP, by OpenTelemetry's name of the protocol. query: of its query API, and its pages.
    """

    receivers: dict[str, str]
    query: str


@contextmanager
def running_jaeger(program: Path, folder: Path) -> Iterator[Jaeger]:
    """Run one from when it is ready to the end of the block.

    Args:
        program: as :func:`tests.e2e.jaeger.building.build` gave it. folder: for its settings and its log.
    """
    first = free_ports(5)
    grpc, http, query, query_grpc, health = (f"127.0.0.1:{first + at}" for at in range(5))
    settings = folder / f"{PROGRAM}.yaml"  # JSON is YAML
    settings.write_text(json.dumps(_settings(grpc, http, query, query_grpc, health)), encoding="utf-8")
    command = [str(program), "--config", str(settings)]
    with local_service(command, f"http://{health}/status", folder / f"{PROGRAM}.log", os.environ):
        yield Jaeger({"grpc": f"http://{grpc}", "http/protobuf": f"http://{http}"}, f"http://{query}")


def _settings(grpc: str, http: str, query: str, query_grpc: str, health: str) -> dict[str, Any]:
    """Jaeger's own all-in-one settings, but for the ports, and without a batch processor: an answer means *stored*."""
    return {
        "service": {
            "extensions": ["jaeger_storage", "jaeger_query", "healthcheckv2"],
            "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["jaeger_storage_exporter"]}},
            "telemetry": {"metrics": {"level": "none"}, "logs": {"level": "warn"}},
        },
        "extensions": {
            "jaeger_storage": {"backends": {_STORE: {"memory": {"max_traces": MOST_TRACES}}}},
            "jaeger_query": {
                "storage": {"traces": _STORE},
                "http": {"endpoint": query},
                "grpc": {"endpoint": query_grpc},
                "enable_tracing": False,  # of Jaeger itself: it would wait 10 s at its end for a receiver of that
            },
            "healthcheckv2": {"use_v2": True, "http": {"endpoint": health}},
        },
        "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": grpc}, "http": {"endpoint": http}}}},
        "exporters": {"jaeger_storage_exporter": {"trace_storage": _STORE}},
    }
