"""What the feed and the supervisor do without, so that a worker stays small."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: numpy alone is 12 MB of a process's own.
HEAVY = ("numpy", "talib", "pydantic", "faust", "pandas")


@pytest.mark.parametrize("module", ["chandlery.workers.feed.__main__", "chandlery.workers.supervisor.__main__"])
def test_a_workers_own_processes_load_no_heavy_package(module: str) -> None:
    code = f"import sys, {module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"
