"""Compiling the real protocol.h, or one with a planted mistake, into the programs of these tests."""

from __future__ import annotations

import ctypes
import shlex
import shutil
import subprocess
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from tests.support.needed import need

HERE = Path(__file__).parent
HEADERS = HERE.parents[1] / "workers/chandlery/workers/segment"
PROTOCOL = HEADERS / "protocol.h"
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wno-unused-function"]
COMPILE_LIMIT_S = 120  # two seconds as a rule


def compiler() -> str:
    """The C compiler that Python was built with."""
    return shlex.split(sysconfig.get_config_var("CC") or "cc")[0]


def compile_c(
    source: Path, output: Path, flags: Sequence[str], command: str | None = None, headers: Path = HEADERS
) -> Path:
    """Compile one source with every warning an error; returns the output."""
    command = command or need(compiler(), "gcc")
    arguments = [command, "-std=c11", "-D_GNU_SOURCE", *WARNINGS, *flags, f"-I{headers}", f"-I{HERE}"]
    done = subprocess.run(
        [*arguments, str(source), "-o", str(output)], capture_output=True, text=True, timeout=COMPILE_LIMIT_S
    )
    assert done.returncode == 0, done.stderr
    return output


def library(source: Path, output: Path, headers: Path = HEADERS) -> ctypes.CDLL:
    """A source as a library for this process."""
    return ctypes.CDLL(
        str(compile_c(source, output, ["-O1", "-shared", "-fPIC", "-fvisibility=hidden"], headers=headers))
    )


def changed_protocol(folder: Path, changes: Sequence[tuple[str, str]]) -> Path:
    """A folder with the headers, of which protocol.h is one in which each text, found once, is another."""
    text = PROTOCOL.read_text()
    for old, new in changes:
        assert text.count(old) == 1, f"protocol.h holds {text.count(old)} times: {old}"
        text = text.replace(old, new)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("layout.h", "access.h"):
        shutil.copy(HEADERS / name, folder)
    (folder / "protocol.h").write_text(text)
    return folder
