"""The process that cleans up after a run that did not end in order: started and dismissed."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

from chandlery.cli.runtime import reaper
from chandlery.cli.runtime.statedir import RUN_VARIABLE


class Reaper:
    """Waits beside a run for its end; see :mod:`chandlery.cli.runtime.reaper`."""

    def __init__(self) -> None:
        self._running: tuple[subprocess.Popen[bytes], int] | None = None

    def start(self, run: str, shm: Path, run_file: Path) -> None:
        """Start it. It isn't one of the run's own processes."""
        read_end, write_end = os.pipe()
        environment = {name: value for name, value in os.environ.items() if name != RUN_VARIABLE}
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", reaper.__file__, run, str(shm), str(run_file)],
            stdin=read_end, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=environment, start_new_session=True,
        )  # fmt: skip
        os.close(read_end)
        self._running = (process, write_end)

    def dismiss(self) -> None:
        """The run has ended in order: there is nothing to clean up."""
        if self._running is not None:
            process, write_end = self._running
            with contextlib.suppress(BrokenPipeError):
                os.write(write_end, b"x")
            os.close(write_end)
            process.wait()
            self._running = None
