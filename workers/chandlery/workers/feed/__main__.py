"""``python -m chandlery.workers.feed --config FILE``: run one worker's feed until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import gc
import sys
from typing import Final

from chandlery.core.services import run_service
from chandlery.core.settings import FeedSettings
from chandlery.workers.feed.service import Feed

_GC_THRESHOLD: Final = 20_000


async def _serve(settings: FeedSettings, stop: asyncio.Event) -> None:
    feed = Feed(settings)
    try:
        await feed.start()
        # What exists now lives as long as the process: the collector needn't look at it again.
        gc.collect()
        gc.freeze()
        # Records come by the thousand and go with their batch, without cycles: fewer looks for those.
        gc.set_threshold(_GC_THRESHOLD)
        await feed.run(stop)
    finally:
        await feed.stop()


def main() -> int:
    """Run the feed; returns its exit code."""
    return run_service("chandlery.workers.feed", FeedSettings, _serve)


if __name__ == "__main__":
    sys.exit(main())
