"""Prometheus' own linter (Debian's package prometheus), where it is installed."""

from __future__ import annotations

import shutil
import subprocess


def promtool_finds_nothing(text: str) -> None:
    """``promtool check metrics`` has nothing to say about figures in the classic text format."""
    promtool = shutil.which("promtool")
    if promtool is None:
        return
    found = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=60, check=False
    )
    assert found.returncode == 0, found.stderr
