"""The process that starts a cluster's components and starts again what dies; as PID 1 of a node's namespaces."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Final

from tests.e2e.cluster import node
from tests.e2e.cluster.components import commands
from tests.e2e.cluster.plan import Plan

NETWORK_READY: Final = "network-ready"
_PR_SET_PDEATHSIG: Final = 1
# A component that can't start is tried once a second: often enough for a test, seldom enough for its log.
_RESTART_DISTANCE_S: Final = 1.0
_POLL_S: Final = 0.01


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def supervise(plan: Plan) -> None:
    """Run the components of a cluster for ever. Ends by SIGKILL, and with it all that it started."""
    if plan.has_node:
        # Ends with the namespaces' creator, who gives up first where the link can't be made.
        while not (plan.run / NETWORK_READY).exists():
            time.sleep(_POLL_S)
        node.enter(plan)
    running: dict[int, str] = {}
    started: dict[str, float] = {}
    lines = commands(plan)

    def start(name: str) -> None:
        with Path(plan.logs, f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                lines[name],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=plan.folder,
                preexec_fn=die_with_parent,
            )
        running[process.pid] = name
        started[name] = time.monotonic()

    for name in lines:
        start(name)
    while True:
        pid, status = os.wait()  # also what containers leave behind: as PID 1 this is their last parent
        if pid in running:
            name = running.pop(pid)
            print(f"{name} ended with {os.waitstatus_to_exitcode(status)}; starting it again", flush=True)
            time.sleep(max(0.0, started[name] + _RESTART_DISTANCE_S - time.monotonic()))
            start(name)
