"""Requests to the API server over bare aiohttp: a status by server-side apply costs 0.4 ms of CPU so, a third of
what client libraries take.

Writes are server-side apply with one field manager. With a ``resourceVersion`` in the body the API server refuses
(409) to write on what has changed since; without it a late status could land on a recreated object of the same
name, for ``/status`` ignores ``metadata.uid``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import aiohttp
import msgspec

from chandlery.core.errors import InputError, UnavailableError
from chandlery.core.http_errors import in_words
from chandlery.core.kube_credentials import Credentials

FIELD_MANAGER: Final = "chandlery-operator"
_APPLY: Final = "application/apply-patch+yaml"  # JSON is YAML
_METADATA_LIST: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_METADATA: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
#: Requests under way at once, watches apart: beyond 16 the API server got slower, not faster.
_CONNECTIONS: Final = 16
#: The slowest write on a busy machine took 1 s; ten times that. Connecting takes milliseconds.
_TIMEOUT: Final = aiohttp.ClientTimeout(total=10, sock_connect=3)
_PAGE: Final = 500

Object = dict[str, Any]


class GoneError(UnavailableError):
    """The object, or its namespace, isn't there (404): forget it, unless a watch shows it again."""


class StaleError(UnavailableError):
    """The object is another version by now (409), or the list's version is too old (410): look again."""


class ExistsError(StaleError):
    """What was to be made is there already (409 with that reason, and not for a conflict with another write)."""


class RefusedError(InputError):
    """The API server won't have it (400, 403, 413, 422 …): repeating the same gives the same."""


class Kind(NamedTuple):
    """A kind of objects: ``apps/v1``, ``statefulsets``, ``StatefulSet``."""

    api_version: str
    plural: str
    name: str
    namespaced: bool = True

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Path of a collection or an object; without namespace: of all namespaces."""
        group = "/api/" if "/" not in self.api_version else "/apis/"
        parts = [group + self.api_version]
        if namespace and self.namespaced:
            parts.append(f"namespaces/{quote(namespace)}")
        parts += [part for part in (self.plural, quote(name), subresource) if part]
        return "/".join(parts)


class Page(NamedTuple):
    """A whole list: the version it is of, and its objects."""

    version: str
    items: list[Object]


class KubeApi:
    """The API server.

    Attributes:
        requests: number of requests by (method, kind and subresource, status); status 0: no answer.
    """

    def __init__(self, credentials: Credentials) -> None:
        self.credentials = credentials
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self._session: aiohttp.ClientSession | None = None
        self._watches: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Let go of connections."""
        for session in (self._session, self._watches):
            if session is not None:
                await session.close()
        self._session = self._watches = None

    async def apply(self, kind: Kind, body: Object, *, subresource: str = "") -> Object:
        """Server-side apply; returns the object as it is then.

        Args:
            body: with ``metadata.name`` and ``namespace``; all fields that this manager shall own.
            subresource: ``status``, or empty.

        Raises:
            GoneError, StaleError, RefusedError, UnavailableError: see there.
        """
        meta = body["metadata"]
        path = kind.path(meta.get("namespace", ""), meta["name"], subresource)
        whole = {"apiVersion": kind.api_version, "kind": kind.name, **body}
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        label = f"{kind.plural}/{subresource}" if subresource else kind.plural
        return await self._call("PATCH", path, label, query=query, body=whole, content_type=_APPLY)

    async def create(self, kind: Kind, body: Object) -> Object:
        """Create an object.

        Raises:
            ExistsError: it is there already. GoneError, StaleError, RefusedError, UnavailableError: see there.
        """
        path = kind.path(body["metadata"].get("namespace", ""))
        whole = {"apiVersion": kind.api_version, "kind": kind.name, **body}
        return await self._call("POST", path, kind.plural, query={"fieldManager": FIELD_MANAGER}, body=whole)

    async def merge(self, kind: Kind, namespace: str, name: str, patch: Object, *, subresource: str = "") -> Object:
        """Merge-patch an object; for what must not take part in server-side apply (annotations of pods)."""
        label = f"{kind.plural}/{subresource}" if subresource else kind.plural
        return await self._call(
            "PATCH", kind.path(namespace, name, subresource), label, query={"fieldManager": FIELD_MANAGER},
            body=patch, content_type="application/merge-patch+json",
        )  # fmt: skip

    async def get(self, kind: Kind, namespace: str, name: str) -> Object:
        """One object; raises as :meth:`apply`."""
        return await self._call("GET", kind.path(namespace, name), kind.plural)

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str = "") -> None:
        """Delete an object; one that isn't there is deleted.

        Args:
            uid: only if it is this very object.
        """
        body: Object = {"propagationPolicy": "Background"}
        if uid:
            body["preconditions"] = {"uid": uid}
        with contextlib.suppress(GoneError, StaleError):
            await self._call("DELETE", kind.path(namespace, name), kind.plural, body=body)

    async def list(
        self, kind: Kind, namespace: str = "", *, selector: str = "", fields: str = "", metadata_only: bool = False
    ) -> Page:
        """Every object of a kind, in pages; raises as :meth:`apply`.

        Args:
            selector: by labels. fields: by fields, such as ``reason=FailedCreate``.
        """
        items: list[Object] = []
        query = {"limit": str(_PAGE), **({"labelSelector": selector} if selector else {})}
        if fields:
            query["fieldSelector"] = fields
        accept = _METADATA_LIST if metadata_only else "application/json"
        while True:
            page = await self._call("GET", kind.path(namespace), kind.plural, query=query, accept=accept)
            items += page.get("items") or ()
            meta = page.get("metadata", {})
            if not meta.get("continue"):
                return Page(str(meta.get("resourceVersion", "")), items)
            query["continue"] = meta["continue"]

    async def watch(
        self,
        kind: Kind,
        namespace: str,
        version: str,
        *,
        selector: str = "",
        metadata_only: bool = False,
        watch_s: float = 300.0,
        silence_s: float,
    ) -> AsyncIterator[tuple[str, Object]]:
        """Changes after ``version``, as (type, object), bookmarks included, until the server ends the watch.

        Args:
            watch_s: the server ends it after so long, whole seconds; a bookmark comes 2 s before that.
            silence_s: a connection that says nothing for so long counts as dead.

        Raises:
            StaleError: the version is too old: list again. UnavailableError: cut, or silent.
        """
        query = {
            "watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true", "timeoutSeconds": f"{watch_s:.0f}",
            **({"labelSelector": selector} if selector else {}),
        }  # fmt: skip
        headers = {**self.credentials.headers(), "Accept": _METADATA if metadata_only else "application/json"}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=3, sock_read=silence_s)
        url = self.credentials.server + kind.path(namespace)
        if self._watches is None:
            self._watches = aiohttp.ClientSession(connector=self._connector(0))
        try:
            async with self._watches.get(url, params=query, headers=headers, timeout=timeout) as response:
                if response.status != 200:
                    _raise(response.status, await response.read(), f"watch {kind.plural}")
                async for line in _lines(response.content):
                    event = msgspec.json.decode(line)
                    if event["type"] == "ERROR":
                        _raise(int(event["object"].get("code", 500)), line, f"watch {kind.plural}")
                    yield event["type"], event["object"]
        except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError) as error:
            raise UnavailableError(f"watch {kind.plural}: {in_words(error)}") from error

    def _connector(self, limit: int) -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(ssl=self.credentials.tls or False, limit=limit)

    async def _call(
        self,
        method: str,
        path: str,
        label: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Object:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=self._connector(_CONNECTIONS), timeout=_TIMEOUT)
        headers = {**self.credentials.headers(), "Accept": accept, "Content-Type": content_type}
        data = msgspec.json.encode(body) if body is not None else None
        status = 0
        try:
            async with self._session.request(
                method, self.credentials.server + path, params=query, data=data, headers=headers
            ) as response:
                answer, status = await response.read(), response.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise UnavailableError(f"{method} {path}: no answer: {in_words(error)}") from error
        finally:
            self.requests[method, label, status] += 1
        if status >= 300:
            _raise(status, answer, f"{method} {path}")
        try:
            decoded: Object = msgspec.json.decode(answer)
        except msgspec.DecodeError as error:
            raise UnavailableError(f"{method} {path}: no JSON in the answer: {error}") from error
        return decoded


def _raise(status: int, body: bytes, what: str) -> None:
    reason = ""
    try:
        answer = msgspec.json.decode(body)
        said, reason = str(answer.get("message", "")), answer.get("reason", "")
    except (msgspec.DecodeError, AttributeError):
        said = body[:200].decode(errors="replace")
    message = f"{what}: {status} {said}"
    if status == 404:
        raise GoneError(message)
    if status == 409 and reason == "AlreadyExists":
        raise ExistsError(message)
    if status in (409, 410):
        raise StaleError(message)
    # 401: a token that is just being renewed. 429: asked to slow down. 403 in a namespace that ends is final.
    if status < 500 and status not in (401, 408, 429):
        raise RefusedError(message)
    raise UnavailableError(message)


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length (the reader's own ``readline`` ends at 128 KiB; an object may have a mebibyte)."""
    pieces: list[bytes] = []
    async for chunk in stream.iter_any():
        *whole, rest = chunk.split(b"\n")
        for line in whole:
            pieces.append(line)
            joined = b"".join(pieces)
            pieces.clear()
            if joined:
                yield joined
        if rest:
            pieces.append(rest)


async def backoff(attempt: int, chance: float) -> None:
    """Wait before another attempt: 0.2 s doubling to 5 s, between half and the whole of it.

    Args:
        attempt: how many failed, from 1. chance: 0 … 1.
    """
    await asyncio.sleep(min(0.2 * 2.0 ** min(attempt - 1, 8), 5.0) * (0.5 + chance / 2))
