"""Prometheus' own linter (Debian's package prometheus), where it is installed; in CI it must be."""

from __future__ import annotations

import shutil
import subprocess

from tests.support.needed import in_ci, need


def promtool_finds_nothing(text: str) -> None:
    """``promtool check metrics`` has nothing to say about figures in the classic text format.

    Without promtool the test goes on, for it looks at more than that; in CI it fails.
    """
    if shutil.which("promtool") is None and not in_ci():
        return
    promtool = need("promtool", "prometheus")
    found = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=60, check=False
    )
    assert found.returncode == 0, found.stderr
