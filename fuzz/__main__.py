"""``python -m fuzz``: fuzz for so many minutes, tell what was found and how to see it again."""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from fuzz import compiled
from fuzz.exercise import KINDS
from fuzz.planted import self_check
from fuzz.python_side import run

#: Where finds are kept: build/ is nobody's to commit.
KEPT: Final = Path("build/fuzz")
PROTOCOL: Final = "protocol"


class Side(NamedTuple):
    """What one fuzzer did: its name, inputs tried, a second, and its finds as (error, file)."""

    name: str
    executed: int
    seconds: float
    found: tuple[tuple[str, str], ...]


def main() -> int:
    """Run; 0: nothing found, 1: something, 3: the machine lacks what it needs."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Fuzz what reads segments, rings and messages.")
    parser.add_argument("--minutes", type=float, default=1.0, help="how long (1)")
    parser.add_argument("--seed", type=int, help="of the random numbers (another each time)")
    parser.add_argument("--json", action="store_true", help="one JSON object at the end, no progress")
    parser.add_argument("--self-check", action="store_true", help="plant faults instead, and find each of them")
    parser.add_argument("--file", type=Path, help="run one input alone, such as a find")
    given = parser.parse_args()
    seed = given.seed if given.seed is not None else time.time_ns() % (1 << 31)
    say: Callable[[str], None] = (lambda _: None) if given.json else (lambda line: print(line, flush=True))
    try:
        if given.file:
            return _show(given.file, say)
        if given.self_check:
            return _self_check(seed, given.json, say)
        return _fuzz(given.minutes, seed, given.json, say)
    except compiled.Missing as error:
        print(f"fuzz: {error}", file=sys.stderr)
        return 3


def _fuzz(minutes: float, seed: int, as_json: bool, say: Callable[[str], None]) -> int:
    seconds = max(4, round(minutes * 60))
    say(f"{seconds} s, seed {seed}")
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        running = [
            threads.submit(_protocol, seconds, seed, say),
            threads.submit(_python, seconds, seed, say),
        ]
        sides = [side for one in running for side in one.result()]
    lines, found = summed_up(sides)
    say("\n".join(lines))
    if as_json:
        print(json.dumps(_as_object(seed, sides)))
    return 1 if found else 0


def summed_up(sides: Sequence[Side]) -> tuple[list[str], int]:
    """What is printed at the end, and how much was found."""
    lines, found = [], 0
    for side in sides:
        for error, file in side.found:
            found += 1
            lines += ["", f"FOUND by {side.name}: {error}", f"  in   {file}", f"  show python -m fuzz --file {file}"]
    return [*lines, "", f"{found or 'nothing'} found in {sum(side.executed for side in sides):,} inputs"], found


def _as_object(seed: int, sides: list[Side]) -> dict[str, Any]:
    return {
        "seed": seed,
        "sides": [
            {
                "name": side.name,
                "executed": side.executed,
                "seconds": round(side.seconds, 1),
                "found": [{"error": error, "file": file} for error, file in side.found],
            }
            for side in sides
        ],
    }


def _protocol(seconds: int, seed: int, say: Callable[[str], None]) -> list[Side]:
    with tempfile.TemporaryDirectory(prefix="chandlery-fuzz-") as name:
        folder = Path(name)
        program = compiled.build(folder)
        outcome = compiled.finish(compiled.start(program, folder, seconds, seed), folder)
        found: tuple[tuple[str, str], ...] = ()
        if outcome.error:
            kept = _keep(outcome.file, f"{PROTOCOL}-")
            found = ((outcome.error, kept),)
            say(outcome.output[-4_000:])
    return [_told(Side("protocol.h, libFuzzer", outcome.executed, seconds, found), say)]


def _python(seconds: int, seed: int, say: Callable[[str], None]) -> list[Side]:
    sides = []
    for kind in KINDS:
        # Shared memory, as in service; and no disk has to follow.
        with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="chandlery-fuzz-") as name:
            share_s = seconds / len(KINDS)
            done = run(kind, Path(name), seconds=share_s, seed=seed)
            found = tuple((one.error, _keep(one.file)) for one in done.found)
        sides.append(_told(Side(f"{kind}, Python", done.executed, share_s, found), say))
    return sides


def _told(side: Side, say: Callable[[str], None]) -> Side:
    say(f"{side.name:24}{side.executed:>10,} inputs {side.executed / side.seconds:>8,.0f}/s  {len(side.found)} found")
    return side


def _keep(file: Path | None, prefix: str = "") -> str:
    if file is None or not file.exists():
        return ""
    KEPT.mkdir(parents=True, exist_ok=True)
    return str(shutil.copy(file, KEPT / (prefix + file.name)))


def _show(file: Path, say: Callable[[str], None]) -> int:
    kind = file.name.partition("-")[0]
    if kind == PROTOCOL:
        with tempfile.TemporaryDirectory(prefix="chandlery-fuzz-") as folder:
            outcome = compiled.show(compiled.build(Path(folder)), file)
        say(outcome.output)
        return 1 if outcome.error else 0
    if kind not in KINDS:
        print(f"fuzz: {file.name}: a name begins with {', '.join([PROTOCOL, *KINDS])} and '-'", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="chandlery-fuzz-") as folder:
        done = run(kind, Path(folder), seconds=1, seed=0, file=file)
    say("\n".join(one.error for one in done.found) or "nothing")
    return 1 if done.found else 0


def _self_check(seed: int, as_json: bool, say: Callable[[str], None]) -> int:
    missed = []
    told = []
    for fault, error, seconds in self_check(seed):
        say(f"{'found' if error else 'MISSED':8}{seconds:5.1f} s  {fault}: {error}")
        told.append({"fault": fault, "found": error, "seconds": round(seconds, 1)})
        missed += [] if error else [fault]
    if as_json:
        print(json.dumps({"seed": seed, "faults": told}))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
