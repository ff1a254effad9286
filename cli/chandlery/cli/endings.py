"""How every verb ends: errors become one line and an exit code; a closed pipe and Ctrl-C are no errors.

Exit codes: 0 done; 1 the run or check failed; 2 wrong input; 3 the machine lacks something; 4 something doesn't
answer (nothing runs); 70 a defect of ours; 130 interrupted.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Final, ParamSpec

import typer

from chandlery.core.errors import ChandleryError

FAILED: Final = 1
INTERRUPTED: Final = 130
Arguments = ParamSpec("Arguments")


def ends_well(verb: Callable[Arguments, int | None]) -> Callable[Arguments, None]:
    """Wrap a verb: what it returns (None: 0) or raises becomes the process's exit code."""

    @functools.wraps(verb)
    def guarded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        raise typer.Exit(_code(lambda: verb(*args, **kwargs)))

    return guarded


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
