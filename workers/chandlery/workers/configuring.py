"""Answers lists of configurations, each in a process of its own.

For the process of ``catalogue`` alone: it imports strategies once, and forks for each list. So a strategy's code finds what a
Trader's process finds, which is forked in the same way, and nothing that it reads, keeps, starts or breaks there reaches the
next list.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
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

    Of each it is said: the number of the process that answers, which leads a process group of its own; the answers; and
    ``null`` once that process has ended and nothing of its group is left, all answered or not.

    Args:
        asked: a JSON list of configurations a line. strategies: by name.
    """
    # From here on "parent" means this process: those that answer end with it.
    os.environ[PARENT_VARIABLE] = str(os.getpid())
    for line in asked:
        configurations = _decode(line)
        # What stands there would be written by both.
        sys.stdout.flush()
        sys.stderr.flush()
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
        say(os.getpid())
        for index, configuration in enumerate(asked):
            found = strategies.get(configuration.strategy)
            say(Answer(index, configure(found, configuration) if found is not None else None))
        code = 0
    finally:
        with contextlib.suppress(Exception):  # what a strategy made of them
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _end(pid: int) -> None:
    """Wait for the end of a process that answers, and end what it has left in its group."""
    # Not reaped before: its number can't be another's while the group is killed.
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    with contextlib.suppress(
        ProcessLookupError, PermissionError
    ):  # it had not begun one; or a set-uid program is in it
        os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
