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


class _Process:
    """The run of this process, which may take changed settings in."""

    def __init__(self) -> None:
        self._ingest: Ingest | None = None

    async def serve(self, settings: IngestSettings, stop: asyncio.Event) -> None:
        # It logs every try to reach a broker that is away, twenty a second; the sink says it once.
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
        self._ingest = Ingest(in_session(settings))
        # Columns of integers make no cycles: collections would only cost pauses.
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        await self._ingest.run(stop)

    async def adopt(self, settings: IngestSettings) -> bool:
        return self._ingest is not None and await self._ingest.adopt(settings)


def main() -> int:
    """Run the process; returns its exit code."""
    process = _Process()
    return run_service("chandlery.stream.ingest", IngestSettings, process.serve, adopt=process.adopt)


if __name__ == "__main__":
    sys.exit(main())
