"""An API server of our three kinds, as small as a test needs it: lists, watches, and writes with versions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from chandlery.core.kube_credentials import Credentials

Object = dict[str, Any]


def an_object(kind: str, name: str, spec: Object, status: Object | None = None, **meta: Any) -> Object:
    """A resource as the API server has it."""
    return {
        "apiVersion": "chandlery.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "desk", "uid": f"uid-{name}", "generation": 1, **meta},
        "spec": spec,
        "status": status or {},
    }


def a_trader(name: str, status: Object | None = None, **meta: Any) -> Object:
    """A Trader of pool ``quants``."""
    spec = {
        "pool": {"name": "quants"},
        "strategy": {"name": "sma-cross"},
        "market": {"symbols": ["BTC/USDT"], "interval": "1s"},
    }
    return an_object("Trader", name, spec, status, **meta)


class ApiServer:
    """Attributes:
    refuse: answered to everything instead, (status, body). requests: (method, path, query), in order.
    lose_version: the next watch of this kind is told that its version is too old.
    """

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Object] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.refuse: tuple[int, Object] | None = None
        self.refuse_write: tuple[int, Object] | None = None
        self.lose_version = ""
        self.open_watches = 0
        self._version = 100
        self._log: list[tuple[str, Object]] = []
        self._queues: list[tuple[str, asyncio.Queue[Object | None]]] = []

    def put(self, plural: str, item: Object) -> Object:
        """Have it there, with a new version, and tell the watches."""
        meta = item["metadata"]
        key = (plural, meta["namespace"], meta["name"])
        what = "MODIFIED" if key in self.objects else "ADDED"
        self._version += 1
        self.objects[key] = json.loads(json.dumps(item))
        self.objects[key]["metadata"]["resourceVersion"] = str(self._version)
        self._tell(plural, what, self.objects[key])
        return self.objects[key]

    def remove(self, plural: str, name: str, *, silently: bool = False) -> None:
        """Have it gone; silently: no watch hears of it."""
        item = self.objects.pop((plural, "desk", name))
        self._version += 1
        if not silently:
            item["metadata"]["resourceVersion"] = str(self._version)
            self._tell(plural, "DELETED", item)

    def cut(self) -> None:
        """End all watches."""
        for _, queue in self._queues:
            queue.put_nowait(None)

    def _tell(self, plural: str, what: str, item: Object) -> None:
        event = {"type": what, "object": json.loads(json.dumps(item))}
        self._log.append((plural, event))
        for wanted, queue in self._queues:
            if wanted == plural:
                queue.put_nowait(event)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path, dict(request.query)))
        if self.refuse is not None:
            return web.json_response(self.refuse[1], status=self.refuse[0])
        parts = request.path.removeprefix("/apis/chandlery.dev/v1alpha1/").split("/")
        namespace, parts = (parts[1], parts[2:]) if parts[0] == "namespaces" else ("", parts)
        plural, name = parts[0], parts[1] if len(parts) > 1 else ""
        if request.method == "GET" and not name:
            if request.query.get("watch"):
                return await self._watch(request, plural)
            items = [
                item for (kind, where, _), item in self.objects.items() if kind == plural and namespace in ("", where)
            ]
            return web.json_response({"metadata": {"resourceVersion": str(self._version)}, "items": items})
        if request.method != "GET" and self.refuse_write is not None:
            return web.json_response(self.refuse_write[1], status=self.refuse_write[0])
        return await self._one(request, plural, namespace, name)

    async def _one(self, request: web.Request, plural: str, namespace: str, name: str) -> web.Response:
        body = await request.json() if request.can_read_body else {}
        name = name or body["metadata"]["name"]
        known = self.objects.get((plural, namespace, name))
        if request.method == "POST":
            if known is not None:
                return _status(409, "AlreadyExists", f'traders.chandlery.dev "{name}" already exists')
            body["metadata"] |= {"uid": f"uid-{name}", "generation": 1}
            return web.json_response(self.put(plural, body), status=201)
        if known is None:
            return _status(404, "NotFound", f'traders.chandlery.dev "{name}" not found')
        if request.method == "PUT":
            if body["metadata"]["resourceVersion"] != known["metadata"]["resourceVersion"]:
                return _status(409, "Conflict", "the object has been modified")
            body["metadata"]["generation"] = known["metadata"]["generation"] + (body["spec"] != known["spec"])
            return web.json_response(self.put(plural, body))
        if request.method == "PATCH":
            known["spec"] |= body["spec"]
            known["metadata"]["generation"] += 1
            return web.json_response(self.put(plural, known))
        if request.method == "DELETE":
            self.remove(plural, name)
        return web.json_response(known)

    async def _watch(self, request: web.Request, plural: str) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        if self.lose_version == plural:
            self.lose_version = ""
            gone = {
                "type": "ERROR",
                "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"},
            }
            await response.write(json.dumps(gone).encode() + b"\n")
            return response
        queue: asyncio.Queue[Object | None] = asyncio.Queue()
        after = int(request.query["resourceVersion"])
        for wanted, event in self._log:
            if wanted == plural and int(event["object"]["metadata"]["resourceVersion"]) > after:
                queue.put_nowait(event)
        entry = (plural, queue)
        self._queues.append(entry)
        self.open_watches += 1
        try:
            while (told := await queue.get()) is not None:
                await response.write(json.dumps(told).encode() + b"\n")
        finally:
            self.open_watches -= 1
            self._queues.remove(entry)
        return response


def _status(code: int, reason: str, message: str, **details: Any) -> web.Response:
    return web.json_response(
        {"kind": "Status", "code": code, "reason": reason, "message": message, **details}, status=code
    )


@asynccontextmanager
async def serving(server: ApiServer, port: int = 0) -> AsyncIterator[Credentials]:
    """Serve; credentials by which it is reached."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server._answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, reuse_address=True)
    await site.start()
    try:
        yield Credentials(f"http://127.0.0.1:{runner.addresses[0][1]}", None)
    finally:
        server.cut()
        await runner.cleanup()
