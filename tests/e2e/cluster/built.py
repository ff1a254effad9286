"""The end of a command that builds a program: where it is, or why it can't be."""

from __future__ import annotations

import sys
from collections.abc import Callable

from tests.e2e.cluster.commands import ClusterError


def print_built(build: Callable[[Callable[[str], None]], object]) -> int:
    """Build, if it isn't in the cache, and print where it lies; 1 and one message if it can't be built."""
    try:
        print(build(lambda line: print(line, file=sys.stderr, flush=True)))
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
