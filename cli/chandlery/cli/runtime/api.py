"""The instance's own socket, for the other commands and the console.

``GET /v1/view`` is all of it, without the list of signals by ``?signals=0``, and 304 where it is still what
``If-None-Match`` names. ``GET /v1/trader?name=NAMESPACE/NAME`` is a Trader's manifest as it counts, and its file. ``POST /v1/check`` takes a
Trader's manifest and says what would be wrong with it in this instance: ``[[FIELD, SENTENCE], …]``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from chandlery.console.model import View, encode_view

#: Manifest and file of a Trader by its ``namespace/name``; None where there is none.
Written = Callable[[str], tuple[dict[str, Any], str] | None]
#: (field, sentence) of what is wrong with a Trader's manifest, beside what the instance runs.
Wrong = Callable[[dict[str, Any]], Awaitable[list[tuple[str, str]]]]


class InstanceApi:
    """Serves the view on a Unix socket that only this user can open."""

    def __init__(self, socket: Path, view: Callable[[], View], written: Written, wrong: Wrong) -> None:
        self._socket = socket
        self._view = view
        self._written = written
        self._wrong = wrong
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Begin to serve."""
        application = web.Application()
        application.router.add_get("/v1/view", self._answer)
        application.router.add_get("/v1/trader", self._trader)
        application.router.add_post("/v1/check", self._check)
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

    async def _answer(self, request: web.Request) -> web.Response:
        view = self._view()
        if request.query.get("signals") == "0":
            view.signals = []
        body = encode_view(view)
        tag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers={"ETag": tag})
        return web.Response(body=body, content_type="application/json", headers={"ETag": tag})

    async def _trader(self, request: web.Request) -> web.Response:
        found = self._written(request.query.get("name", ""))
        if found is None:
            return web.Response(status=404, text="no such Trader\n")
        manifest, file = found
        return web.Response(
            body=msgspec.json.encode({"manifest": manifest, "file": file}), content_type="application/json"
        )

    async def _check(self, request: web.Request) -> web.Response:
        try:
            manifest = msgspec.json.decode(await request.read(), type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return web.Response(status=400, text=f"no manifest: {error}\n")
        return web.Response(body=msgspec.json.encode(await self._wrong(manifest)), content_type="application/json")

    async def _healthy(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")
