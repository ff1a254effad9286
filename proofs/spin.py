"""One run of spin: generate the verifier, compile it, run it, read the verdict."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from proofs.catalogue import MODELS, STUCK, Check

#: Deeper than any search here goes; a search that is cut off proves nothing.
_DEPTH: Final = 200_000
#: The largest run needs 10 s on one core; a machine ten times as slow and a mutation that lets states explode end here.
_TIMEOUT_S: Final = 300
#: What a verifier may take: the largest needs 250 MB.
_MEMORY_MB: Final = 2_000

_VIOLATED: Final = re.compile(r"assertion violated .*?(\w+)\)* \(at depth")
_UNREACHED: Final = re.compile(r'^\t\S+\.pml:\d+, state \d+, "(?!-end-)(.*)"$', re.MULTILINE)


class ProofError(Exception):
    """Spin, or the compiler, could not do its work: nothing is proven by this run."""


@dataclass(frozen=True)
class Outcome:
    """What a run found.

    Attributes:
        violated: the property that fails, or empty.
        states: stored; depth: of the search, in steps; seconds: of CPU time, with generating and compiling.
        unreached: statements that were never reached.
    """

    violated: str
    states: int
    depth: int
    seconds: float
    unreached: tuple[str, ...]


def missing_tools() -> list[str]:
    """What of spin and a C compiler is not installed."""
    return [tool for tool in ("spin", "gcc") if shutil.which(tool) is None]


def run(check: Check, defines: tuple[str, ...] = ()) -> Outcome:
    """Explore a check's model whole, or until a property fails.

    Args:
        defines: what the model is told besides what the check says; a later value of a name replaces an earlier one.

    Raises:
        ProofError: no verdict.
    """
    begun_s = _cpu_s()
    with tempfile.TemporaryDirectory(prefix="chandlery-proof-") as folder:
        report = _explore(check, _merged(check.defines + defines), Path(folder))
    return read(check, report, _cpu_s() - begun_s)


def _cpu_s() -> float:
    """CPU seconds of all programs run so far: on a busy machine they tell more than the clock."""
    used = os.times()
    return used.children_user + used.children_system


def _merged(defines: tuple[str, ...]) -> list[str]:
    return [f"-D{define}" for define in {define.split("=")[0]: define for define in defines}.values()]


def _explore(check: Check, defines: list[str], folder: Path) -> str:
    if check.ltl:
        defines = [*defines, "-DLTL"]
        compiled, told = ["-DNFAIR=4"], ["-a", "-f"]
    else:
        compiled, told = ["-DSAFETY"], []
    generated = _call(["spin", *defines, "-a", str(MODELS / check.model)], folder)
    if "rror" in generated or not (folder / "pan.c").exists():
        raise ProofError(f"{check.model}: spin refuses it with {' '.join(defines)}:\n{generated}")
    # Every state is kept, in full: no hashing that could take one for another.
    options = ["-DNOREDUCE", "-DCOLLAPSE", "-DVECTORSZ=4096", f"-DMEMLIM={_MEMORY_MB}", *compiled]
    # Unoptimised: most runs end within a tenth of a second, compiling takes the most of a proof's time.
    _call(["gcc", "-O0", "-w", *options, "-o", "pan", "pan.c"], folder)
    return _call(["./pan", f"-m{_DEPTH}", "-w20", *told], folder)


def _call(command: list[str], folder: Path) -> str:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except FileNotFoundError as error:
        raise ProofError(f"{command[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise ProofError(f"{command[0]} took more than {_TIMEOUT_S} s") from error
    if command[0] == "gcc" and done.returncode:
        raise ProofError(f"the verifier doesn't compile:\n{done.stderr[-2_000:]}")
    return done.stdout + done.stderr


def read(check: Check, report: str, seconds: float) -> Outcome:
    """Take the verdict from a verifier's report.

    Raises:
        ProofError: it holds none, or the search was cut off.
    """
    errors = re.search(r"depth reached (\d+), errors: (\d+)", report)
    states = re.search(r"(\d+) states, stored", report)
    if errors is None or states is None:
        raise ProofError(f"{check.name}: no verdict:\n{report[-2_000:]}")
    violated = _violated(check, report) if int(errors[2]) else ""
    if not violated and ("max search depth too small" in report or "Search not completed" in report):
        raise ProofError(f"{check.name}: the search was cut off:\n{report[-2_000:]}")
    unreached = () if violated else tuple(_UNREACHED.findall(report.split("unreached in claim")[0]))
    return Outcome(violated, int(states[1]), int(errors[1]), seconds, unreached)


def _violated(check: Check, report: str) -> str:
    if found := _VIOLATED.search(report):
        return found[1]
    if "acceptance cycle" in report and check.ltl:
        return check.ltl
    if STUCK in report:
        return check.stuck or STUCK
    raise ProofError(f"{check.name}: an error of no known kind:\n{report[-2_000:]}")
