"""An operator that runs on this machine, beside the cluster that it looks after."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.e2e.conftest import Images
from tests.e2e.kubectl import Namespace
from tests.support.operator_stage import ROOT, OperatorProcess


@asynccontextmanager
async def operator_beside(
    namespace: Namespace, images: Images, log: Path, *arguments: str
) -> AsyncIterator[OperatorProcess]:
    """It has the CustomResourceDefinitions, and looks after one namespace.

    Args:
        arguments: more than where, and which images.
    """
    for path in sorted((ROOT / "charts" / "chandlery" / "crds").glob("*.yaml")):
        namespace.cluster.apply(path, "--server-side", "--force-conflicts")
    whole = (
        "--namespace", namespace.name, "--own-namespace", namespace.name, "--image-pull-policy", "IfNotPresent",
        "--worker-image", images["workers"], "--stream-image", images["stream"], *arguments,
    )  # fmt: skip
    made = OperatorProcess(namespace.cluster.kubeconfig, log, 8080, whole)
    await made.start()
    try:
        yield made
    finally:
        made.kill()
