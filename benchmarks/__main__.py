"""Run every benchmark and print one table: ``python -m benchmarks [--quick] [--json] [--compare REV] [NAME …]``."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import Row, decode_rows, encode, say, table

ROOT = Path(__file__).resolve().parent.parent


def names(root: Path) -> list[str]:
    """The benchmark modules of a checkout."""
    shared = {"__init__", "__main__", "harness"}
    return sorted(
        path.stem
        for path in (root / "benchmarks").glob("*.py")
        if path.stem not in shared and not path.stem.startswith("_") and "harness import" in path.read_text()
    )


def run_one(root: Path, python: str, name: str, quick: bool) -> list[Row]:
    """One benchmark's rows; a benchmark that fails is reported and gives none."""
    say(f"== {name}{' (quick)' if quick else ''}")
    command = [python, "-m", f"benchmarks.{name}", "--json", *(["--quick"] if quick else [])]
    done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        say(f"== {name} FAILED with exit code {done.returncode}")
        return []
    return decode_rows(done.stdout)


def rows_of_revision(revision: str, wanted: list[str], quick: bool) -> dict[str, Row]:
    """The same benchmarks at an earlier revision, in a work tree and virtual environment of its own."""
    with tempfile.TemporaryDirectory(prefix="chandlery-bench-") as folder:
        tree = Path(folder) / "tree"
        subprocess.run(["git", "worktree", "add", "--detach", str(tree), revision], cwd=ROOT, check=True)
        try:
            subprocess.run(["make", "setup"], cwd=tree, check=True, stdout=sys.stderr)
            python = str(tree / ".venv" / "bin" / "python")
            there = names(tree)
            rows = [row for name in wanted if name in there for row in run_one(tree, python, name, quick)]
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=True)
    return {row.name: row for row in rows}


def main() -> int:
    """Run what was asked for; 1 if any benchmark failed to run (a missed goal is a figure, not a failure)."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help="benchmarks to run (all)")
    parser.add_argument("--quick", action="store_true", help="each within 45 s")
    parser.add_argument("--json", action="store_true", help="a JSON list of rows instead of the table")
    parser.add_argument("--compare", metavar="REV", help="run an earlier revision's too and set them side by side")
    arguments = parser.parse_args()
    wanted = arguments.names or names(ROOT)
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
