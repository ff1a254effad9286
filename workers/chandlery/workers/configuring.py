"""Answers lists of configurations, each in a process of its own.

For the process of ``catalogue`` alone: it imports strategies once, and forks for each list. So a strategy's code finds what a
Trader's process finds, which is forked in the same way, and nothing that it reads, keeps or breaks there reaches the next
list. What it starts ends with the answers, unless it has a process group of its own: then with the process that forks.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import BinaryIO, Final, NoReturn

import msgspec

from chandlery.core.configurations import Answer, Configuration
from chandlery.core.processes import PARENT_VARIABLE, die_with_parent
from chandlery.workers.collecting import configure
from chandlery.workers.discovery import Found

_decode: Final = msgspec.json.Decoder(list[Configuration]).decode

#: Says a value in a line, at once.
Say = Callable[[object], None]


def answer_lists(asked: BinaryIO, strategies: Mapping[str, Found], say: Say) -> None:
    """Answer lists of configurations until there is none any more.

    Of each the answers are said, and then ``null``, when the process that gave them has ended and nothing of its process group
    is left, all answered or not.

    Args:
        asked: a JSON list of configurations a line. strategies: by name.
    """
    # From here on "parent" means this process: those that answer end with it.
    os.environ[PARENT_VARIABLE] = str(os.getpid())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # what was imported may have had the kernel reap
    for line in asked:
        configurations = _decode(line)
        _flush()  # else both would write it
        pid = os.fork()
        if pid == 0:
            _answer(configurations, strategies, say)
        _end(pid)
        say(None)


def _answer(asked: list[Configuration], strategies: Mapping[str, Found], say: Say) -> NoReturn:
    code = 70
    try:
        os.setpgid(0, 0)
        die_with_parent(signal.SIGKILL)
        for index, configuration in enumerate(asked):
            found = strategies.get(configuration.strategy)
            say(Answer(index, configure(found, configuration) if found is not None else None))
        code = 0
    except BaseException:  # noqa: BLE001 -- a strategy may raise anything; nothing of it may go on here
        traceback.print_exc()
    finally:
        _flush()
        os._exit(code)


def _flush() -> None:
    for output in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # a strategy may have closed or replaced it
            output.flush()


def _end(pid: int) -> None:
    """Wait for the end of a process that answers, and end what it has left in its group."""
    with contextlib.suppress(ChildProcessError):  # what was imported may wait for every child
        # Not reaped before: its number can't be another's while the group is killed.
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it had none yet; a set-uid program is in it
            os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
