"""Running other programs, and the one error of this package."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

_SHOWN_LINES = 20


class ClusterError(Exception):
    """The cluster can't be built, started or used. The message says what was tried and what came of it."""


def run(
    *command: str | Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    timeout_s: float | None = None,
) -> str:
    """Run a program to its end and return what it printed.

    Raises:
        ClusterError: it is missing, failed, or took longer than ``timeout_s``; with the end of its output.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, cwd=cwd, env=env, input=stdin, timeout=timeout_s, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise ClusterError(f"{words[0]} is missing on this machine") from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"{' '.join(words)}: not done after {timeout_s:.0f} s") from error
    if done.returncode != 0:
        ending = "\n".join((done.stderr + done.stdout).splitlines()[-_SHOWN_LINES:])
        raise ClusterError(f"{' '.join(words)}: exit code {done.returncode}\n{ending}")
    return done.stdout
