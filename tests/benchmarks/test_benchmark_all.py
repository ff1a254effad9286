"""All benchmarks in one table, and beside an earlier revision's: run in a small repository with benchmarks of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks import __main__ as every
from benchmarks.harness import Row, decode_rows

ROOT = Path(__file__).resolve().parents[2]

#: Its environment is the interpreter that runs the tests, its peers a file.
MAKEFILE = """
setup:
\t@mkdir -p .venv/bin
\t@printf '#!/bin/sh\\nexec {python} "$$@"\\n' > .venv/bin/python
\t@chmod +x .venv/bin/python
\t@echo said by make
"""
PEERS = """
bench-peers: setup
\t@touch .venv/peers
"""
BENCHMARK = '''"""Measures nothing."""
import sys
from pathlib import Path
from benchmarks.harness import Row, run

PEERS = Path(__file__).parent.parent / ".venv" / "peers"

def measure(quick):
    return [Row("{name}/figure", float("{value}"), "ms", peer=7.0 if PEERS.exists() else None)]

if __name__ == "__main__":
    run(measure, __doc__)
'''


class Repository:
    """A repository whose commits have benchmarks that give the value asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "benchmarks").mkdir(parents=True)
        for name in ("__init__.py", "__main__.py", "harness.py"):
            shutil.copy(ROOT / "benchmarks" / name, root / "benchmarks" / name)
        (root / ".gitignore").write_text(".venv\n__pycache__\n")
        self.git("init", "--quiet")

    def git(self, *words: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.invalid"]
        done = subprocess.run(["git", *identity, *words], cwd=self.root, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def commit(self, *, peers: bool, **values: float) -> str:
        makefile = MAKEFILE.format(python=sys.executable) + (PEERS if peers else "")
        (self.root / "Makefile").write_text(makefile)
        for name, value in values.items():
            (self.root / "benchmarks" / f"{name}.py").write_text(BENCHMARK.format(name=name, value=value))
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "a state")
        return self.git("rev-parse", "HEAD")

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "benchmarks", *words], cwd=self.root, check=False, capture_output=True, text=True
        )


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "tiny")


def test_an_earlier_revision_is_set_up_with_its_peers_and_leaves_no_work_tree(repository: Repository) -> None:
    earlier = repository.commit(peers=True, one=3.0)
    repository.commit(peers=True, one=5.0, two=1.0)
    rows = every.rows_of_revision(earlier, ["one", "two"], quick=True, root=repository.root)
    assert set(rows) == {"one/figure", "one/run_time"}
    assert (rows["one/figure"].value, rows["one/figure"].peer) == (3.0, 7.0)
    assert len(repository.git("worktree", "list").splitlines()) == 1


def test_a_revision_from_before_the_peers_gives_its_figures_without_them(repository: Repository) -> None:
    earlier = repository.commit(peers=False, one=3.0)
    rows = every.rows_of_revision(earlier, ["one"], quick=True, root=repository.root)
    assert (rows["one/figure"].value, rows["one/figure"].peer) == (3.0, None)


def test_both_revisions_stand_side_by_side_and_what_make_says_is_not_in_the_table(repository: Repository) -> None:
    earlier = repository.commit(peers=True, one=3.0)
    repository.commit(peers=True, one=5.0, two=1.0)
    done = repository.run("--quick", "--compare", earlier)
    assert done.returncode == 0, done.stderr
    cells = [line.split() for line in done.stdout.splitlines()]
    assert cells[0][:3] == ["figure", "value", "before"]
    assert ["one/figure", "5", "3", "ms"] in [line[:4] for line in cells]
    assert ["two/figure", "1", "–", "ms"] in [line[:4] for line in cells]
    assert "said by make" not in done.stdout
    assert f"two is not there at {earlier}" in done.stderr


def test_the_time_that_each_benchmark_took_is_told_and_a_row(repository: Repository) -> None:
    repository.commit(peers=False, one=5.0)
    (repository.root / "benchmarks" / "bad.py").write_text("from benchmarks.harness import run\nraise SystemExit(9)\n")
    done = repository.run("--quick", "--json")
    assert done.returncode == 1
    rows = {row.name: row for row in decode_rows(done.stdout.encode())}
    assert list(rows) == ["one/figure", "one/run_time"]
    assert (rows["one/run_time"].unit, rows["one/run_time"].goal) == ("s", 45.0)
    assert rows["one/run_time"].value > 0
    assert "== one took " in done.stderr
    assert "== bad FAILED with exit code 9, after " in done.stderr
    whole = {row.name: row for row in decode_rows(repository.run("--json", "one").stdout.encode())}
    assert whole["one/run_time"].goal is None, "only a quick run has promised to be quick"


def test_an_unmeasured_figure_and_output_without_rows_cost_no_other_benchmark_its_place(
    repository: Repository,
) -> None:
    repository.commit(peers=False, none=float("nan"), one=5.0)
    (repository.root / "benchmarks" / "noise.py").write_text("# as if harness import\nprint('no rows')\n")
    done = repository.run("--quick")
    assert done.returncode == 1
    cells = [line.split()[:3] for line in done.stdout.splitlines()]
    assert ["none/figure", "–", "ms"] in cells
    assert ["one/figure", "5", "ms"] in cells
    assert "== noise FAILED: what it printed are no rows: " in done.stderr


def test_a_quick_run_that_takes_longer_than_it_may_is_marked(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    repository.commit(peers=False, one=5.0)
    monkeypatch.setattr(every, "QUICK_S", 0.001)
    rows = every.run_one(repository.root, sys.executable, "one", quick=True)
    assert isinstance(rows[-1], Row)
    assert rows[-1].holds is False
    assert "above the 0 s that a quick run may take" in capsys.readouterr().err
