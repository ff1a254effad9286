"""Processes that end with their parent, and none left behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from functools import cache
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
#: Looks at a session that is ended: what was forked while the last one killed is found by the next.
_MOST_LOOKS: Final = 100
#: Set by a parent for its children: its pid, so that a child can see whether it is an orphan already.
PARENT_VARIABLE: Final = "CHANDLERY_PARENT_PID"


def die_with_parent(number: signal.Signals = signal.SIGTERM) -> None:
    """Ask the kernel for ``number`` when the parent ends (Linux ``PR_SET_PDEATHSIG``).

    Does nothing unless the parent asked for it by setting ``CHANDLERY_PARENT_PID``, so that a process started
    by hand keeps running. The parent's forking thread is what counts: fork from a thread that lasts.
    """
    expected = os.environ.get(PARENT_VARIABLE)
    if not expected:
        return
    _libc().prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    # The parent may have ended between fork and prctl: then no signal would ever come.
    if os.getppid() != int(expected):
        os.kill(os.getpid(), number)


def end_session(session: int) -> None:
    """Kill every process of a session: its leader and all that this has started, whatever process groups they have made.

    What has begun a session of its own isn't reached.

    Args:
        session: of a process that was started with a session of its own, and has not been reaped long ago: its number.
    """
    killed: set[int] = set()
    for _ in range(_MOST_LOOKS):
        members = _members_of(session)
        if not members - killed:
            return
        killed |= members
        for pid in members:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # a set-uid program may be another user's
                os.kill(pid, signal.SIGKILL)


def _members_of(session: int) -> set[int]:
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    except OSError:  # there is no descriptor left: at least its leader
        pids = [session]
    return {pid for pid in pids if _session_of(pid) == session}


def _session_of(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:  # it is gone, or hidden
        return 0


def run_as_batch() -> None:
    """Let what runs have its turn to the end when this process is woken (Linux ``SCHED_BATCH``, sched(7)).

    Its share of the processor stays what it was. Does nothing where somebody gave the process another policy than the
    kernel's default (real-time, idle), or where the kernel refuses.
    """
    # A sandbox may forbid the calls, or know no other policy; then it is woken as before, which costs time and nothing else.
    with contextlib.suppress(OSError):
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


@cache
def _libc() -> ctypes.CDLL:
    # Made once: a fork that made its own would take 0.2 MB for it.
    return ctypes.CDLL(None, use_errno=True)


def pss_bytes(pid: int | None = None) -> int:
    """Proportional set size of a process of ours: of a page that n processes share, an nth.

    The kernel walks all of the process's pages for it, about 1 ms for 100 MB.

    Args:
        pid: None: this process.

    Returns:
        0 where it is gone, or the kernel doesn't tell.
    """
    try:
        with open(f"/proc/{'self' if pid is None else pid}/smaps_rollup", encoding="ascii") as file:
            for line in file:
                if line.startswith("Pss:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        return 0
    return 0


def child_environment(**extra: str) -> dict[str, str]:
    """This process's environment for a child that shall end with it."""
    return {**os.environ, PARENT_VARIABLE: str(os.getpid()), **extra}


def main() -> None:
    """``python -m chandlery.core.processes COMMAND …``: run a foreign program so that it ends with its parent."""
    die_with_parent()
    if len(sys.argv) < 2:
        sys.exit("usage: python -m chandlery.core.processes COMMAND [ARG …]")
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
