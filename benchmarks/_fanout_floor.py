"""The fan-out's floor: a C program, compiled on the fly, with the same candles, pace and reading."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks._fanout_stage import BEHIND_S, READY_S, Measured, Plan, Unmeasured
from benchmarks._fanout_work import CASES, Case

_SOURCE: Final = Path(__file__).with_name("_fanout_floor.c")


def compile_floor(folder: str) -> str:
    """The program's path.

    Raises:
        Unmeasured: there is no C compiler.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        raise Unmeasured("no C compiler; on Debian: apt-get install gcc libc6-dev")
    program = f"{folder}/fanout_floor"
    subprocess.run([compiler, "-std=c11", "-O2", "-Wall", "-Werror", "-o", program, str(_SOURCE)], check=True)
    return program


def _run(program: str, readers: int, case: Case, plan: Plan) -> Measured:
    warm, measured = plan.legs(case)
    subscribed = 1 if case == "one" else readers
    numbers = (readers, subscribed, warm.candles, measured.candles, measured.period_ns)
    took_s = (warm.candles + measured.candles) * measured.period_ns / 1e9
    done = subprocess.run(
        [program, *map(str, numbers)], check=True, stdout=subprocess.PIPE, timeout=took_s + READY_S + BEHIND_S
    )
    words = np.frombuffer(done.stdout, np.int64)
    if len(words) != 1 + 2 * subscribed * measured.candles:
        raise Unmeasured(f"the floor gave {len(words) - 1} of {2 * subscribed * measured.candles} samples")
    return Measured(words[1::2], words[2::2], int(words[0]), measured.candles)


def floor(readers: int, plan: Plan) -> dict[Case, Measured]:
    """Both cases; with one reader the first alone.

    Raises:
        Unmeasured: there is no C compiler.
    """
    with tempfile.TemporaryDirectory(prefix="chandlery-bench-") as folder:
        program = compile_floor(folder)
        return {case: _run(program, readers, case, plan) for case in (CASES if readers > 1 else CASES[:1])}
