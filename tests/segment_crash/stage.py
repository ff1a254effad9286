"""``python -m tests.segment_crash.stage LIBRARY MODULE FOLDER …``: runs one matrix in a process with fault points.

The matrix's module has ``run(fault_points, folder, *arguments)``; what it returns goes to standard output as JSON.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.segment_crash.fault_points import FaultPoints

ROOT = Path(__file__).parents[2]
#: Hundreds of processes one after the other on a busy machine; a reader that is never woken ends here.
DEADLINE_S = 150.0


def command(library: Path, module: str, folder: Path, *arguments: str) -> list[str]:
    """How a stage is started; its working directory is ROOT."""
    return [sys.executable, "-m", "tests.segment_crash.stage", str(library), module, str(folder), *arguments]


def environment() -> dict[str, str]:
    """A stage finds the same packages as this process."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def play(library: Path, module: str, folder: Path, *arguments: str) -> Any:
    """Run a matrix and return what it found. None of its processes is left."""
    stage = subprocess.Popen(
        command(library, module, folder, *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(),
        process_group=0,
    )
    try:
        said, errors = stage.communicate(timeout=DEADLINE_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(stage.pid, signal.SIGKILL)
        stage.wait()
    assert stage.returncode == 0, errors
    return json.loads(said)


def main(library: str, module: str, folder: str, *arguments: str) -> None:
    """Run a matrix in this process."""
    fault_points = FaultPoints.load(library)
    matrix = importlib.import_module(f"tests.segment_crash.{module}")
    print(json.dumps(matrix.run(fault_points, Path(folder), *arguments)))


if __name__ == "__main__":
    main(*sys.argv[1:])
