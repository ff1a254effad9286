"""Processes told apart by number and start time, so that another that got the number is never taken for one."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.e2e.cluster.commands import ClusterError

# SIGKILL of a whole node has taken up to 2 s with two hundred containers.
_END_DEADLINE_S: Final = 30.0
_POLL_S: Final = 0.02


@dataclass(frozen=True)
class Process:
    """A process as it was seen: its number, its group's number, and when it began (clock ticks since boot)."""

    pid: int
    group: int
    started: int


def look_up(pid: int) -> Process | None:
    """The process of that number, or None when there is none or only its corpse (a zombie)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else Process(pid, int(fields[2]), int(fields[19]))


def of_group(group: int) -> Iterator[Process]:
    """The living processes of a group."""
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (process := look_up(int(entry))) and process.group == group:
            yield process


def end_group(leader: Process) -> None:
    """Kill a group of processes, its leader first among them, and wait until all are gone."""
    members = set(of_group(leader.group))
    if look_up(leader.pid) == leader:
        os.killpg(leader.group, signal.SIGKILL)
    deadline = time.monotonic() + _END_DEADLINE_S
    while left := [member for member in members if look_up(member.pid) == member]:
        if time.monotonic() > deadline:
            raise ClusterError(f"processes {[member.pid for member in left]} outlived SIGKILL")
        time.sleep(_POLL_S)
    with contextlib.suppress(ChildProcessError):  # another process started it and takes it from the table
        os.waitpid(leader.pid, os.WNOHANG)
