"""``python -m chandlery.stream.aggregator --config FILE``."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import signal
import sys

from chandlery.core.errors import ChandleryError
from chandlery.core.logs import configure_logs
from chandlery.core.processes import die_with_parent
from chandlery.core.settings import AggregatorSettings, read_settings
from chandlery.stream.aggregator.service import Aggregator
from chandlery.stream.following import begin_again, stop_when_changed


async def _run(settings: AggregatorSettings, follow: str) -> bool:
    """Run until stopped; returns whether to begin again, with the changed settings in ``follow``."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    aggregator = Aggregator(settings)
    # What exists by now stays: collections needn't look at it again, and pause the stream less.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    if not follow:
        await aggregator.run(stop)
        return False
    following = asyncio.create_task(stop_when_changed(follow, settings, stop))
    try:
        await aggregator.run(stop)
        return following.done()
    finally:
        following.cancel()


def main() -> int:
    """Run the process; returns its exit code."""
    die_with_parent()
    parser = argparse.ArgumentParser(prog="python -m chandlery.stream.aggregator", description=__doc__)
    parser.add_argument("--config", required=True, metavar="FILE", help="settings, JSON (AggregatorSettings)")
    parser.add_argument("--follow", action="store_true", help="begin again whenever the settings file changes")
    arguments = parser.parse_args()
    log = configure_logs("aggregator")
    try:
        settings = read_settings(arguments.config, AggregatorSettings)
        log = configure_logs("aggregator", settings.log_level)
        # It reports every retry as an error; what matters is raised, and logged by us.
        logging.getLogger("faust").setLevel(logging.ERROR)
        if asyncio.run(_run(settings, arguments.config if arguments.follow else "")):
            begin_again()
    except ChandleryError as error:
        log.error(str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
