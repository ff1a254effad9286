"""What the processes of a worker take: CPU time and memory of each, read from the kernel."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from chandlery.cli.runtime.procfs import memory_of

_TICK_NS: Final = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def cpu_ns(pid: int) -> int | None:
    """CPU time of a process so far, all its threads, ns; None: it is gone.

    By the process's own clock, in ns: /proc counts in steps of 10 ms, and a trader takes less in a second.
    """
    try:
        # As clock_getcpuclockid(3) makes it; Python has no name for another process's clock.
        return time.clock_gettime_ns((~pid << 3) | 2)
    except OSError:
        return _cpu_by_ticks_ns(pid)


def _cpu_by_ticks_ns(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_NS


def children_of(pid: int) -> list[int]:
    """Processes that a process has started and that run still; empty where the kernel doesn't tell."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(word) for word in path.read_text(encoding="ascii").split()]
        except OSError:
            continue  # the thread, or all of it, is gone
    return found


@dataclass(frozen=True)
class Processes:
    """Of one worker. ``others``: supervisor and fork server. ``traders``: by name."""

    feed: int
    others: tuple[int, ...]
    traders: Mapping[str, int]

    def all(self) -> list[int]:
        """Every pid."""
        return [self.feed, *self.others, *self.traders.values()]


def busy_ns() -> int:
    """What all processors of this machine have worked so far, ns; time taken by its host counts too."""
    words = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0].split()[1:]
    user, nice, system, _, _, *interrupts = (int(word) for word in words[:8])
    return (user + nice + system + sum(interrupts)) * _TICK_NS


@dataclass(frozen=True)
class Look:
    """CPU time so far by pid, ns, at a time (monotonic, ns); ``busy_ns``: of the machine whole."""

    at_ns: int
    cpu_ns: Mapping[int, int] = field(default_factory=dict)
    busy_ns: int = 0

    @classmethod
    def at(cls, pids: Iterable[int]) -> Look:
        """Look now."""
        found = {pid: cpu_ns(pid) for pid in pids}
        taken = {pid: so_far for pid, so_far in found.items() if so_far is not None}
        return cls(time.monotonic_ns(), taken, busy_ns())

    def percent_since(self, before: Look, pid: int) -> float | None:
        """What a process has taken of one core since ``before``; None: it wasn't there all the time."""
        if pid not in self.cpu_ns or pid not in before.cpu_ns or self.at_ns <= before.at_ns:
            return None
        return (self.cpu_ns[pid] - before.cpu_ns[pid]) / (self.at_ns - before.at_ns) * 100


def elsewhere_percent(before: Look, after: Look) -> float:
    """What everybody else on this machine took meanwhile, % of one core."""
    ours_ns = sum(taken - before.cpu_ns[pid] for pid, taken in after.cpu_ns.items() if pid in before.cpu_ns)
    passed_ns = after.at_ns - before.at_ns
    return max(0.0, (after.busy_ns - before.busy_ns - ours_ns) / passed_ns * 100) if passed_ns > 0 else 0.0


def pss_bytes(processes: Processes) -> dict[int, int]:
    """Proportional share of memory of each process, by pid. The kernel walks whole address spaces for it."""
    found = {pid: memory_of(pid) for pid in processes.all()}
    return {pid: memory.pss for pid, memory in found.items() if memory is not None}
