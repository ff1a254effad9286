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
from chandlery.stream.ingest.app import Ingest


async def _run(settings: IngestSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    ingest = Ingest(settings)
    # Columns of integers make no cycles: collections would only cost pauses.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    await ingest.run(stop)


def main() -> int:
    """Run the process; returns its exit code."""
    die_with_parent()
    parser = argparse.ArgumentParser(prog="python -m chandlery.stream.ingest", description=__doc__)
    parser.add_argument("--config", required=True, metavar="FILE", help="settings, JSON (IngestSettings)")
    arguments = parser.parse_args()
    log = configure_logs("ingest")
    try:
        settings = read_settings(arguments.config, IngestSettings)
        log = configure_logs("ingest", settings.log_level)
        # It logs every try to reach a broker that is away, twenty a second; the sink says it once.
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
        asyncio.run(_run(settings))
    except ChandleryError as error:
        log.error(str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
