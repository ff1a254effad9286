"""The pod's API over HTTP: a TCP address or a Unix socket, with a token or from this machine only."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from chandlery.core.assignment import Assignment, WorkerStatus, decode_assignment
from chandlery.core.errors import InputError, MachineError
from chandlery.core.settings import is_loopback, parse_listen
from chandlery.workers.feed.assignments import Outcome
from chandlery.workers.feed.token import Token

log = logging.getLogger("chandlery.feed.api")

#: 256 traders and 64 successors with 64 KiB of source each, escaped as JSON.
MOST_BODY_BYTES: Final = 64 * 1024 * 1024
#: A long-poll ends after this at the latest; proxies commonly cut at 60 s.
MOST_WAIT_MS: Final = 55_000
_MOST_SIGNALS: Final = 1_000


class Worker(Protocol):
    """What the API serves."""

    def offer(self, assignment: Assignment, source: str) -> Outcome: ...
    def taken(self) -> dict[str, object]: ...
    def status(self) -> WorkerStatus: ...
    async def wait_newer(self, than: int, timeout_s: float) -> None: ...
    def segment_info(self) -> dict[str, Any]: ...
    def rings_info(self) -> dict[str, Any]: ...
    def latency_info(self) -> dict[str, Any]: ...
    def signals(self, limit: int) -> list[dict[str, Any]]: ...
    def healthy(self) -> str:
        """Returns: what is missing, empty if nothing."""
        ...


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


def _number(request: web.Request, name: str, default: int, most: int) -> int:
    text = request.query.get(name, "")
    if not text:
        return default
    try:
        value = int(text)
    except ValueError as error:
        raise web.HTTPBadRequest(text=f"{name}={text!r} is no whole number") from error
    return max(0, min(value, most))


def _guard(token: Token) -> Middleware:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        # Probes of the kubelet carry no token, and learn nothing from the answer.
        if request.path != "/healthz" and not token.admits(request.headers.get("Authorization", "")):
            return _json({"error": "a bearer token is required"}, 401)
        return await handler(request)

    return guard


class Api:
    """Serves one worker.

    Raises:
        InputError: ``listen`` is no address, or there is no token and it can be reached from other machines.
    """

    def __init__(self, worker: Worker, listen: str, token: Token) -> None:
        self._worker = worker
        try:
            self._address = parse_listen(listen)
        except InputError as error:
            raise InputError(f"listen: {error}") from error
        if not token.required and not isinstance(self._address, str) and not is_loopback(self._address[0]):
            raise InputError(f"listen {listen!r} can be reached from elsewhere: set a token, or use unix: or 127.0.0.1")
        app = web.Application(client_max_size=MOST_BODY_BYTES, middlewares=[_guard(token)])
        app.add_routes(
            [
                web.put("/v1/assignment", self._put_assignment),
                web.get("/v1/status", self._get_status),
                web.get("/v1/segment", self._get_segment),
                web.get("/v1/rings", self._get_rings),
                web.get("/v1/latency", self._get_latency),
                web.get("/v1/signals", self._get_signals),
                web.get("/healthz", self._get_health),
            ]
        )
        # Long-polls are let go by the worker before the server stops.
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        #: Address bound, as ``host:port`` or ``unix:/path``; port 0 is resolved.
        self.bound = ""

    async def start(self) -> None:
        """Listen.

        Raises:
            MachineError: the address is taken or can't be bound.
        """
        await self._runner.setup()
        try:
            if isinstance(self._address, str):
                Path(self._address).unlink(missing_ok=True)
                await web.UnixSite(self._runner, self._address).start()
                self.bound = f"unix:{self._address}"
            else:
                host, port = self._address
                await web.TCPSite(self._runner, host.strip("[]"), port).start()
                self.bound = f"{host}:{self._runner.addresses[0][1]}"
        except OSError as error:
            await self._runner.cleanup()
            raise MachineError(f"can't listen on {self._address}: {error.strerror or error}") from error

    async def stop(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()
        if isinstance(self._address, str):
            Path(self._address).unlink(missing_ok=True)

    async def _put_assignment(self, request: web.Request) -> web.Response:
        try:
            assignment = decode_assignment(await request.read())
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return _json({"error": f"no assignment: {error}", **self._worker.taken()}, 400)
        try:
            outcome = self._worker.offer(assignment, "push")
        except OSError as error:
            return _json({"error": f"can't keep the assignment: {error}", **self._worker.taken()}, 503)
        answer = self._worker.taken()
        if outcome.verdict in ("taken", "same"):
            return _json(answer)
        return _json({"error": outcome.message, **answer}, 400 if outcome.verdict == "invalid" else 409)

    async def _get_status(self, request: web.Request) -> web.Response:
        wait_ms = _number(request, "wait_ms", 0, MOST_WAIT_MS)
        after = _number(request, "after", 0, 1 << 62)
        if wait_ms:
            await self._worker.wait_newer(after, wait_ms / 1_000)
        return _json(self._worker.status())

    async def _get_segment(self, _request: web.Request) -> web.Response:
        return _json(self._worker.segment_info())

    async def _get_rings(self, _request: web.Request) -> web.Response:
        return _json(self._worker.rings_info())

    async def _get_latency(self, _request: web.Request) -> web.Response:
        return _json(self._worker.latency_info())

    async def _get_signals(self, request: web.Request) -> web.Response:
        return _json(self._worker.signals(_number(request, "limit", 100, _MOST_SIGNALS)))

    async def _get_health(self, _request: web.Request) -> web.Response:
        missing = self._worker.healthy()
        return _json({"status": missing or "ok"}, 503 if missing else 200)
