"""The first ``make up`` of a fresh clone with empty caches: from the command to the panel that says what runs.

The repository's HEAD is cloned into a temporary folder; pip's, uv's, Maven's and Chandlery's caches are empty ones there.
Works only with the network; without it, it says so and gives no row. ``python -m benchmarks --quick`` leaves it out.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.harness import Row, run, say

GOAL_S: Final = 240.0
#: Of the panel at the end of the start.
PANEL: Final = "chandlery is up"
_ROOT: Final = Path(__file__).resolve().parent.parent
_LAST_LINES: Final = 12


class FirstStart(NamedTuple):
    """Seconds from ``make up`` on: until its packages and its extension were there, until the panel."""

    set_up_s: float
    panel_s: float


class NotStartedError(Exception):
    """It ended before its panel; what it said last."""


def empty_caches(folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """An environment in which nothing was ever downloaded, and which is no other's virtual environment."""
    kept = {name: value for name, value in environment.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    caches = ("PIP_CACHE_DIR", "UV_CACHE_DIR", "XDG_CACHE_HOME", "CHANDLERY_CACHE", "M2_REPO")
    return {**kept, **{name: str(folder / name.lower()) for name in caches}}


def first_start(repository: Path) -> FirstStart:
    """Clone, make up, wait for the panel and for the run's end.

    Raises:
        NotStartedError: no panel came.
    """
    # A short name: Unix sockets lie in the state folder.
    folder = Path(tempfile.mkdtemp(prefix="cf-"))
    try:
        tree = folder / "t"
        subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(repository), str(tree)], check=True)
        return _up(tree, empty_caches(folder, os.environ))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _up(tree: Path, environment: Mapping[str, str]) -> FirstStart:
    begun_s = time.monotonic()
    set_up_s = panel_s = 0.0
    said: list[str] = []
    command = ["make", "up", "ARGS=--for 15s --json"]
    with subprocess.Popen(
        command, cwd=tree, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            now_s = time.monotonic() - begun_s
            if not set_up_s and (tree / ".venv" / ".built").exists():
                set_up_s = now_s
            if PANEL in line and not panel_s:
                panel_s = now_s
                say(f"the panel came after {panel_s:.0f} s; the run ends by itself")
            said = [*said[1 - _LAST_LINES :], line.rstrip()]
    if not panel_s:
        raise NotStartedError(f"make up ended with {process.returncode} before its panel:\n" + "\n".join(said))
    if process.returncode:
        say(f"the run ended with {process.returncode}")
    return FirstStart(set_up_s, panel_s)


def measure(quick: bool) -> list[Row]:
    """One start; there is no quicker one."""
    say("the first make up of a fresh clone, with empty caches: minutes" + (", quick or not" if quick else ""))
    try:
        start = first_start(_ROOT)
    except NotStartedError as error:
        say(f"{error}\nno figure: a first start needs the network (packages, Kafka's jars)")
        return []
    note = "one start, caches empty; the network's speed is in it"
    return [
        Row("first_start/panel", start.panel_s, "s", goal=GOAL_S, note=note),
        Row("first_start/set_up", start.set_up_s, "s", note="of it: virtual environment, packages, C extension"),
    ]


if __name__ == "__main__":
    run(measure, __doc__)
