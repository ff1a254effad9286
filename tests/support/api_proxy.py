"""A proxy before a real API server that can swallow watches: it answers them, and lets nothing through. It can also answer
in the API server's place, as one does that is too busy, or hang up."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

import aiohttp
import yaml
from aiohttp import web

from chandlery.core.kube_credentials import from_kubeconfig

_PASSED = ("Accept", "Content-Type")


class ApiProxy:
    """Plain HTTP on loopback; speaks to the API server with the kubeconfig's credentials.

    Attributes:
        swallows: asked with each watch's plural; True: its headers come, and nothing else ever. It takes hold of
            watches that run already too.
        cuts: like that; True: the watch ends at once, without anything.
        refuses: asked with method and plural of each request; a status: that is the answer, and the API server never hears
            of it; 0: it is passed on; -1: there is no answer.
        lists, watches: plural of every request that came through, in order.
        kubeconfig: for who shall go through the proxy.
    """

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        self.swallows: Callable[[str], bool] = lambda _plural: False
        self.cuts: Callable[[str], bool] = lambda _plural: False
        self.refuses: Callable[[str, str], int] = lambda _method, _plural: 0
        self.lists: list[str] = []
        self.watches: list[str] = []
        self.kubeconfig = folder / "proxied.kubeconfig"
        self._credentials = from_kubeconfig(kubeconfig)
        self._ending = asyncio.Event()
        app = web.Application(client_max_size=16 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._pass)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Listen, and write the kubeconfig."""
        connector = aiohttp.TCPConnector(ssl=self._credentials.tls or False, limit=0)
        self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        server = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "proxied",
            "clusters": [{"name": "proxied", "cluster": {"server": server}}],
            "users": [{"name": "proxied", "user": {}}],
            "contexts": [{"name": "proxied", "context": {"cluster": "proxied", "user": "proxied"}}],
        }  # fmt: skip
        self.kubeconfig.write_text(yaml.safe_dump(config))

    async def stop(self) -> None:
        """End."""
        self._ending.set()
        await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        assert self._session is not None
        plural = request.path.rstrip("/").rpartition("/")[2]
        headers = {name: request.headers[name] for name in _PASSED if name in request.headers}
        is_watch = request.query.get("watch") in ("1", "true")
        (self.watches if is_watch else self.lists).append(plural)
        if refused := self.refuses(request.method, plural):
            if refused < 0 and request.transport is not None:
                request.transport.abort()
            return web.Response(status=refused if refused > 0 else 500)
        url = f"{self._credentials.server}{request.path_qs}"
        timeout = aiohttp.ClientTimeout(total=None)
        body = await request.read() or None
        async with self._session.request(
            request.method, url, headers={**headers, **self._credentials.headers()}, data=body, timeout=timeout
        ) as answer:
            told = {name: answer.headers[name] for name in ("Content-Type",) if name in answer.headers}
            if not is_watch:
                return web.Response(status=answer.status, body=await answer.read(), headers=told)
            response = web.StreamResponse(status=answer.status, headers=told)
            await response.prepare(request)
            if self.cuts(plural):
                return response
            with contextlib.suppress(ConnectionResetError, aiohttp.ClientError):
                async for chunk in answer.content.iter_any():
                    if self.swallows(plural):
                        # The other side is long gone, and nobody says so.
                        await self._ending.wait()
                        break
                    await response.write(chunk)
            if self.swallows(plural):
                await self._ending.wait()
            return response
