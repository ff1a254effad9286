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
        self._labels: dict[str, dict[str, str]] = {}

    def listen(self, process: str, component: str, feed: tuple[str, str] | None = None) -> str:
        """Where a process listens, such as ``127.0.0.1:9464``.

        Args:
            component: what it is, as a pod's label ``app.kubernetes.io/component`` says it.
            feed: namespace and name of the MarketFeed that it serves; None: of all.
        """
        if process not in self._ports:
            self._ports[process] = self._first + len(self._ports)
            # As the chart's monitors have them from pods: rules and dashboards know processes by these.
            labels = {"app_kubernetes_io_part_of": "chandlery", "app_kubernetes_io_component": component}
            if feed is not None:
                labels |= {"namespace": feed[0], "chandlery_dev_feed": feed[1]}
            self._labels[process] = {"process": process, **labels}
            self._write()
        return f"127.0.0.1:{self._ports[process]}"

    def _write(self) -> None:
        groups = [
            {"targets": [f"127.0.0.1:{port}"], "labels": self._labels[process]} for process, port in self._ports.items()
        ]
        self._targets.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self._targets, msgspec.json.encode(groups))
