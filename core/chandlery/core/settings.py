"""Settings of each process kind, as one JSON file a process (``--config FILE``); whole, no environment magic.

Addresses to listen on are ``unix:/path`` or ``host:port``. The one exception to "no environment" is where telemetry
goes: what :class:`TelemetrySettings` leaves open is had from OpenTelemetry's own variables (docs/telemetry.md).
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from chandlery.core.errors import InputError
from chandlery.core.transports import Transport
from chandlery.core.wording import shortened

Mechanism = Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


class KafkaSecurity(msgspec.Struct, omit_defaults=True, frozen=True):
    """How a client of Kafka proves the broker and itself. Holds paths, never what stands in the files.

    Attributes:
        tls: whether the connection is encrypted. trusted: PEM files of CAs; none: those of this machine.
        certificate, key: PEM files of the client's own certificate (mutual TLS).
        mechanism: of the login; empty: none. username; password: the file that holds the password.
        strimzi_user: folder with the keys of a Strimzi KafkaUser's Secret: either kind, whichever they are.
        properties: file of a Kafka client's properties that says all this instead.
        secrets: the folder that paths of Secrets begin with, as ``{secrets}/{secret}/{key}``.
        namespace: of those Secrets, for messages.
    """

    tls: bool = False
    trusted: tuple[str, ...] = ()
    certificate: str = ""
    key: str = ""
    mechanism: Mechanism = ""
    username: str = ""
    password: str = ""
    strimzi_user: str = ""
    properties: str = ""
    secrets: str = ""
    namespace: str = ""


class KafkaSettings(msgspec.Struct, omit_defaults=True):
    """Where Kafka is, how it is entered, and how its topics are named: ``{prefix}{feed}.trades`` and so on."""

    bootstrap: str
    feed: str
    prefix: str = "chandlery."
    partitions: int = 4
    replication: int = 1
    min_insync: int = 1
    retention_live_ms: int = 600_000
    retention_fast_ms: int = 86_400_000
    retention_closed_ms: int = 180 * 86_400_000
    retention_trades_ms: int = 3 * 86_400_000
    retention_signals_ms: int = 30 * 86_400_000
    security: KafkaSecurity = KafkaSecurity()


class HistoryFile(msgspec.Struct):
    """Closed candles for one series from a file (CSV, Parquet or Feather with date/open/high/low/close/volume)."""

    symbol: str
    interval: str
    path: str


class IngestSettings(msgspec.Struct, omit_defaults=True):
    """``python -m chandlery.stream.ingest``.

    Attributes:
        source: which connector: ``synthetic``, ``replay`` or ``binance``; ``options`` its own settings.
        symbols: unified symbols to ingest; intervals: every interval built (for history).
        session: 0 for a continuous exchange, else the run's id (ms); -1: that of ``position_file``, where it has
            none a new one (a pod that comes back goes on, one that lost its volume begins anew).
        history_candles: candles of generated history a series (synthetic).
        status_listen: where ``GET /v1/status`` answers.
        final_status: file to which the last status is written at exit.
        position_file: where the source's acknowledged position survives a restart within the session.
        metrics_listen: where ``GET /metrics`` answers alone, beside ``status_listen``; empty: nowhere.
    """

    kafka: KafkaSettings
    source: Literal["synthetic", "replay", "binance"]
    symbols: list[str]
    intervals: list[str]
    status_listen: str
    session: int = 0
    options: dict[str, Any] = {}
    history_candles: int = 0
    history_files: list[HistoryFile] = []
    heartbeat_ms: int = 250
    watermark_delay_ms: int = 0
    silence_timeout_ms: int = 10_000
    final_status: str = ""
    position_file: str = ""
    metrics_listen: str = ""
    log_level: str = "info"


class AggregatorSettings(msgspec.Struct, omit_defaults=True):
    """``python -m chandlery.stream.aggregator``: intervals to build, allowed lateness, checkpoint period.

    Attributes:
        metrics_listen: where ``GET /metrics`` answers alone, beside ``status_listen``; empty: nowhere.
    """

    kafka: KafkaSettings
    intervals: list[str]
    status_listen: str
    data_dir: str
    allowed_lateness_ms: int = 5_000
    max_fill_candles: int = 5_000
    checkpoint_ms: int = 500
    final_status: str = ""
    metrics_listen: str = ""
    log_level: str = "info"


class TelemetrySettings(msgspec.Struct, omit_defaults=True):
    """Where traces go; what is empty is had from ``OTEL_…`` variables, and without an endpoint there are none.

    Attributes:
        otlp_endpoint: ``http://host:port`` or ``https://host:port`` of an OTLP receiver.
        otlp_protocol: how it is spoken to.
        tick_share: 0 … 1, which part of ordinary ticks (candle records that come live) gets a trace of its own.
        resource: attributes of every span of feed and traders, such as ``k8s.pod.name``.
        ingest, aggregator: the same of the spans of these processes, which the feed sends in their place.
    """

    otlp_endpoint: str = ""
    otlp_protocol: Literal["", "http/protobuf", "grpc"] = ""
    tick_share: float = 0.0
    resource: dict[str, str] = {}
    ingest: dict[str, str] = {}
    aggregator: dict[str, str] = {}


class FeedSettings(msgspec.Struct, omit_defaults=True):
    """``python -m chandlery.workers.feed``, the pod's gateway.

    Attributes:
        worker: the worker's name. listen: the pod's API (``PUT /v1/assignment``, ``GET /v1/status``).
        token: required of API callers unless empty (then only ``unix:`` and loopback addresses are served).
        token_file: file that holds the token instead (a mounted Secret); read again when it changes.
        shm_dir: folder of the segment (the first volume). rings_dir: rings and sockets (the second volume).
        assignment_file: the mounted assignment, read at start and when it changes; may be absent.
        segment_rows: closed candles a series keeps; segment_series: most series; segment_first_series: what the segment
            has room for before it grows. series_grace_ms: how long a series stays that no Trader reads any more.
        transport, transport_for_all: how candles reach Traders that don't say it themselves; or all of them, whatever
            they say.
        telemetry: where the traces of signals go. metrics_listen: where ``GET /metrics`` answers, without a token;
            empty: nowhere. metrics_traders: most Traders with a label of their own, the others share ``_other``.
    """

    worker: str
    kafka: KafkaSettings
    listen: str
    shm_dir: str
    rings_dir: str
    token: str = ""
    token_file: str = ""
    assignment_file: str = ""
    segment_rows: int = 1_000
    segment_series: int = 512
    segment_first_series: int = 64
    series_grace_ms: int = 60_000
    transport: Transport = "SharedMemory"
    transport_for_all: bool = False
    live: bool = True
    telemetry: TelemetrySettings = msgspec.field(default_factory=TelemetrySettings)
    metrics_listen: str = ""
    metrics_traders: int = 100
    final_status: str = ""
    log_level: str = "info"


class SupervisorSettings(msgspec.Struct, omit_defaults=True):
    """``python -m chandlery.workers.supervisor``: no credential, no token, no Kafka.

    ``transport`` and ``transport_for_all`` as in :class:`FeedSettings`, and of the same value there.
    """

    worker: str
    shm_dir: str
    rings_dir: str
    strategies_dir: str = ""
    transport: Transport = "SharedMemory"
    transport_for_all: bool = False
    hang_timeout_ms: int = 10_000
    log_level: str = "info"


SettingsT = TypeVar("SettingsT", bound=msgspec.Struct)


def read_settings(path: str, kind: type[SettingsT]) -> SettingsT:
    """Read a settings file.

    Raises:
        InputError: unreadable, or not of this form; names the file and the field.
    """
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=kind)
    except OSError as error:
        raise InputError(f"{path}: can't read the settings: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}") from error


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens on ``host``, a name or an address (brackets allowed)."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def parse_listen(text: str) -> tuple[str, int] | str:
    """Split an address to listen on: ``unix:/path`` gives the path, ``host:port`` gives (host, port).

    Raises:
        InputError: neither.
    """
    if text.startswith("unix:"):
        return text.removeprefix("unix:")
    host, colon, port = text.rpartition(":")
    # Five digits at most: int() refuses thousands of them in words of its own.
    if not colon or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise InputError(f"{shortened(text)} is no address: write host:port or unix:/path")
    return host, int(port)
