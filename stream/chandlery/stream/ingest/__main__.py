"""``python -m chandlery.stream.ingest --config FILE``."""

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
from chandlery.core.settings import IngestSettings, read_settings
from chandlery.stream.following import begin_again, stop_when_changed
from chandlery.stream.ingest.app import Ingest
from chandlery.stream.ingest.positions import in_session


async def _run(settings: IngestSettings, follow: str) -> bool:
    """Run until stopped; returns whether to begin again, with the changed settings in ``follow``."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    ingest = Ingest(in_session(settings))
    # Columns of integers make no cycles: collections would only cost pauses.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    if not follow:
        await ingest.run(stop)
        return False
    following = asyncio.create_task(stop_when_changed(follow, settings, stop))
    try:
        await ingest.run(stop)
        return following.done()
    finally:
        following.cancel()


def main() -> int:
    """Run the process; returns its exit code."""
    die_with_parent()
    parser = argparse.ArgumentParser(prog="python -m chandlery.stream.ingest", description=__doc__)
    parser.add_argument("--config", required=True, metavar="FILE", help="settings, JSON (IngestSettings)")
    parser.add_argument("--follow", action="store_true", help="begin again whenever the settings file changes")
    arguments = parser.parse_args()
    log = configure_logs("ingest")
    try:
        settings = read_settings(arguments.config, IngestSettings)
        log = configure_logs("ingest", settings.log_level)
        # It logs every try to reach a broker that is away, twenty a second; the sink says it once.
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
        if asyncio.run(_run(settings, arguments.config if arguments.follow else "")):
            begin_again()
    except ChandleryError as error:
        log.error(str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
