"""One kustomize-controller as a process of this machine, for the Kustomizations of one namespace."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.error import URLError
from urllib.request import urlopen

from tests.e2e.cluster.commands import ClusterError
from tests.e2e.flux.building import PROGRAM
from tests.e2e.kubectl import Namespace

# It is ready within 1 s; thirty times that, for a machine at full load.
_START_S: Final = 30.0
_STOP_S: Final = 10.0
_POLL_S: Final = 0.05
_LOG_BYTES: Final = 3000


@contextmanager
def kustomize_controller(binaries: Path, namespace: Namespace, folder: Path) -> Iterator[None]:
    """Run it from when it is ready to the end of the block.

    Args:
        binaries: where :func:`tests.e2e.flux.building.build` put it. folder: for its log and its temporary files.
    """
    port = _free_port()
    log = folder / f"{PROGRAM}.log"
    command = [
        str(binaries / PROGRAM),
        "--watch-all-namespaces=false",  # only what RUNTIME_NAMESPACE names
        "--metrics-addr=0",
        f"--health-addr=127.0.0.1:{port}",
        "--requeue-dependency=1s",
        "--no-remote-bases",
    ]
    environment = namespace.cluster.environment() | {"RUNTIME_NAMESPACE": namespace.name, "TMPDIR": str(folder)}
    with log.open("ab") as output, subprocess.Popen(command, stdout=output, stderr=output, env=environment) as process:
        try:
            _wait_until_ready(process, f"http://127.0.0.1:{port}/readyz", log)
            yield
        finally:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        if process.poll() is not None:
            raise ClusterError(f"{PROGRAM} ended with {process.returncode}: {_end_of(log)}")
        try:
            with urlopen(url, timeout=1.0):  # another status than 200 is an error
                return
        except (URLError, TimeoutError) as error:
            if time.monotonic() > deadline:
                raise ClusterError(f"{PROGRAM}: not ready within {_START_S:.0f} s: {error}: {_end_of(log)}") from error
        time.sleep(_POLL_S)


def _end_of(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-_LOG_BYTES:]
