"""Views keep their memory mapped, whatever is closed, collected, unlinked, superseded or forked in the meantime."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.segment.segment_lifetimes import CASES

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", CASES)
def test_no_view_is_read_after_its_memory_is_gone(name: str, tmp_path: Path) -> None:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [
            sys.executable,
            "-X",
            "faulthandler",
            "-m",
            "tests.segment.segment_lifetimes",
            name,
            str(tmp_path / "segment"),
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, f"{name} ended with {done.returncode}:\n{done.stderr}"
    assert done.stderr == ""
