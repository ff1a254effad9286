"""``python -m chandlery.console --config FILE``: the process of the REST API and the console."""

from __future__ import annotations

import sys

from chandlery.console.serving import serve
from chandlery.console.settings import ConsoleSettings
from chandlery.core.services import run_service

if __name__ == "__main__":
    sys.exit(run_service("chandlery.console", ConsoleSettings, serve))
