"""``python -m chandlery.stream.ingest --config FILE``."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys

from chandlery.core.services import run_service
from chandlery.core.settings import IngestSettings
from chandlery.stream.ingest.app import Ingest
from chandlery.stream.ingest.positions import in_session


async def _serve(settings: IngestSettings, stop: asyncio.Event) -> None:
    # It logs every try to reach a broker that is away, twenty a second; the sink says it once.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    ingest = Ingest(in_session(settings))
    # Columns of integers make no cycles: collections would only cost pauses.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    await ingest.run(stop)


def main() -> int:
    """Run the process; returns its exit code."""
    return run_service("chandlery.stream.ingest", IngestSettings, _serve)


if __name__ == "__main__":
    sys.exit(main())
