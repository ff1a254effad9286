"""Watching a trader from outside: its memory, and whether it still moves."""

from __future__ import annotations

import os
from typing import Final

from chandlery.workers.supervisor.exits import Verdict, hang_verdict, memory_verdict

#: How often traders are looked at. A process that allocates 1 GB/s grows by 0.25 GB in between: the
#: container's limit must leave that much room above the sum of the traders' own.
PERIOD_S: Final = 0.25
#: Imports of a fresh process on a busy machine take seconds; without any heartbeat this is too long.
SILENT_START_MS: Final = 30_000
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


def rss_bytes(pid: int) -> int:
    """Resident size of a process, shared pages included; 0 when it is gone."""
    return _pages(pid)[0] * _PAGE_BYTES


def own_bytes(pid: int) -> int:
    """What of it is no file's and no segment's, which stay when the process ends; 0 when it is gone."""
    resident, shared = _pages(pid)
    return (resident - shared) * _PAGE_BYTES


def _pages(pid: int) -> tuple[int, int]:
    """Resident ones, and those of them that are of files, segments among them."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            _, resident, shared, *_ = file.read().split()
            return int(resident), int(shared)
    except (OSError, ValueError):
        return 0, 0


def hang(
    *, now_ns: int, started_ns: int, busy_since_ns: int, heartbeat_ns: int, hang_timeout_ms: int
) -> Verdict | None:
    """Whether a trader hangs.

    Args:
        started_ns: when its process was started; counters from before are its predecessor's.
        busy_since_ns: begin of the strategy call it is in, 0: in none. heartbeat_ns: its last sign of life.
    """
    timeout_ns = hang_timeout_ms * 1_000_000
    if busy_since_ns >= started_ns:
        return hang_verdict(hang_timeout_ms, "in a call") if now_ns - busy_since_ns > timeout_ns else None
    if heartbeat_ns >= started_ns:
        # It beats every half second; stopped or stuck outside a call it doesn't.
        return hang_verdict(hang_timeout_ms, "without a heartbeat") if now_ns - heartbeat_ns > timeout_ns else None
    silent_ms = max(hang_timeout_ms, SILENT_START_MS)
    return hang_verdict(silent_ms, "without a heartbeat") if now_ns - started_ns > silent_ms * 1_000_000 else None


def excess(pid: int, memory_bytes: int) -> tuple[int, Verdict | None]:
    """Resident size, and the verdict where it is above the Trader's limit."""
    resident = rss_bytes(pid)
    return resident, memory_verdict(memory_bytes) if resident > memory_bytes else None
