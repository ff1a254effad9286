"""The protocol on aarch64: the same bytes and answers, barriers in the machine code, the extension's tests under qemu."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tests.segment_memory.compiling import HEADERS, HERE, compile_c
from tests.support.needed import missing, need

ROOT = HERE.parents[1]
RUN_LIMIT_S = 240  # the extension's tests take 9 s of a core
CROSS = "aarch64-linux-gnu-gcc"
#: What the loads, stores and fences that ask for order become, by function of arm_steps.c: at least so many.
BARRIERS = {
    "append": {"store fence": 2, "release": 2},  # its own, and clearing the forming row
    "revise": {"store fence": 1, "release": 1},
    "form": {"store fence": 1, "release": 1},
    "reset": {"store fence": 2, "release": 2},
    "insert": {"store fence": 2, "release": 4},
    "remove": {"store fence": 2, "release": 1},
    "ring": {"releasing addition": 1},
    "bell": {"acquire": 1},
    "snapshot": {"acquire": 1, "load fence": 1},
    "unchanged": {"load fence": 2},
    "copy_forming": {"acquire": 1, "load fence": 1},
    "copy_stamps": {"acquire": 1, "load fence": 3},
    "find_after": {"acquire": 1, "load fence": 3},
    "find": {"acquire": 3, "load fence": 1},
}
INSTRUCTIONS = {
    "store fence": r"\tdmb\s+ish$",
    "load fence": r"\tdmb\s+ishld$",
    "acquire": r"\tlda(?:p?r|xr)\s",
    "release": r"\tstlr\s",
    "releasing addition": r"ldadd\w*_rel\b|\tldaddl\s|\tstlxr\s",
}
#: Pure Python that pytest is made of: the tests' own, for the other machine's interpreter.
PYTEST_PARTS = ["pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments", "py.py"]


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """arm_steps.c for aarch64."""
    cross = need(CROSS, "gcc-aarch64-linux-gnu, libc6-dev-arm64-cross")
    output = tmp_path_factory.mktemp("arm64") / "arm_steps"
    return compile_c(HERE / "arm_steps.c", output, ["-O2", "-static"], cross)


def test_aarch64_writes_and_reads_the_same_bytes(steps: Path, tmp_path: Path) -> None:
    qemu = need("qemu-aarch64", "qemu-user")
    here = compile_c(HERE / "arm_steps.c", tmp_path / "arm_steps", ["-O2"])
    outputs = [
        subprocess.run(command, capture_output=True, text=True, timeout=RUN_LIMIT_S, check=True).stdout
        for command in ([str(here)], [qemu, str(steps)])
    ]
    assert outputs[0] == outputs[1]
    lines = outputs[0].splitlines()
    assert (
        "forming: revision 2 count 6 session 0 [180000 1000.000] [240000 1333.333] [300000 1666.667] valid 1"
        in (lines[10])
    )
    assert re.fullmatch("checksum [0-9a-f]{16}", lines[-1])


@pytest.mark.parametrize("function", BARRIERS)
def test_barriers_stand_in_the_machine_code(steps: Path, function: str) -> None:
    objdump = need("aarch64-linux-gnu-objdump", "binutils-aarch64-linux-gnu")
    command = [objdump, "-d", "--no-show-raw-insn", f"--disassemble=step_{function}", str(steps)]
    code = subprocess.run(command, capture_output=True, text=True, timeout=RUN_LIMIT_S, check=True).stdout
    found = Counter({name: len(re.findall(form, code, re.MULTILINE)) for name, form in INSTRUCTIONS.items()})
    assert found >= Counter(BARRIERS[function]), code


def test_reserved_is_stored_before_the_fence_and_the_count_after_the_row(steps: Path) -> None:
    objdump = need("aarch64-linux-gnu-objdump", "binutils-aarch64-linux-gnu")
    command = [objdump, "-d", "--no-show-raw-insn", "--disassemble=step_append", str(steps)]
    code = subprocess.run(command, capture_output=True, text=True, timeout=RUN_LIMIT_S, check=True).stdout
    kinds = re.findall(r"\t(dmb|stlr|str|stp)\s+([^\n]*)", code)
    shared = [kind for kind, operands in kinds if "[sp" not in operands]  # what goes on the stack is nobody else's
    assert shared[:2] == ["str", "dmb"]
    assert shared[-1] == "stlr" or "stlr" in shared[-3:]


def arm64_python() -> Path:
    """The folder that arm64_python.sh fills; skips where it hasn't, but not in CI."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "chandlery" / f"arm64-python-3.11-numpy-{np.__version__}"
    if sys.version_info[:2] != (3, 11):
        pytest.skip("needs Python 3.11 here, whose headers serve for Debian's on aarch64")
    if not folder.is_dir():
        missing(f"needs a Python for aarch64: {HERE / 'arm64_python.sh'} {folder} {np.__version__}")
    return folder


@pytest.mark.slow
def test_the_extension_holds_its_own_tests_on_aarch64(tmp_path: Path) -> None:
    cross = need(CROSS, "gcc-aarch64-linux-gnu, libc6-dev-arm64-cross")
    qemu = need("qemu-aarch64", "qemu-user")
    python = arm64_python()
    shutil.copytree(ROOT / "workers", tmp_path / "workers", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    (tmp_path / "tests").mkdir()
    shutil.copytree(HERE.with_name("segment"), tmp_path / "tests/segment")
    extension = tmp_path / "workers/chandlery/workers/segment/_native.cpython-311-aarch64-linux-gnu.so"
    flags = ["-std=c11", "-O2", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden"]
    sources = [str(source) for source in sorted(HEADERS.glob("*.c"))]
    include = f"-I{sysconfig.get_path('include')}"
    subprocess.run(
        [cross, *flags, "-shared", "-fPIC", include, *sources, "-o", str(extension)], check=True, timeout=RUN_LIMIT_S
    )
    site = tmp_path / "site"
    site.mkdir()
    for part in PYTEST_PARTS:
        (site / part).symlink_to(Path(pytest.__file__).parents[1] / part)
    paths = [python / "site", site, ROOT / "core", tmp_path / "workers", tmp_path]
    done = subprocess.run(
        [qemu, "-L", str(python / "root"), str(python / "root/usr/bin/python3.11"), "-m", "pytest", "-q",
         "--noconftest", "-c", os.devnull, f"--rootdir={tmp_path}", "-p", "no:cacheprovider",
         "tests/segment/test_segment_windows.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": ":".join(map(str, paths)), "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=RUN_LIMIT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d\d passed", done.stdout, re.MULTILINE), done.stdout
