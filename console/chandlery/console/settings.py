"""Settings of ``python -m chandlery.console --config FILE``."""

from __future__ import annotations

from typing import Literal

import msgspec

from chandlery.core.settings import KafkaSettings


class LocalSettings(msgspec.Struct, omit_defaults=True):
    """The instance of `chandlery up` behind it.

    Attributes:
        instance: its Unix socket. manifests: its files and folders; Traders are written into the first folder.
    """

    instance: str
    manifests: list[str] = []


class ClusterSettings(msgspec.Struct, omit_defaults=True):
    """The Kubernetes behind it, reached with the pod's ServiceAccount.

    Attributes:
        namespaces: looked at; none: all. kafka: how the Kafka of a feed (``namespace/name``) is entered, where the
            MarketFeed alone doesn't say (files of mounted Secrets).
    """

    namespaces: list[str] = []
    kafka: dict[str, KafkaSettings] = {}
    kubeconfig: str = ""


class ConsoleSettings(msgspec.Struct, omit_defaults=True):
    """One process that serves API and console.

    Attributes:
        listen: ``host:port``, or ``unix:/path``. token_file: holds the bearer token; needed unless ``listen`` is this
            machine's loopback or a socket. read_only: refuse every change.
        listening: a descriptor, inherited, that listens there already; None: the process is to listen itself.
        allowed_origins: web origins that may call from elsewhere (CORS), such as ``https://desk.example.com``.
        allowed_hosts: names beside the loopback's by which a browser may reach a server without a token.
        trace_url: where a person sees a trace; ``{trace_id}`` is put in.
        signals_kept, candles_kept: newest in memory, over all feeds; a series.
        streams: streams that may be open at once. metrics_listen: where Prometheus reads; empty: nowhere.
    """

    listen: str = "127.0.0.1:8420"
    backend: Literal["local", "cluster"] = "local"
    local: LocalSettings | None = None
    cluster: ClusterSettings | None = None
    token_file: str = ""
    read_only: bool = False
    allowed_origins: list[str] = []
    allowed_hosts: list[str] = []
    trace_url: str = ""
    signals_kept: int = 20_000
    candles_kept: int = 1_500
    streams: int = 100
    metrics_listen: str = ""
    log_level: str = "info"
    listening: int | None = None
