"""``python -m chandlery.workers.supervisor --config FILE``."""

from __future__ import annotations

import argparse
import asyncio
import sys

from chandlery.core.errors import ChandleryError
from chandlery.core.logs import configure_logs
from chandlery.core.processes import die_with_parent
from chandlery.core.settings import SupervisorSettings, read_settings
from chandlery.workers.supervisor.supervise import Supervisor


def main(arguments: list[str] | None = None) -> int:
    """Keep the assigned traders running until SIGTERM or SIGINT."""
    die_with_parent()
    parser = argparse.ArgumentParser(prog="python -m chandlery.workers.supervisor", description=main.__doc__)
    parser.add_argument("--config", required=True, metavar="FILE", help="SupervisorSettings as JSON")
    options = parser.parse_args(arguments)
    try:
        settings = read_settings(options.config, SupervisorSettings)
        configure_logs("supervisor", settings.log_level)
        asyncio.run(Supervisor(settings).run())
    except ChandleryError as error:
        print(f"supervisor: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
