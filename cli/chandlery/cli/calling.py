"""What to type to call this program again."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Final

_NAME: Final = "chandlery"


def own_command() -> str:
    """``chandlery`` where the shell finds this same program by that name, else its path, in the shorter form."""
    return command_of(sys.argv[0], sys.executable, shutil.which(_NAME), Path.cwd())


def command_of(called: str, python: str, found: str | None, folder: Path) -> str:
    """What to type in a folder.

    Args:
        called: how this process was called (``sys.argv[0]``). python: its interpreter.
        found: the program of our name on the path; None: there is none.
    """
    # Called as a module, the program is the one that was installed beside the interpreter.
    script = folder / called if Path(called).name == _NAME else Path(python).parent / _NAME
    if not script.is_file():
        return f"{_typed(Path(python), folder)} -m chandlery.cli"
    if found is not None and os.path.realpath(found) == os.path.realpath(script):
        return _NAME
    return _typed(script, folder)


def _typed(path: Path, folder: Path) -> str:
    """A path as a shell takes it for a program: from this folder where that is shorter."""
    whole = str(path.absolute())
    near = os.path.relpath(whole, folder)
    # A bare name would be looked for on the path.
    near = near if os.sep in near else os.path.join(os.curdir, near)
    return shlex.quote(min(near, whole, key=len))
