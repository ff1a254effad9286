"""What ``chandlery up`` says is to be typed next can be typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from chandlery.cli.calling import command_of


def installed(folder: Path) -> Path:
    """A virtual environment with the program in it."""
    script = folder / ".venv" / "bin" / "chandlery"
    script.parent.mkdir(parents=True)
    script.touch()
    return script


@pytest.mark.parametrize(
    ("within", "typed"),
    [
        (".", ".venv/bin/chandlery"),
        ("examples", "../.venv/bin/chandlery"),
        (".venv/bin", "./chandlery"),
        ("a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p/q/r/s/t/u/v/w/x/y/z/a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p/q/r/s/t/u/v", None),
    ],
)
def test_off_the_path_it_is_the_program_s_own_path_from_here_where_that_is_shorter(
    tmp_path: Path, within: str, typed: str | None
) -> None:
    script, folder = installed(tmp_path), tmp_path / within
    assert command_of(str(script), "/usr/bin/python3", None, folder) == (typed or str(script))


def test_a_relative_call_is_understood_from_where_it_was_made(tmp_path: Path) -> None:
    installed(tmp_path)
    assert command_of(".venv/bin/chandlery", "/usr/bin/python3", None, tmp_path) == ".venv/bin/chandlery"


def test_on_the_path_it_is_its_name_but_not_where_that_is_another_program(tmp_path: Path) -> None:
    script, other = installed(tmp_path / "one"), installed(tmp_path / "two")
    link = tmp_path / "chandlery"
    link.symlink_to(script)
    assert command_of(str(script), "python3", str(script), tmp_path) == "chandlery"
    assert command_of(str(script), "python3", str(link), tmp_path) == "chandlery"
    assert command_of(str(script), "python3", str(other), tmp_path) == "one/.venv/bin/chandlery"


def test_called_as_a_module_it_is_the_program_beside_the_interpreter_or_else_the_module(tmp_path: Path) -> None:
    script, module = installed(tmp_path), "/lib/chandlery/cli/__main__.py"
    python = str(script.with_name("python"))
    assert command_of(module, python, None, tmp_path) == ".venv/bin/chandlery"
    script.unlink()
    assert command_of(module, python, None, tmp_path) == ".venv/bin/python -m chandlery.cli"


def test_a_path_with_spaces_is_quoted(tmp_path: Path) -> None:
    folder = tmp_path / "my traders"
    script = installed(folder)
    assert command_of(str(script), "python3", None, tmp_path) == "'my traders/.venv/bin/chandlery'"
