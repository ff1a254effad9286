"""Who tells the spans, in the semantic conventions' words.

The feed sends all of them. What it knows of itself, of its traders and of the host they share it says; of ingest and
aggregator, which may run elsewhere, what the settings say.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from chandlery.core.clocks import boot_id
from chandlery.core.settings import FeedSettings
from chandlery.core.telemetry import Service, TraceExport

#: Where OpenTelemetry's own detectors look for ``host.id`` on Linux. A container seldom has either.
MACHINE_ID_FILES: Final = ("/etc/machine-id", "/var/lib/dbus/machine-id")

About = dict[str, str | int]


def our_version() -> str:
    """Version of the installed package; empty where it isn't one."""
    # Here, since it takes 1.2 MB with what it needs, which a feed that exports nothing can do without.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("chandlery")
    except PackageNotFoundError:
        return ""


def resources(settings: FeedSettings, export: TraceExport) -> dict[Service, Mapping[str, str | int]]:
    """Attributes by service; a trader's ``service.instance.id`` is its name, added with its spans."""
    common: About = {
        "service.namespace": "chandlery",
        "service.version": our_version(),
        "chandlery.feed": settings.kafka.feed,
    }
    ours: About = {**common, "chandlery.worker": settings.worker, **_host()}
    return {
        "ingest": {
            **common,
            **settings.telemetry.ingest,
            "service.instance.id": settings.kafka.feed,
            "service.name": "chandlery-ingest",
        },
        "aggregator": {
            **common,
            **settings.telemetry.aggregator,
            "service.instance.id": settings.kafka.feed,
            "service.name": "chandlery-aggregator",
        },
        "feed": {
            **ours,
            **_process(),
            **export.resource,
            "service.instance.id": settings.worker,
            "service.name": "chandlery-feed",
        },
        "trader": {**ours, **_runtime(), **export.resource, "service.name": "chandlery-trader"},
    }


def _host() -> About:
    """The host, and which of its boots: stamps of one boot share a clock. Its name isn't told: a pod has its own."""
    machine = _machine_id()
    known: About = {"chandlery.host.boot_id": boot_id().hex()}
    return {**known, "host.id": machine} if machine else known


def _machine_id() -> str:
    for path in MACHINE_ID_FILES:
        try:
            text = Path(path).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            continue
        if text:
            return text
    return ""


def _process() -> About:
    """This process. Its arguments aren't told: nobody has promised that they hold no secret."""
    return {
        "process.pid": os.getpid(),
        "process.parent_pid": os.getppid(),
        "process.executable.name": Path(sys.executable).name,
        "process.executable.path": sys.executable,
        **_runtime(),
    }


def _runtime() -> About:
    """The interpreter: the pod's one image has the feed's and the traders'."""
    return {
        "process.runtime.name": sys.implementation.name,
        "process.runtime.version": ".".join(map(str, sys.version_info[:3])),
        "process.runtime.description": sys.version,
    }
