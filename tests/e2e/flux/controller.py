"""One kustomize-controller as a process of this machine, for the Kustomizations of one namespace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.flux.building import PROGRAM
from tests.e2e.kubectl import Namespace
from tests.e2e.local_service import local_service
from tests.support.free_ports import free_ports


@contextmanager
def kustomize_controller(binaries: Path, namespace: Namespace, folder: Path) -> Iterator[None]:
    """Run it from when it is ready to the end of the block.

    Args:
        binaries: where :func:`tests.e2e.flux.building.build` put it. folder: for its log and its temporary files.
    """
    port = free_ports(1)
    command = [
        str(binaries / PROGRAM),
        "--watch-all-namespaces=false",  # only what RUNTIME_NAMESPACE names
        "--metrics-addr=0",
        f"--health-addr=127.0.0.1:{port}",
        "--requeue-dependency=1s",
        "--no-remote-bases",
    ]
    environment = namespace.cluster.environment() | {"RUNTIME_NAMESPACE": namespace.name, "TMPDIR": str(folder)}
    with local_service(command, f"http://127.0.0.1:{port}/readyz", folder / f"{PROGRAM}.log", environment):
        yield
