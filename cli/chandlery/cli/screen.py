"""Where output goes: tables and data to stdout, everything else to stderr; colours only on terminals."""

from __future__ import annotations

import sys

from rich.console import Console

#: Tables that don't go to a terminal are not wrapped at 80 columns: programs cut by lines.
_FILE_WIDTH = 400


def output() -> Console:
    """For what was asked for (rich leaves colours out off terminals and under NO_COLOR)."""
    return Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else _FILE_WIDTH)


def remarks() -> Console:
    """For everything else."""
    return Console(file=sys.stderr, highlight=False, width=None if sys.stderr.isatty() else _FILE_WIDTH)
