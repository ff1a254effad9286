"""Why a trader's process ended, in words for its status. Pure."""

from __future__ import annotations

import signal
from typing import Final, NamedTuple

from chandlery.workers.trader.messages import FailureReport

#: Longest message in a status.
MAX_MESSAGE_CHARS = 500
#: What ends a process by a signal that nobody here has sent.
_HINTS: Final[dict[int, str]] = {
    signal.SIGKILL: " (not by the supervisor: the kernel out of memory, or a person)",
    signal.SIGBUS: " (a file that it had mapped was truncated: its segment, which the feed makes anew, or its ring)",
}


class Ending(NamedTuple):
    """How a process ended. ``stalled``: another start would end the same way."""

    reason: str
    message: str
    stalled: bool = False


class Verdict(NamedTuple):
    """Why the supervisor killed a process: ``reason`` for the status, ``because`` for the sentence."""

    reason: str
    because: str


def memory_verdict(memory_bytes: int) -> Verdict:
    return Verdict("MemoryLimit", f"memory limit {_megabytes(memory_bytes)}")


def hang_verdict(hang_timeout_ms: int, where: str) -> Verdict:
    return Verdict("Hang", f"{where} for more than {hang_timeout_ms / 1000:g} s")


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):.4g} MB"


def signal_name(number: int) -> str:
    """``SIGKILL`` for 9; the number where it has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def explain(code: int, failure: FailureReport | None, verdict: Verdict | None) -> Ending:
    """Explain an end that nobody asked for.

    Args:
        code: exit code, negative for a signal, as in ``os.waitstatus_to_exitcode``.
        failure: what the process said before its end. verdict: why the supervisor killed it, if it did.
    """
    if verdict is not None:
        return Ending(verdict.reason, f"killed by {signal_name(-code)} ({verdict.because})")
    if failure is not None:
        return Ending(failure.reason, failure.message[:MAX_MESSAGE_CHARS], failure.stalled)
    if code < 0:
        return Ending("Killed", f"killed by {signal_name(-code)}{_HINTS.get(-code, '')}")
    return Ending("Exited", f"its process ended with exit code {code} and without a word")
