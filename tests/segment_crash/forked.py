"""Children of a stage: forked from it, so that hundreds come and go within seconds, and what they say to it."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, NamedTuple

#: A stage's own deadline is longer: this one says who it was that said nothing.
PATIENCE_S: Final = 60.0
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None)
_FUTEX: Final = {"x86_64": "202", "aarch64": "98"}.get(platform.machine(), "")


class Child(NamedTuple):
    """A forked process and the line to it."""

    name: str
    pid: int
    line: Connection

    def hear(self) -> Any:
        """What it says next."""
        assert self.line.poll(PATIENCE_S), f"{self.name} said nothing for {PATIENCE_S:g} s"
        return self.line.recv()

    def ask(self, *question: object) -> Any:
        """Say something and hear the answer."""
        self.line.send(question)
        return self.hear()

    def ended_by(self) -> int:
        """Wait for its end: the signal that killed it, 0 where it ended by itself."""
        _, status = os.waitpid(self.pid, 0)
        self.line.close()
        if not os.WIFSIGNALED(status):
            assert os.waitstatus_to_exitcode(status) == 0, f"{self.name} failed, as it says above"
            return 0
        return os.WTERMSIG(status)

    def kill(self) -> None:
        """kill -9, and wait for its end."""
        os.kill(self.pid, signal.SIGKILL)
        self.ended_by()

    def is_asleep(self) -> bool:
        """Whether it sleeps at a bell: in FUTEX_WAIT on memory that processes share."""
        call = Path(f"/proc/{self.pid}/syscall").read_text(encoding="ascii").split()
        return len(call) > 2 and call[0] == _FUTEX and call[2] == "0x0"

    def falls_asleep(self) -> None:
        """Wait until it sleeps at a bell."""
        deadline = time.monotonic() + PATIENCE_S
        while not self.is_asleep():
            assert time.monotonic() < deadline, f"{self.name} doesn't sleep"
            os.sched_yield()


def fork(name: str, work: Callable[[Connection], None]) -> Child:
    """Run ``work`` in a child with its end of a line; it doesn't outlive the stage."""
    ours, theirs = Pipe()
    pid = os.fork()
    if pid:
        theirs.close()
        return Child(name, pid, ours)
    whole = False
    try:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        ours.close()
        work(theirs)
        whole = True
    finally:
        if not whole:
            traceback.print_exc()
            sys.stderr.flush()
        os._exit(0 if whole else 1)
