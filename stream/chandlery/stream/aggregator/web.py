"""The aggregator's small HTTP server."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from aiohttp import web

from chandlery.core.errors import MachineError
from chandlery.core.settings import parse_listen
from chandlery.stream.aggregator.status import Status
from chandlery.stream.metrics_server import Families, metrics_handler


class StatusServer:
    """``GET /v1/status`` (:class:`Status` as JSON), ``GET /metrics``, ``GET /healthz`` (200 while the process serves)."""

    def __init__(self, listen: str, status: Callable[[], Status], families: Families) -> None:
        self._listen = listen
        self._status = status
        app = web.Application()
        app.router.add_get("/v1/status", self._get_status)
        app.router.add_get("/metrics", metrics_handler(families))
        app.router.add_get("/healthz", self._get_health)
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self) -> None:
        """Listen.

        Raises:
            InputError: the address is none.
            MachineError: it is taken, or may not be used.
        """
        where = parse_listen(self._listen)
        await self._runner.setup()
        site: web.BaseSite
        if isinstance(where, str):
            site = web.UnixSite(self._runner, where)
        else:
            site = web.TCPSite(self._runner, *where, reuse_address=True)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise MachineError(f"can't listen on {self._listen}: {error.strerror or error}") from error

    async def stop(self) -> None:
        """Close all connections."""
        await self._runner.cleanup()

    async def _get_status(self, _: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(self._status()), content_type="application/json")

    async def _get_health(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")
