"""``python -m chandlery.operator``: look after MarketFeeds, TraderPools and Traders until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import sys

from chandlery.core.errors import ChandleryError
from chandlery.core.kube_credentials import find_credentials
from chandlery.core.logs import configure_logs
from chandlery.core.processes import die_with_parent
from chandlery.operator.app import Operator
from chandlery.operator.options import Options, read_options


async def _run(options: Options) -> None:
    await Operator(options, find_credentials(options.kubeconfig)).run()


def main(arguments: list[str] | None = None) -> int:
    """Run the operator; returns its exit code.

    The loop is asyncio's own: with uvloop, which ``kopf run`` takes wherever it is installed, the process died while
    the API server restarted (uvloop's issue 653).
    """
    die_with_parent()
    options = read_options(arguments)
    log = configure_logs("operator", options.log_level)
    try:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(_run(options))
    except ChandleryError as error:
        log.error(str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
