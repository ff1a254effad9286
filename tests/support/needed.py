"""What a test needs of the machine: without it tests are skipped, and in CI they fail, so that nobody takes them for passed."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def in_ci() -> bool:
    """Whether this is a run that must have everything: `.ci/run` installs it, and sets ``CI``."""
    return bool(os.environ.get("CI"))


def missing(sentence: str) -> NoReturn:
    """End the test for something that isn't here: skip it, or fail it in CI."""
    if in_ci():
        pytest.fail(f"{sentence}; in CI it must be there")
    pytest.skip(sentence)


def need(program: str, package: str) -> str:
    """Where a program is; :func:`missing` if it isn't installed."""
    found = shutil.which(program)
    if found is None:
        missing(f"needs {program} (Debian package {package})")
    return found
