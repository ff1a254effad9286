"""Run every benchmark and print one table: ``python -m benchmarks [--quick] [--json] [--compare REV] [NAME …]``."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.harness import Row, decode_rows, encode, say, table

ROOT = Path(__file__).resolve().parent.parent
#: What a benchmark may take with ``--quick``, its start included.
QUICK_S: Final = 45.0
#: What can't be had within that: it downloads some 300 MB. By its name it runs nonetheless.
NEVER_QUICK: Final = frozenset({"first_start"})


def names(root: Path) -> list[str]:
    """The benchmark modules of a checkout."""
    shared = {"__init__", "__main__", "harness"}
    return sorted(
        path.stem
        for path in (root / "benchmarks").glob("*.py")
        if path.stem not in shared and not path.stem.startswith("_") and "harness import" in path.read_text()
    )


def run_one(root: Path, python: str, name: str, quick: bool) -> list[Row]:
    """One benchmark's rows, the last one how long it took; a benchmark that fails is reported and gives none."""
    say(f"== {name}{' (quick)' if quick else ''}")
    command = [python, "-m", f"benchmarks.{name}", "--json", *(["--quick"] if quick else [])]
    begun_s = time.monotonic()
    done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, check=False)
    took_s = time.monotonic() - begun_s
    if done.returncode:
        say(f"== {name} FAILED with exit code {done.returncode}, after {took_s:.0f} s")
        return []
    try:
        rows = decode_rows(done.stdout)
    except msgspec.MsgspecError as error:
        say(f"== {name} FAILED: what it printed are no rows: {error}")
        return []
    late = f", above the {QUICK_S:.0f} s that a quick run may take" if quick and took_s > QUICK_S else ""
    say(f"== {name} took {took_s:.0f} s{late}")
    goal = QUICK_S if quick else None
    return [*rows, Row(f"{name}/run_time", took_s, "s", goal=goal, note="of the benchmark itself")]


def rows_of_revision(revision: str, wanted: list[str], quick: bool, root: Path = ROOT) -> dict[str, Row]:
    """The same benchmarks at an earlier revision, in a work tree and virtual environment of its own."""
    with tempfile.TemporaryDirectory(prefix="chandlery-bench-") as folder:
        tree = Path(folder) / "tree"
        subprocess.run(
            ["git", "worktree", "add", "--detach", str(tree), revision], cwd=root, check=True, stdout=sys.stderr
        )
        try:
            python = _set_up(tree)
            there = names(tree)
            for name in sorted(set(wanted) - set(there)):
                say(f"== {name} is not there at {revision}")
            rows = [row for name in wanted if name in there for row in run_one(tree, python, name, quick)]
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=root, check=True, stdout=sys.stderr)
    return {row.name: row for row in rows}


def _set_up(tree: Path) -> str:
    """Make a work tree's environment, with the peers where they can be had, as ``make bench`` does; its Python."""
    subprocess.run(["make", "setup"], cwd=tree, check=True, stdout=sys.stderr)
    if subprocess.run(["make", "bench-peers"], cwd=tree, check=False, stdout=sys.stderr).returncode:
        say("== the peers can't be installed there: what it measures has none")
    return str(tree / ".venv" / "bin" / "python")


def main() -> int:
    """Run what was asked for; 1 if any benchmark failed to run (a missed goal is a figure, not a failure)."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help="benchmarks to run (all)")
    parser.add_argument("--quick", action="store_true", help=f"each within {QUICK_S:.0f} s")
    parser.add_argument("--json", action="store_true", help="a JSON list of rows instead of the table")
    parser.add_argument("--compare", metavar="REV", help="run an earlier revision's too and set them side by side")
    arguments = parser.parse_args()
    wanted = arguments.names or [name for name in names(ROOT) if not (arguments.quick and name in NEVER_QUICK)]
    unknown = set(wanted) - set(names(ROOT))
    if unknown:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(names(ROOT))}")
    before = rows_of_revision(arguments.compare, wanted, arguments.quick) if arguments.compare else None
    rows: list[Row] = []
    failed = False
    for name in wanted:
        got = run_one(ROOT, sys.executable, name, arguments.quick)
        failed = failed or not got
        rows += got
    print(encode(rows).decode() if arguments.json else table(rows, before))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
