"""A program that serves on this machine, for the length of a block."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.error import URLError
from urllib.request import urlopen

from tests.e2e.cluster.commands import ClusterError

# The programs are ready within 1 s; thirty times that, for a machine at full load.
_START_S: Final = 30.0
_STOP_S: Final = 10.0
_POLL_S: Final = 0.05
_LOG_BYTES: Final = 3000


@contextmanager
def local_service(command: Sequence[str], ready: str, log: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """Run it from when it is ready to the end of the block.

    Args:
        ready: a URL that answers with 200 from then on. log: what it writes.

    Raises:
        ClusterError: it ended, or wasn't ready in time.
    """
    with log.open("ab") as output, subprocess.Popen(command, stdout=output, stderr=output, env=environment) as process:
        try:
            _wait_until_ready(process, ready, log)
            yield
        finally:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        if process.poll() is not None:
            raise ClusterError(f"{log.stem} ended with {process.returncode}: {_end_of(log)}")
        try:
            with urlopen(url, timeout=1.0):  # another status than 200 is an error
                return
        except (URLError, TimeoutError) as error:
            if time.monotonic() > deadline:
                raise ClusterError(f"{log.stem}: not ready within {_START_S:.0f} s: {error}: {_end_of(log)}") from error
        time.sleep(_POLL_S)


def _end_of(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-_LOG_BYTES:]
