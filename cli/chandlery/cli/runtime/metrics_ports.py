"""Ports at which the processes of a local instance show their figures, and the file by which Prometheus finds them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

import msgspec

from chandlery.cli.runtime.statedir import write_atomically

log = logging.getLogger("chandlery.up")

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

    def listen(self, process: str, component: str, feed: tuple[str, str] | None = None, pool: str = "") -> str:
        """Where a process listens, such as ``127.0.0.1:9464``.

        Args:
            component: what it is, as a pod's label ``app.kubernetes.io/component`` says it.
            feed: namespace and name of the MarketFeed that it serves; None: of all. pool: name of its TraderPool, if it is
                a worker's.
        """
        self._ports.setdefault(process, self._first + len(self._ports))
        if process not in self._labels:
            # As the chart's monitors have them from pods: rules and dashboards know processes by these.
            labels = {"app_kubernetes_io_part_of": "chandlery", "app_kubernetes_io_component": component}
            if feed is not None:
                labels |= {"namespace": feed[0], "chandlery_dev_feed": feed[1]}
            if pool:
                labels["chandlery_dev_pool"] = pool
            self._labels[process] = {"process": process, **labels}
            self._write()
        return f"127.0.0.1:{self._ports[process]}"

    def forget(self, *processes: str) -> None:
        """Processes have ended for good: nobody is to ask them, or takes them for away. Their ports stay theirs."""
        gone = [process for process in processes if self._labels.pop(process, None) is not None]
        if not gone:
            return
        try:
            self._write()
        except OSError as error:
            log.warning("can't take ended processes from the targets", extra={"file": self._targets, "why": str(error)})

    def _write(self) -> None:
        groups = [
            {"targets": [f"127.0.0.1:{self._ports[process]}"], "labels": labels}
            for process, labels in self._labels.items()
        ]
        self._targets.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self._targets, msgspec.json.encode(groups))
