"""``python3 -m tests.e2e.flux``: build Flux's kustomize-controller, if it isn't in the cache, and print its folder."""

from __future__ import annotations

import sys

from tests.e2e.cluster.built import print_built
from tests.e2e.flux.building import build

if __name__ == "__main__":
    sys.exit(print_built(build))
