"""``GET /metrics`` of ingest and aggregator: beside their status, and on an address of its own where one is set."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.typedefs import Handler

from chandlery.core.errors import MachineError
from chandlery.core.settings import parse_listen

if TYPE_CHECKING:
    from prometheus_client import Metric

    from chandlery.core.telemetry.exposition import Exposition

Families = Callable[[], "Iterable[Metric]"]


def metrics_handler(families: Families) -> Handler:
    """Answers with the figures of now; Prometheus' client is imported when somebody asks."""
    made: list[Exposition] = []

    async def answer(request: web.Request) -> web.Response:
        if not made:
            from chandlery.core.telemetry.exposition import Exposition

            made.append(Exposition(families))
        body, content_type = await made[0].answer(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    return answer


class MetricsServer:
    """Serves the figures alone, where ``listen`` says; empty: nowhere."""

    def __init__(self, listen: str, families: Families) -> None:
        self._listen = listen
        app = web.Application()
        app.router.add_get("/metrics", metrics_handler(families))
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        #: ``host:port`` bound, port 0 resolved.
        self.bound = ""

    async def start(self) -> None:
        """Listen.

        Raises:
            InputError: the address is none.
            MachineError: it is taken, or may not be used.
        """
        if not self._listen:
            return
        where = parse_listen(self._listen)
        await self._runner.setup()
        try:
            if isinstance(where, str):
                await web.UnixSite(self._runner, where).start()
            else:
                await web.TCPSite(self._runner, *where, reuse_address=True).start()
                self.bound = f"{where[0]}:{self._runner.addresses[0][1]}"
        except OSError as error:
            await self._runner.cleanup()
            raise MachineError(f"can't listen on {self._listen} for metrics: {error.strerror or error}") from error

    async def stop(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()
