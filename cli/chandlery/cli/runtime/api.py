"""The instance's own socket: ``GET /v1/view`` for the other commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from chandlery.console.model import View, encode_view


class InstanceApi:
    """Serves the view on a Unix socket that only this user can open."""

    def __init__(self, socket: Path, view: Callable[[], View]) -> None:
        self._socket = socket
        self._view = view
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Begin to serve."""
        application = web.Application()
        application.router.add_get("/v1/view", self._answer)
        application.router.add_get("/healthz", self._healthy)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        self._socket.unlink(missing_ok=True)
        await web.UnixSite(self._runner, str(self._socket)).start()
        self._socket.chmod(0o600)

    async def stop(self) -> None:
        """End serving."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        self._socket.unlink(missing_ok=True)

    async def _answer(self, _: web.Request) -> web.Response:
        return web.Response(body=encode_view(self._view()), content_type="application/json")

    async def _healthy(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")
