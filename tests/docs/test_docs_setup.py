"""What the README's two commands need and doesn't find they name, with the command that brings it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Python as it is without what is missing: it says so when it is asked for that, and has nothing to install.
PYTHON = """#!/bin/sh
case "$*" in
  *"{missing}"*) exit 1;;
  *pip*) echo installed >> {installed};;
  *) exec {python} "$@";;
esac
"""


@pytest.mark.parametrize(
    ("missing", "compiler", "said"),
    [
        ("Python.h", "true", "Python's headers are missing. On Debian or Ubuntu: apt-get install python3-dev"),
        ("nothing", "no-such-cc", "A C compiler is missing. On Debian or Ubuntu: apt-get install gcc libc6-dev"),
        ("ensurepip", "true", "Python's venv module is missing. On Debian or Ubuntu: apt-get install python3-venv"),
        ("version_info", "true", "Chandlery needs Python 3.11 or newer"),
        ("nothing", "true", ""),
    ],
    ids=["headers", "compiler", "venv", "old Python", "nothing"],
)
def test_what_a_set_up_lacks_is_named_before_anything_is_built(
    tmp_path: Path, missing: str, compiler: str, said: str
) -> None:
    for name in ("Makefile", "pyproject.toml", "setup.py", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path / name)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON.format(missing=missing, python=sys.executable, installed=tmp_path / "installed"))
    python.chmod(0o755)
    done = subprocess.run(
        ["make", "setup", f"PYTHON={python}"],
        cwd=tmp_path,
        env={**os.environ, "CC": compiler, "CI": "true"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    built = (tmp_path / ".venv" / ".built").exists()
    if said:
        assert said in done.stderr
        assert done.returncode != 0
        assert "== building" not in done.stdout
        assert not built
    else:
        assert done.returncode == 0, done.stderr
        assert built
