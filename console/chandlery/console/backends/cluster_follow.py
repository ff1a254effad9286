"""Our resources of one kind as they are now: a list, then a watch from its version on, and again after every break."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Final

from chandlery.console.backend import NotFoundError, RefusedError
from chandlery.console.backends.cluster_api import ExpiredError, KubeApi, Object
from chandlery.core.errors import ChandleryError, UnavailableError

Names = tuple[str, str]
"""(namespace, name)."""

#: How long a watch lasts. The API server sends a bookmark before it ends one, whatever else happens: so each brings
#: something, and what is swallowed on its way is known by its silence, 10 s after the watch's end.
WATCH_S: Final = 25.0
_SILENCE_S: Final = 35.0
_FIRST_WAIT_S: Final = 0.2
#: A console that looks again within 5 s is soon enough for a person, and a hundred of them for an API server that comes up.
_LONGEST_WAIT_S: Final = 5.0
#: So many failures in a row, and the version is no more trusted: list again.
_MOST_FAILURES: Final = 5


class Followed:
    """Objects of one kind (``traders``) in one namespace (empty: all).

    Args:
        take: keeps what of an object is wanted; called with each object that came.

    Attributes:
        objects: what was kept, by (namespace, name). listed: whether they have been listed at least once.
        problem: why they may be old, one sentence; empty: they are as they are now.
        lists: how often they were listed.
    """

    def __init__(
        self, api: KubeApi, plural: str, namespace: str, take: Callable[[Object], Object], *, watch_s: float = WATCH_S
    ) -> None:
        self.plural = plural
        self.namespace = namespace
        self.objects: dict[Names, Object] = {}
        self.listed = False
        self.problem = f"{plural} haven't been listed yet"
        self.lists = 0
        self._api = api
        self._take = take
        self._watch_s = watch_s
        self._version = ""

    async def run(self) -> None:
        """Follow until cancelled; whatever fails is tried again, with a backoff and jitter."""
        failures = 0
        while True:
            try:
                if not self._version:
                    await self._list()
                await self._watch()
                failures = 0
            except ChandleryError as error:
                failures += 1
                if isinstance(error, ExpiredError):
                    self._version, failures = "", min(failures, 1)
                else:
                    self.problem = self._explained(error)
                if failures % _MOST_FAILURES == 0:
                    self._version = ""
                wait_s = min(_FIRST_WAIT_S * 2.0 ** min(failures - 1, 8), _LONGEST_WAIT_S)
                await asyncio.sleep(wait_s * (0.5 + random.random() / 2))

    def put(self, item: Object) -> None:
        """Take over an answer of the API server to a write, which the watch brings a moment later.

        Not one that the watch is past: it was changed or deleted since then. Versions that are no numbers can't be
        compared (none known of); then the watch alone tells.
        """
        names = names_of(item)
        known = self.objects.get(names)
        newest = max(_number_of(self._version), _number(known) if known is not None else 0)
        if newest < _number(item):
            self.objects[names] = self._take(item)

    def drop(self, names: Names) -> None:
        """It was deleted."""
        self.objects.pop(names, None)

    async def _list(self) -> None:
        version, items = await self._api.list(self.plural, self.namespace)
        self._version = version
        self.objects = {names_of(item): self._take(item) for item in items}
        self.listed, self.problem = True, ""
        self.lists += 1

    async def _watch(self) -> None:
        changes = self._api.watch(
            self.plural, self.namespace, self._version, watch_s=self._watch_s, silence_s=_SILENCE_S
        )
        brought = False
        began_s = asyncio.get_running_loop().time()
        async for what, item in changes:
            if what == "OPEN":
                self.problem = ""
                continue
            brought = True
            self._version = str(item["metadata"]["resourceVersion"])
            if what == "DELETED":
                self.drop(names_of(item))
            elif what != "BOOKMARK":
                self.objects[names_of(item)] = self._take(item)
        if not brought and asyncio.get_running_loop().time() - began_s < self._watch_s / 2:
            raise UnavailableError(f"the API server {self._api.server} ends watches before their time")

    def _explained(self, error: ChandleryError) -> str:
        where = f" in namespace {self.namespace}" if self.namespace else ""
        if isinstance(error, NotFoundError):
            return (
                f"{self._api.server} has no Chandlery: its CustomResourceDefinitions aren't there (docs/operations.md)"
            )
        if isinstance(error, RefusedError):
            return f"{self.plural}{where} can't be looked at: {error}"
        return str(error)


def names_of(item: Object) -> Names:
    """(namespace, name) of an object."""
    meta = item["metadata"]
    return meta.get("namespace", ""), meta["name"]


def _number(item: Object) -> int:
    return _number_of(str(item["metadata"].get("resourceVersion", "")))


def _number_of(version: str) -> int:
    return int(version) if version.isascii() and version.isdigit() else 0
