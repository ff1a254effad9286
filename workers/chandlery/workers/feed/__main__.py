"""``python -m chandlery.workers.feed --config FILE``: run one worker's feed until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import gc
import signal
import sys
from typing import Final

from chandlery.core.errors import ChandleryError
from chandlery.core.logs import configure_logs
from chandlery.core.processes import die_with_parent
from chandlery.core.settings import FeedSettings, read_settings
from chandlery.workers.feed.service import Feed

_GC_THRESHOLD: Final = 20_000


async def _serve(settings: FeedSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
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
    """Run the feed.

    Returns:
        0 after an orderly end, else the error's exit code.
    """
    die_with_parent()
    parser = argparse.ArgumentParser(prog="chandlery.workers.feed", description="one worker's gateway")
    parser.add_argument("--config", required=True, help="settings, JSON (core.settings.FeedSettings)")
    arguments = parser.parse_args()
    try:
        settings = read_settings(arguments.config, FeedSettings)
        configure_logs("feed", settings.log_level)
        asyncio.run(_serve(settings))
    except ChandleryError as error:
        print(f"feed: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
