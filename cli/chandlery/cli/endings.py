"""How every verb ends: errors become one line and an exit code; a closed pipe and Ctrl-C are no errors.

What the command line's library finds wrong becomes such a line too.

Exit codes: 0 done; 1 the run or check failed; 2 wrong input; 3 the machine lacks something; 4 something doesn't
answer (nothing runs); 70 a defect of ours; 130 interrupted.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Callable
from typing import Final, NoReturn, ParamSpec

import typer

from chandlery.core.errors import ChandleryError, InputError

FAILED: Final = 1
INTERRUPTED: Final = 130
#: Base of all that the library finds wrong with a command line; it is kept elsewhere from version to version.
_UNREADABLE: Final[type[Exception]] = typer.BadParameter.__mro__[1]
_BAD_VALUE: Final = re.compile(r"Invalid value for (.+?): (.+)")
#: The library's words, of more than one of its versions, and ours.
_WORDS: Final = [
    (re.compile(theirs), ours)
    for theirs, ours in (
        ("^Value error, ", ""),
        ("^(?:Input should be a valid integer.*|'.*' is not a valid integer(?: range)?)$", "must be a whole number"),
        ("^Input should be ", "must be "),
        ("greater than or equal to", "at least"),
        ("less than or equal to", "at most"),
    )
]
Arguments = ParamSpec("Arguments")


def ends_well(verb: Callable[Arguments, int | None]) -> Callable[Arguments, None]:
    """Wrap a verb: what it returns (None: 0) or raises becomes the process's exit code."""

    @functools.wraps(verb)
    def guarded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        raise typer.Exit(_code(lambda: verb(*args, **kwargs)))

    return guarded


def run(app: typer.Typer, program: str) -> NoReturn:
    """Run a command of that name and end the process with its exit code."""
    try:
        code = app(prog_name=program, standalone_mode=False)
    except typer.Abort:
        raise SystemExit(INTERRUPTED) from None
    except _UNREADABLE as error:
        if type(error).__name__ != "NoArgsIsHelpError":
            sys.stderr.write(f"chandlery: {unreadable(error)}\n")
        elif words := str(error):  # the help, which is what was wanted; empty: rich has printed it already
            sys.stdout.write(f"{words}\n")
        raise SystemExit(InputError.exit_code) from None
    raise SystemExit(code or 0)


def unreadable(error: Exception) -> str:
    """What is wrong with a command line, in one line and with what would be right."""
    said = " ".join(str(getattr(error, "format_message", error.__str__)()).split()).removesuffix(".")
    if found := _BAD_VALUE.fullmatch(said):
        what = found[2]
        for theirs, ours in _WORDS:
            what = theirs.sub(ours, what)
        where = found[1].replace("'", "")
        return f"{where} {what}"
    context = getattr(error, "ctx", None)
    more = f"; `{context.command_path} --help` tells of all" if context is not None else ""
    return f"{said[:1].lower()}{said[1:]}{more}"


def _code(call: Callable[[], int | None]) -> int:
    try:
        code = call() or 0
        sys.stdout.flush()
    except ChandleryError as error:
        for line in str(error).splitlines():
            sys.stderr.write(f"chandlery: {line}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has what it wanted. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code
