"""``python3 -m tests.e2e.jaeger``: build Jaeger, if it isn't in the cache, and print its path."""

from __future__ import annotations

import sys

from tests.e2e.cluster.commands import ClusterError
from tests.e2e.jaeger.building import build


def main() -> int:
    """1 and one message if it can't be built."""
    try:
        print(build(lambda line: print(line, file=sys.stderr, flush=True)))
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
