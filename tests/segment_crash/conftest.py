"""The extension with fault points, built once a session, and a folder in shared memory."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.segment_crash.fault_points import NoCompiler, build


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The build; skips where there is no compiler, and fails there in CI."""
    try:
        return build(tmp_path_factory.mktemp("fault-points"))
    except NoCompiler as error:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """An empty folder in shared memory, where segments live; this machine's other folder where there is none."""
    memory = Path("/dev/shm")
    parent = Path(tempfile.mkdtemp(prefix="chandlery-crash-", dir=memory if os.access(memory, os.W_OK) else tmp_path))
    folder = parent / "here"
    folder.mkdir()
    yield folder
    shutil.rmtree(parent)
