"""Flux's kustomize-controller, built from its Go module, and the definitions of the kinds that it watches.

Kept in the cache beside Kubernetes' programs, by what it is built from. The first build takes six minutes of processor
time: it shares nothing with Kubernetes' own, for it goes with another version of its libraries.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.e2e.cluster.binaries import cache_root, check_go, compile_package
from tests.e2e.cluster.commands import ClusterError, run

MODULE: Final = Path(__file__).resolve().parent / "go"
PROGRAM: Final = "kustomize-controller"
#: The folder of definitions, beside the program.
DEFINITIONS: Final = "definitions"
_CONTROLLER: Final = "github.com/fluxcd/kustomize-controller"
# Of source-controller nothing is built: it has the definitions of GitRepository and the like. go.mod doesn't name it
# (its libraries would be chosen among), so that its sum stands here.
_SOURCES: Final = ("github.com/fluxcd/source-controller@v1.9.6", "h1:nG534/bI6nVpyHra7ONAk6xDB3xPsVT+EOLHZHXPrrc=")
_OLDEST_GO: Final = (1, 26)
_LINKER_FLAGS: Final = "-s -w"


def cache_folder() -> Path:
    """Where program and definitions are kept."""
    digest = hashlib.sha256(f"{_SOURCES} {_LINKER_FLAGS}".encode())
    for file in ("go.mod", "go.sum"):
        digest.update((MODULE / file).read_bytes())
    return cache_root() / "flux" / digest.hexdigest()[:8]


def build(progress: Callable[[str], None] = print) -> Path:
    """Build what isn't in the cache yet, and return the folder. Several processes may call it at once.

    Raises:
        ClusterError: Go is missing or too old, a module can't be had, or the build failed.
    """
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "build.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.access(folder / PROGRAM, os.X_OK):
            _build(folder, progress)
    return folder


def _build(folder: Path, progress: Callable[[str], None]) -> None:
    check_go(f"Flux's {PROGRAM}", _OLDEST_GO)
    progress(f"building Flux's {PROGRAM}")
    begin = time.monotonic()
    _put_definitions(folder / DEFINITIONS)
    draft = folder / f".{PROGRAM}"
    try:
        compile_package(_CONTROLLER, MODULE, draft, _LINKER_FLAGS)
        draft.replace(folder / PROGRAM)  # last, so that what has a program has all
    finally:
        draft.unlink(missing_ok=True)
    progress(f"built {PROGRAM} in {time.monotonic() - begin:.0f} s")


def _put_definitions(target: Path) -> None:
    target.mkdir(exist_ok=True)
    name, wanted = _SOURCES
    sources = _downloaded(name, Path("/"))
    if sources["Sum"] != wanted:
        raise ClusterError(f"{name} has the sum {sources['Sum']}, not {wanted}")
    for module in (sources, _downloaded(_CONTROLLER, MODULE)):
        for file in Path(module["Dir"], "config", "crd", "bases").glob("*.yaml"):
            shutil.copyfile(file, target / file.name)


def _downloaded(module: str, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("go", "mod", "download", "-json", module, cwd=folder))
    return found
