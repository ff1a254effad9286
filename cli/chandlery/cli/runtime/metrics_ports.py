"""Ports at which the processes of a local instance show their figures, and the file by which Prometheus finds them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from chandlery.cli.runtime.statedir import write_atomically

#: The file's name in the state folder.
TARGETS: Final = "prometheus-targets.json"


class MetricsPorts:
    """Hands out ports, one a process, upwards from the first; a process keeps its own.

    Args:
        first: port of the first process. targets: file in the form of Prometheus' ``file_sd_configs``.
    """

    def __init__(self, first: int, targets: Path) -> None:
        self._first = first
        self._targets = targets
        self._ports: dict[str, int] = {}

    def listen(self, process: str) -> str:
        """Where a process listens, such as ``127.0.0.1:9464``."""
        if process not in self._ports:
            self._ports[process] = self._first + len(self._ports)
            self._write()
        return f"127.0.0.1:{self._ports[process]}"

    def _write(self) -> None:
        groups = [
            {"targets": [f"127.0.0.1:{port}"], "labels": {"process": process}} for process, port in self._ports.items()
        ]
        self._targets.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self._targets, msgspec.json.encode(groups))
