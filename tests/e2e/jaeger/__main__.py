"""``python3 -m tests.e2e.jaeger``: build Jaeger, if it isn't in the cache, and print its path."""

from __future__ import annotations

import sys

from tests.e2e.cluster.built import print_built
from tests.e2e.jaeger.building import build

if __name__ == "__main__":
    sys.exit(print_built(build))
