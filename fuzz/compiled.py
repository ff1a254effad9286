"""Building ``target.c`` with libFuzzer, ASan and UBSan, and running it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final, NamedTuple

from chandlery.workers.segment import layout
from fuzz import regressions

#: Longest input: the largest segment that target.c makes, its pokes, and room to grow.
_MOST_BYTES: Final = 32 * 1024
#: An input takes under a millisecond; one that takes this long has no end.
_TIMEOUT_S: Final = 10
#: The corpus of a run stays below 100 MB; beyond this an input decides on memory.
_MOST_MEMORY_MB: Final = 1024
_FLAGS: Final = (
    "-std=c11",
    "-O1",
    "-g",
    "-D_GNU_SOURCE",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unused-function",
    "-fsanitize=fuzzer,address,undefined",
    "-fno-sanitize-recover=all",
)
HEADERS: Final = Path(layout.__file__).parent
TARGET: Final = Path(__file__).with_name("target.c")


class Missing(Exception):
    """What the compiled side needs isn't installed."""


class Outcome(NamedTuple):
    """A run of the target: ``error`` is empty when it found nothing, else ``file`` shows it."""

    executed: int
    error: str
    file: Path | None
    output: str


def build(folder: Path, headers: Path = HEADERS) -> Path:
    """Compile the target against the protocol.h of a folder.

    Raises:
        Missing: there is no clang, or not its libFuzzer.
    """
    compiler = shutil.which("clang")
    if compiler is None:
        raise Missing("needs clang with libFuzzer (Debian: apt-get install clang libclang-rt-14-dev)")
    program = folder / "target"
    done = subprocess.run(
        [compiler, *_FLAGS, f"-I{headers}", str(TARGET), "-o", str(program)], capture_output=True, text=True
    )
    if "libclang_rt.fuzzer" in done.stderr:
        raise Missing("clang lacks libFuzzer (Debian: apt-get install libclang-rt-14-dev)")
    if done.returncode:
        raise RuntimeError(f"{TARGET.name} doesn't compile:\n{done.stderr}")
    return program


def start(program: Path, folder: Path, seconds: int, seed: int) -> subprocess.Popen[str]:
    """Let it fuzz for so long or until it finds something; ``folder`` takes its corpus and its find."""
    corpus = folder / "corpus"
    for file in regressions.written(corpus):
        if not file.name.startswith("segment-"):
            file.unlink()
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={_MOST_BYTES}",
        f"-timeout={_TIMEOUT_S}",
        f"-rss_limit_mb={_MOST_MEMORY_MB}",
        f"-seed={seed}",
        f"-artifact_prefix={folder}/",
        "-print_final_stats=1",
        "-verbosity=1",
    ]
    return subprocess.Popen(
        [str(program), *options, str(corpus)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )


def finish(process: subprocess.Popen[str], folder: Path) -> Outcome:
    """Wait for its end and read what it says."""
    _, output = process.communicate()
    counts = re.findall(r"stat::number_of_executed_units: (\d+)|^#(\d+)\s", output, re.M)
    executed = max((int(total or seen) for total, seen in counts), default=0)
    if process.returncode == 0:
        return Outcome(executed, "", None, output)
    files = re.findall(r"Test unit written to (\S+)", output)
    return Outcome(executed, error_in(output), Path(files[-1]) if files else None, output)


def error_in(output: str) -> str:
    """The line that says what was found."""
    for pattern in (
        r"^no end: .*|^a (?:window|series|forming) .*",
        r"ERROR: \S+Sanitizer: .*|runtime error: .*",
        r"ERROR: .*",
    ):
        found = re.search(pattern, output, re.M)
        if found:
            return found.group(0)[:200]
    return f"it ended with: {output[-200:]}"


def show(program: Path, file: Path, environment: dict[str, str] | None = None) -> Outcome:
    """Run one input."""
    done = subprocess.run(
        [str(program), f"-timeout={_TIMEOUT_S}", str(file)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=environment,
    )
    return Outcome(1, error_in(done.stderr) if done.returncode else "", file, done.stderr)
