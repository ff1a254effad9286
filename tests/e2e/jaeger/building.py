"""Jaeger, built from its Go module: a backend of traces that shares no line with Chandlery.

Kept in the cache by its version and what it is built from. Its pages are not in the module, and not needed: traces are
read through its query API.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.e2e.cluster.binaries import cache_root, check_go, compile_package

MODULE: Final = Path(__file__).resolve().parent / "go"
PROGRAM: Final = "jaeger"
#: The release that go.mod names by its other number, v1.76.0: the module counts on from version 1.
VERSION: Final = "v2.13.0"
_JAEGER: Final = "github.com/jaegertracing/jaeger"
_OLDEST_GO: Final = (1, 25)
_LINKER_FLAGS: Final = f"-s -w -X {_JAEGER}/internal/version.latestVersion={VERSION}"


def cache_folder() -> Path:
    """Where the program is kept."""
    digest = hashlib.sha256(_LINKER_FLAGS.encode())
    for file in ("go.mod", "go.sum"):
        digest.update((MODULE / file).read_bytes())
    return cache_root() / "jaeger" / f"{VERSION}-{digest.hexdigest()[:8]}"


def build(progress: Callable[[str], None] = print) -> Path:
    """Build the program unless it is in the cache, and return it. Several processes may call it at once.

    Raises:
        ClusterError: Go is missing or too old, a module can't be had, or the build failed.
    """
    program = cache_folder() / PROGRAM
    program.parent.mkdir(parents=True, exist_ok=True)
    with (program.parent / "build.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.access(program, os.X_OK):
            _build(program, progress)
    return program


def _build(program: Path, progress: Callable[[str], None]) -> None:
    check_go("Jaeger", _OLDEST_GO)
    progress(f"building Jaeger {VERSION} (four minutes on two cores)")
    begin = time.monotonic()
    draft = program.with_name(f".{PROGRAM}")
    try:
        compile_package(f"{_JAEGER}/cmd/jaeger", MODULE, draft, _LINKER_FLAGS)
        draft.replace(program)
    finally:
        draft.unlink(missing_ok=True)
    progress(f"built Jaeger in {time.monotonic() - begin:.0f} s")
