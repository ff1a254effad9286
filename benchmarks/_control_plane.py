"""A cluster for benchmarks of the operator: a control plane alone, whose nodes and pods are kwok's."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness import say


@contextmanager
def control_plane(prefix: str) -> Iterator[Path]:
    """The kubeconfig of ``KUBECONFIG``'s cluster, else of one of this benchmark's own.

    Args:
        prefix: of its folder's name.
    """
    if os.environ.get("KUBECONFIG"):
        yield Path(os.environ["KUBECONFIG"])
        return
    from tests.e2e.cluster.lifecycle import Wanted, down, up

    folder = Path(tempfile.mkdtemp(prefix=prefix))
    plan = up(folder, Wanted("control-plane", fake_nodes=1, tied=True), say)
    try:
        yield plan.kubeconfig
    finally:
        down(folder)
        shutil.rmtree(folder, ignore_errors=True)
