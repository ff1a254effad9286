"""Running rounds in a process of their own, and telling how it ended."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

_ROOT: Final = Path(__file__).resolve().parent.parent


class Found(NamedTuple):
    """What was found, and the input that shows it."""

    error: str
    file: Path


class Run(NamedTuple):
    """How many inputs were tried, and what was found."""

    executed: int
    found: tuple[Found, ...]


def run(
    kind: str,
    folder: Path,
    *,
    seconds: float,
    seed: int,
    plant: str = "",
    round_s: float = 20.0,
    first: bool = False,
    file: Path | None = None,
) -> Run:
    """Run rounds; a process that dies is a find.

    Args:
        folder: takes the input at work and those found.
        plant: a fault of ``rounds.PLANTED``. first: end at the first find. file: that input alone.
    """
    command = [sys.executable, "-m", "fuzz.rounds", kind, str(folder)]
    command += ["--seconds", str(seconds), "--seed", str(seed), "--round-s", str(round_s)]
    command += ["--plant", plant] if plant else []
    command += ["--file", str(file)] if file else []
    path = os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])
    errors = folder / "stderr"
    with errors.open("w", encoding="utf-8") as stderr:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, text=True, env={**os.environ, "PYTHONPATH": path}
        )
        executed, found = _follow(process, first)
    if process.returncode not in (0, 1) or (process.returncode == 1 and not found):
        said = errors.read_text(encoding="utf-8", errors="replace")
        found.append(Found(_death(process.returncode, said), _kept(kind, folder)))
    return Run(executed, tuple(found))


def _follow(process: subprocess.Popen[str], first: bool) -> tuple[int, list[Found]]:
    executed = 0
    found: list[Found] = []
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            told = json.loads(line)
            executed = told.get("executed", executed)
            if "error" in told:
                found.append(Found(told["error"], Path(told["file"])))
                if first:
                    process.kill()
                    break
    process.wait()
    if first and found:
        process.returncode = 1
    return executed, found


def _death(returncode: int, said: str) -> str:
    if "Timeout (" in said:
        return "no end: " + " <- ".join(line.strip() for line in said.splitlines() if line.startswith("  File"))[:200]
    ended = f"signal {-returncode}" if returncode < 0 else f"exit code {returncode}"
    return f"the process ended by {ended}: {said.strip()[:300]}"


def _kept(kind: str, folder: Path) -> Path:
    """The input at which a process died, under a name of its own."""
    current = folder / "current"
    if not current.exists():
        return current
    packed = current.read_bytes()
    kept = folder / f"{kind}-{hashlib.sha256(packed).hexdigest()[:12]}"
    kept.write_bytes(packed)
    return kept
