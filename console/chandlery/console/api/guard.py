"""Who may call: token, loopback, Host and Origin; what may be sent; headers of every answer; figures of each request.

Without a token the server listens on this machine alone, yet a browser on it opens any page: one that is not ours could
send requests (``Origin`` and ``Sec-Fetch-Site`` tell them), or have its own name point to the loopback address
(DNS rebinding: ``Host`` tells it).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chandlery.console.api.metrics import UNKNOWN_ROUTE, ApiMetrics
from chandlery.console.api.models import Problem
from chandlery.console.api.problems import MOST_BODY_BYTES, problem, problem_of, response
from chandlery.console.settings import ConsoleSettings
from chandlery.core.errors import InputError
from chandlery.core.settings import is_loopback, parse_listen
from chandlery.workers.feed.token import Token

log = logging.getLogger("chandlery.console.api")

API_PREFIX: Final = "/api/"
PREFIX: Final = "/api/v1"
#: Key of the scope under which what serves files says what it is, as a route.
ROUTE_KEY: Final = "chandlery.route"
FILES_ROUTE: Final = "/{file}"
#: Answered without a token: whether the process is well, and what a console must know before it can ask for one.
OPEN_PATHS: Final = frozenset({"/api/v1/healthz", "/api/v1/config"})
_COMMON_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
#: An answer of the API is no page: opened as one, it may load and run nothing.
_API_POLICY: Final = "default-src 'none'; frame-ancestors 'none'"
_ALLOWED_METHODS: Final = "GET, POST, PUT, DELETE"
_ALLOWED_HEADERS: Final = "Authorization, Content-Type, If-Match, Last-Event-ID"


def check_listen(settings: ConsoleSettings) -> bool:
    """Whether browsers can reach where the server listens (a port, not a socket).

    Raises:
        InputError: it would be open to others without a token, or ``listen`` is no address.
    """
    address = parse_listen(settings.listen)
    if isinstance(address, str):
        return False
    if not settings.token_file and not is_loopback(address[0]):
        raise InputError(
            f"listen: {settings.listen} can be reached from elsewhere, so callers need a token: set token_file, "
            "or listen on 127.0.0.1"
        )
    return True


def is_loopback_name(name: str) -> bool:
    """Whether a browser that asks for this name can have meant this machine alone (RFC 6761 on ``.localhost``)."""
    bare = name.rstrip(".").lower()
    return is_loopback(bare) or bare == "ip6-localhost" or bare.endswith(".localhost")


def host_name(host: str) -> str:
    """Name of a Host header: without the port, lower case; empty: it is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


class Guard:
    """Lets in who may call; an ASGI middleware around everything that is served.

    Raises:
        InputError: ``listen`` would be open to others without a token.
    """

    def __init__(self, app: ASGIApp, settings: ConsoleSettings, token: Token, metrics: ApiMetrics) -> None:
        self._app = app
        self._token = token
        self._metrics = metrics
        self._origins = frozenset(origin.rstrip("/").lower() for origin in settings.allowed_origins)
        self._hosts = frozenset(host.lower() for host in settings.allowed_hosts)
        self._check_host = check_listen(settings) and not token.required

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        begun = time.perf_counter_ns()
        origin = headers.get("origin", "")
        started: list[Message] = []

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                _dress(message, scope["path"], self._cors(origin))
                started.append(message)
            await send(message)

        if scope["method"] == "OPTIONS" and origin and "access-control-request-method" in headers:
            await self._preflight(origin)(scope, receive, counted)
        elif (told := self._refusal(scope, headers)) is not None:
            extra = {"WWW-Authenticate": 'Bearer realm="chandlery"'} if told.status == 401 else {}
            await response(told, extra)(scope, receive, counted)
        else:
            await self._served(scope, receive, counted, started)
        self._count(scope, started, begun)

    def _count(self, scope: Scope, started: list[Message], begun_ns: int) -> None:
        # Without an answer the client went before there was one.
        status = int(started[0]["status"]) if started else 499
        content_type = MutableHeaders(raw=list(started[0]["headers"])).get("content-type", "") if started else ""
        streamed = content_type.startswith("text/event-stream")
        took_us = None if streamed else (time.perf_counter_ns() - begun_ns) / 1e3
        self._metrics.answered(scope["method"], _route(scope), status, took_us)

    def _cors(self, origin: str) -> Mapping[str, str]:
        if not self._origins:
            return {}
        if origin.lower() not in self._origins:
            return {"Vary": "Origin"}
        return {
            "Vary": "Origin",
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Expose-Headers": "ETag, Retry-After",
            "Cross-Origin-Resource-Policy": "cross-origin",
        }

    def _preflight(self, origin: str) -> ASGIApp:
        if origin.lower() not in self._origins:
            return response(_foreign(origin))
        allowed = {
            "Access-Control-Allow-Methods": _ALLOWED_METHODS,
            "Access-Control-Allow-Headers": _ALLOWED_HEADERS,
            "Access-Control-Max-Age": "600",
        }
        return Response(status_code=204, headers=allowed)

    def _refusal(self, scope: Scope, headers: Headers) -> Problem | None:
        host, origin = headers.get("host", ""), headers.get("origin", "")
        name = host_name(host)
        if self._check_host and not (name in self._hosts or is_loopback_name(name)):
            return problem(403, "UnknownHost", "without a token this server is reached by a loopback name, or one of allowed_hosts", field="Host", value=host)  # fmt: skip
        if not scope["path"].startswith(API_PREFIX):
            return None
        if origin and not self._own(origin, host):
            return _foreign(origin)
        if not origin and headers.get("sec-fetch-site") == "cross-site":
            return problem(403, "ForeignOrigin", "another site's page asked for this", field="Sec-Fetch-Site", value="cross-site")  # fmt: skip
        if scope["path"] not in OPEN_PATHS and not self._token.admits(headers.get("authorization", "")):
            return problem(401, "Unauthorized", "send the token: Authorization: Bearer TOKEN", field="Authorization")
        return None

    def _own(self, origin: str, host: str) -> bool:
        if origin.lower() in self._origins:
            return True
        try:
            return bool(host) and urlsplit(origin).netloc.lower() == host.lower()
        except ValueError:
            return False

    async def _served(self, scope: Scope, receive: Receive, send: Send, started: list[Message]) -> None:
        taken = 0

        async def bounded() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > MOST_BODY_BYTES:
                # The one kind of error that reading a body lets through as it is.
                raise HTTPException(413)
            return message

        try:
            await self._app(scope, bounded, send)
        except Exception as error:
            log.exception("a request failed", extra={"method": scope["method"], "path": scope["path"]})
            if started:
                raise
            await response(problem_of(error))(scope, receive, send)


def _route(scope: Scope) -> str:
    """The pattern of the route that served a request: one of a known few."""
    path = getattr(scope.get("route"), "path", "") or scope.get(ROUTE_KEY, UNKNOWN_ROUTE)
    # A router that is included in an app knows its routes without the prefix they have there.
    return f"{PREFIX}{path}" if path.startswith("/") and not path.startswith((API_PREFIX, FILES_ROUTE)) else str(path)


def _foreign(origin: str) -> Problem:
    return problem(403, "ForeignOrigin", "pages of this origin may not call this API; see allowed_origins", field="Origin", value=origin)  # fmt: skip


def _dress(message: Message, path: str, more: Mapping[str, str]) -> None:
    """Headers that every answer has; those that a route set itself stay."""
    headers = MutableHeaders(raw=message["headers"] if isinstance(message["headers"], list) else list(message["headers"]))  # fmt: skip
    mine: Iterable[tuple[str, str]] = _COMMON_HEADERS.items()
    if path.startswith(API_PREFIX):
        mine = [*mine, ("Content-Security-Policy", _API_POLICY), ("Cache-Control", "no-store")]
    for name, value in mine:
        headers.setdefault(name, value)
    for name, value in more.items():
        headers[name] = value
    message["headers"] = headers.raw
