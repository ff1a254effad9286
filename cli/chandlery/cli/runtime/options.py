"""What ``chandlery up`` was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from chandlery.cli.runtime.console_process import ConsoleOptions
from chandlery.cli.runtime.metrics_ports import MetricsPorts
from chandlery.core.transports import Transport


@dataclass(frozen=True)
class UpOptions:
    """Options of a run.

    Attributes:
        manifests: folders and files, as given. state: the state folder. strategies: folder of strategy files.
        kafka: ``host:port`` of a Kafka to use instead of the embedded one. port: the embedded one's port.
        kafka_config: a Kafka client's properties, of how that one is entered.
        secrets: folder with the Secrets that MarketFeeds name, as ``{secret}/{key}``.
        transport: overrides the pools' and the Traders'. speed: overrides replays' (a number, or ``max``).
        metrics: hands out ports for the processes' figures. run_for_s: end after this many seconds from ready on.
        until_end: end when every replay has ended. console: where REST API and console are; None: nowhere.
    """

    manifests: tuple[str, ...]
    state: Path
    strategies: Path | None = None
    kafka: str | None = None
    kafka_config: Path | None = None
    secrets: Path | None = None
    port: int | None = None
    transport: Transport | None = None
    speed: float | Literal["max"] | None = None
    run_for_s: float | None = None
    until_end: bool = False
    metrics: MetricsPorts | None = None
    console: ConsoleOptions | None = None
    log_level: str = "info"
