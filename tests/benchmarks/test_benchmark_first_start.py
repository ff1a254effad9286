"""What the first start of a clone is measured on: its HEAD, no cache of anybody, the panel. The start itself is a small stand-in."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from benchmarks import __main__ as every
from benchmarks import first_start
from benchmarks.harness import Row

MAKEFILE = """
up:
\t@mkdir -p .venv && touch .venv/.built
\t@cat words >&2
\t@printf '%s|' "$(ARGS)" "$$PIP_CACHE_DIR" "$$PYTHONPATH" "$$(ls "$$PIP_CACHE_DIR" 2>/dev/null)" > "$$REPORT"
\t@exit $(shell cat code)
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "Makefile").write_text(MAKEFILE)
    (folder / "words").write_text("packages\n│ chandlery is up │\nsummary\n")
    (folder / "code").write_text("0")
    git(folder, "init", "--quiet")
    commit(folder)
    return folder


def git(folder: Path, *words: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.invalid"]
    subprocess.run(["git", *identity, *words], cwd=folder, check=True)


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "a state")


def test_a_first_start_is_that_of_the_head_without_what_others_have_cached(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "words").write_text("not committed")
    monkeypatch.setenv("REPORT", str(tmp_path / "report"))
    monkeypatch.setenv("PYTHONPATH", "of somebody else")
    monkeypatch.setenv("PIP_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(first_start, "_ROOT", repository)
    panel, set_up = first_start.measure(quick=False)
    assert (panel.name, panel.unit, panel.goal) == ("first_start/panel", "s", 240.0)
    assert 0 < set_up.value <= panel.value
    arguments, cache, path, cached, _ = (tmp_path / "report").read_text().split("|")
    assert arguments == "--for 15s --json"
    assert cache != str(tmp_path)
    assert (path, cached) == ("", "")
    assert not Path(cache).parent.exists(), "the clone and its caches are gone"


def test_a_start_without_a_panel_gives_no_figure_and_says_why(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository / "words").write_text("pip: no address for the index\n")
    (repository / "code").write_text("3")
    commit(repository)
    monkeypatch.setenv("REPORT", str(tmp_path / "report"))
    monkeypatch.setattr(first_start, "_ROOT", repository)
    assert first_start.measure(quick=False) == []
    said = capsys.readouterr().err
    assert "before its panel" in said
    assert "pip: no address for the index" in said
    assert "needs the network" in said


def test_it_is_no_part_of_a_quick_run_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def run_one(_root: Path, _python: str, name: str, _quick: bool) -> list[Row]:
        ran.append(name)
        return [Row(name, 1.0, "s")]

    monkeypatch.setattr(every, "run_one", run_one)
    for words in (["--quick"], [], ["--quick", "first_start"]):
        monkeypatch.setattr("sys.argv", ["benchmarks", *words])
        every.main()
    assert ran.count("first_start") == 2
    assert "first_start" not in ran[: ran.index("window_cost")], "not in the first run, which is quick"
