"""The processes of a run of ``chandlery up``, by what they are: memory and CPU of each."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from typing import Final, NamedTuple

import psutil

from chandlery.cli.runtime.procfs import Memory, memory_of

#: What stands in a process's command line, and what it is called here.
_KINDS: Final = (
    ("kafka.Kafka", "kafka"),
    ("chandlery.stream.ingest", "ingest"),
    ("chandlery.stream.aggregator", "aggregator"),
    ("chandlery.workers.feed", "feed"),
    ("chandlery.workers.supervisor", "supervisor"),
    ("chandlery.workers.catalogue", "strategies"),
    ("chandlery.console", "console"),
    ("chandlery.cli", "up"),
)
_NURSERY: Final = "chandlery.workers.trader.nursery"


class Measured(NamedTuple):
    """One process: memory in bytes, CPU seconds so far."""

    memory: Memory
    cpu_s: float


def census(pid: int) -> dict[str, list[Measured]]:
    """The run with process id ``pid`` and all below it, by kind.

    Kinds: ``up``, ``console``, ``kafka``, ``ingest``, ``aggregator``, ``feed``, ``supervisor``, ``nursery`` (the traders'
    fork server), ``trader``, ``strategies`` (of which parameters are asked). What is none of these is left out.
    """
    root = psutil.Process(pid)
    found: defaultdict[str, list[Measured]] = defaultdict(list)
    nurseries: set[int] = set()
    for process in [root, *root.children(recursive=True)]:
        try:
            words = " ".join(process.cmdline())
            times = process.cpu_times()
            parent = process.ppid()
        except psutil.NoSuchProcess:
            continue
        memory = memory_of(process.pid)
        kind = _kind(words)
        # Traders are forks of the nursery: the same command line, one level below.
        if kind == "nursery":
            kind = "trader" if parent in nurseries else "nursery"
            nurseries.add(process.pid)
        if kind and memory is not None:
            found[kind].append(Measured(memory, times.user + times.system))
    return dict(found)


def pids(pid: int, kind: str) -> list[int]:
    """Process ids of one kind, of the run with process id ``pid``; not of ``trader``, which are told by their parents."""
    found: list[int] = []
    for process in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if _kind(" ".join(process.cmdline())) == kind:
                found.append(process.pid)
    return found


def _kind(words: str) -> str:
    if _NURSERY in words:
        return "nursery"
    return next((name for part, name in _KINDS if part in words), "")
