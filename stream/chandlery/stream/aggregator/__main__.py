"""``python -m chandlery.stream.aggregator --config FILE``."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys

from chandlery.core.services import run_service
from chandlery.core.settings import AggregatorSettings
from chandlery.stream.aggregator.service import Aggregator


async def _serve(settings: AggregatorSettings, stop: asyncio.Event) -> None:
    # It reports every retry as an error; what matters is raised, and logged by us.
    logging.getLogger("faust").setLevel(logging.ERROR)
    aggregator = Aggregator(settings)
    # What exists by now stays: collections needn't look at it again, and pause the stream less.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    await aggregator.run(stop)


def main() -> int:
    """Run the process; returns its exit code."""
    return run_service("chandlery.stream.aggregator", AggregatorSettings, _serve)


if __name__ == "__main__":
    sys.exit(main())
