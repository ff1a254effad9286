"""The API and the console over a lively world in memory: ``python -m tests.console_api.demo --port 0``.

Prints its address. ``--token TEXT`` asks for one, ``--trace-url URL`` shows traces there.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import tempfile
from pathlib import Path

from tests.console_api.lively import World

from chandlery.console.api.app import create_app
from chandlery.console.serving import ApiServer
from chandlery.console.settings import ConsoleSettings
from chandlery.core.logs import configure_logs


async def serve(port: int, token: str, trace_url: str, read_only: bool) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "token")
        file.write_text(token)
        settings = ConsoleSettings(
            listen=f"127.0.0.1:{port}", token_file=str(file) if token else "", trace_url=trace_url, read_only=read_only
        )
        world = World()
        app = create_app(settings, world.backend, world.signals, world.market)
        server = ApiServer(app, settings.listen, app.state.services.streams)
        await server.start()
        print(server.address, flush=True)
        moving = asyncio.create_task(world.run())
        await stop.wait()
        moving.cancel()
        await server.stop()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8420)
    parser.add_argument("--token", default="")
    parser.add_argument("--trace-url", default="http://127.0.0.1:16686/trace/{trace_id}")
    parser.add_argument("--read-only", action="store_true")
    options = parser.parse_args()
    configure_logs("demo")
    asyncio.run(serve(options.port, options.token, options.trace_url, options.read_only))


if __name__ == "__main__":
    main()
