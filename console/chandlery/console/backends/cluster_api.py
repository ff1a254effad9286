"""Kubernetes' API as the console uses it: our three kinds listed and watched, and Traders written.

The operator has a client of its own with server-side apply, which this hasn't: nothing is owned here, a person's edit
is a person's edit.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import msgspec

from chandlery.console.backend import ConflictError, NotFoundError, RefusedError
from chandlery.core.errors import ChandleryError, InputError, UnavailableError
from chandlery.core.http_errors import in_words
from chandlery.core.kube_credentials import Credentials
from chandlery.core.resources import API_VERSION
from chandlery.core.wording import printable

Object = dict[str, Any]

FIELD_MANAGER: Final = "chandlery-console"
#: The slowest write on a busy machine took 1 s; ten times that. Connecting takes milliseconds.
_TIMEOUT: Final = aiohttp.ClientTimeout(total=10, sock_connect=3)
#: Requests under way at once, watches apart.
_CONNECTIONS: Final = 8
_PAGE: Final = 500
#: The API server keeps an object below 1.5 MiB; a page of 500 small ones is about 4 MB. What is longer isn't one of ours.
_MOST_BYTES: Final = 1 << 28
_MOST_LINE_BYTES: Final = 1 << 23
_UNKNOWN_FIELD: Final = re.compile(r'unknown field "([^"]+)"')
#: The first words of a sentence are enough; admission policies may say a lot.
_MOST_CHARS: Final = 1_000


class FieldError(InputError):
    """The API server finds a field wrong. field: its path, such as ``spec.market.symbols``; empty: not one."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class ExpiredError(UnavailableError):
    """The version that a watch was to begin at is too old (410): list again."""


class StaleError(ConflictError):
    """The object is another version by now (409): look again."""


class KubeApi:
    """The API server."""

    def __init__(self, credentials: Credentials) -> None:
        self.server = credentials.server
        self._credentials = credentials
        self._session: aiohttp.ClientSession | None = None
        self._watches: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Let go of connections."""
        for session in (self._session, self._watches):
            if session is not None:
                await session.close()
        self._session = self._watches = None

    async def list(self, plural: str, namespace: str) -> tuple[str, list[Object]]:
        """The version that the list is of, and every object of a kind; empty namespace: of all.

        Raises:
            RefusedError: it may not. UnavailableError: no answer.
        """
        items: list[Object] = []
        query = {"limit": str(_PAGE)}
        while True:
            page = await self._call("GET", _path(plural, namespace), query=query)
            items += page.get("items") or ()
            meta = page.get("metadata", {})
            if not meta.get("continue"):
                return str(meta.get("resourceVersion", "")), items
            query["continue"] = meta["continue"]

    async def watch(
        self, plural: str, namespace: str, version: str, *, watch_s: float, silence_s: float
    ) -> AsyncIterator[tuple[str, Object]]:
        """``OPEN`` once the server has agreed, then changes after ``version``, bookmarks included, until it ends the watch.

        Args:
            watch_s: the server ends it after so long; a bookmark comes before that.
            silence_s: a connection that says nothing for so long counts as dead.

        Raises:
            ExpiredError: list again. RefusedError, UnavailableError: as :meth:`list`.
        """
        query = {
            "watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true", "timeoutSeconds": f"{watch_s:.0f}",
        }  # fmt: skip
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=3, sock_read=silence_s)
        if self._watches is None:
            self._watches = aiohttp.ClientSession(connector=self._connector(0))
        url = self.server + _path(plural, namespace)
        try:
            async with self._watches.get(
                url, params=query, headers=self._credentials.headers(), timeout=timeout
            ) as response:
                if response.status != 200:
                    raise _failure(response.status, await response.read(), plural)
                yield "OPEN", {}
                async for line in _lines(response.content):
                    event = msgspec.json.decode(line)
                    if event["type"] == "ERROR":
                        raise _failure(
                            int(event["object"].get("code", 500)), msgspec.json.encode(event["object"]), plural
                        )
                    yield event["type"], event["object"]
        except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError, KeyError) as error:
            raise self._away(error) from error

    async def get(self, namespace: str, name: str) -> Object:
        """One Trader. Raises: NotFoundError, RefusedError, UnavailableError."""
        return await self._call("GET", _path("traders", namespace, name))

    async def create(self, namespace: str, body: Object) -> Object:
        """Make a Trader. Raises: FieldError, ConflictError, NotFoundError (its namespace), RefusedError, UnavailableError."""
        return await self._call("POST", _path("traders", namespace), query=_STRICT, body=body)

    async def put(self, namespace: str, name: str, body: Object) -> Object:
        """Replace a Trader of the version that the body names. Raises: as :meth:`create`; StaleError."""
        return await self._call("PUT", _path("traders", namespace, name), query=_STRICT, body=body)

    async def merge(self, namespace: str, name: str, patch: Object) -> Object:
        """Merge-patch a Trader. Raises: as :meth:`create`."""
        return await self._call(
            "PATCH", _path("traders", namespace, name), query=_STRICT, body=patch,
            content_type="application/merge-patch+json",
        )  # fmt: skip

    async def delete(self, namespace: str, name: str) -> None:
        """Delete a Trader. Raises: NotFoundError, RefusedError, UnavailableError."""
        await self._call("DELETE", _path("traders", namespace, name), body={"propagationPolicy": "Background"})

    def _connector(self, limit: int) -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(ssl=self._credentials.tls or False, limit=limit)

    def _away(self, error: Exception) -> UnavailableError:
        return UnavailableError(f"the API server {self.server} doesn't answer ({in_words(error)})")

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
    ) -> Object:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=self._connector(_CONNECTIONS), timeout=_TIMEOUT)
        headers = {**self._credentials.headers(), "Accept": "application/json", "Content-Type": content_type}
        data = msgspec.json.encode(body) if body is not None else None
        try:
            async with self._session.request(
                method, self.server + path, params=query, data=data, headers=headers
            ) as response:
                answer, status = await read_bounded(response, _MOST_BYTES), response.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._away(error) from error
        if status >= 300:
            raise _failure(status, answer, path.partition(f"{API_VERSION}/")[2])
        try:
            decoded: Object = msgspec.json.decode(answer)
        except msgspec.DecodeError as error:
            raise self._away(error) from error
        return decoded


#: A field that isn't known is refused, where the API server would else drop it and say nothing.
_STRICT: Final = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}


def _path(plural: str, namespace: str = "", name: str = "") -> str:
    parts = [f"/apis/{API_VERSION}"]
    if namespace:
        parts.append(f"namespaces/{quote(namespace, safe='')}")
    parts += [part for part in (plural, quote(name, safe="")) if part]
    return "/".join(parts)


def _failure(status: int, body: bytes, what: str) -> ChandleryError:
    """What an answer of the API server means, in its own words."""
    try:
        told = msgspec.json.decode(body)
        said = printable(str(told.get("message") or ""))[:_MOST_CHARS]
        reason, causes = str(told.get("reason") or ""), (told.get("details") or {}).get("causes") or []
    except (msgspec.DecodeError, AttributeError):
        said, reason, causes = printable(body[:200].decode(errors="replace")), "", []
    said = said or f"{what}: HTTP {status}"
    match status:
        case 403:
            return RefusedError(f"the API server refuses it: {said}")
        case 404:
            return NotFoundError(said)
        case 409:
            return ConflictError(said) if reason == "AlreadyExists" else StaleError(said)
        case 410:
            return ExpiredError(said)
        case 401 | 408 | 429:  # a token that is just being renewed; asked to slow down
            return UnavailableError(f"the API server puts it off: {said}")
    if status < 500:
        return _of_fields(said, causes)
    return UnavailableError(f"the API server fails: {said}")


def _of_fields(said: str, causes: list[Any]) -> FieldError:
    named = [
        (str(cause.get("field") or ""), printable(str(cause.get("message") or "")))
        for cause in causes
        if isinstance(cause, dict) and cause.get("field") not in (None, "", "<nil>")
    ]
    if named:
        return FieldError("; ".join(f"{field}: {message}" for field, message in named)[:_MOST_CHARS], named[0][0])
    unknown = _UNKNOWN_FIELD.search(said)
    return FieldError(said, unknown[1] if unknown else "")


async def read_bounded(response: aiohttp.ClientResponse, most_bytes: int) -> bytes:
    """An answer's body. Raises: UnavailableError: it is longer."""
    held = bytearray()
    async for chunk in response.content.iter_any():
        held += chunk
        if len(held) > most_bytes:
            raise UnavailableError(f"an answer of more than {most_bytes:,} bytes")
    return bytes(held)


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length that an object may have (the reader's own ``readline`` ends at 128 KiB)."""
    held = bytearray()
    async for chunk in stream.iter_any():
        held += chunk
        *whole, rest = held.split(b"\n")
        for line in whole:
            if line:
                yield bytes(line)
        held = rest
        if len(held) > _MOST_LINE_BYTES:
            raise UnavailableError("the API server sends an event without an end")
