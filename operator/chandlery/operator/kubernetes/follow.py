"""Following the objects of one kind: a list, then a watch from its version on, and again after every break.

kopf watches our own resources; this is for everything else: the server selects by label and sends metadata alone
where that will do, neither of which kopf asks for. A list replaces what was known, so nothing deleted meanwhile
stays as a ghost.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping
from typing import Final

from chandlery.core.errors import ChandleryError, UnavailableError
from chandlery.operator.kubernetes.api import GoneError, Kind, KubeApi, Object, RefusedError, StaleError, backoff

log = logging.getLogger("chandlery.operator.follow")

#: How long a watch lasts. The API server sends a bookmark 2 s before it ends a watch, whatever else happens: so each
#: brings something, which proves the whole way from there to here. Asking again costs one request.
WATCH_S: Final = 25.0
#: In watches. A watch that is silently cut, or swallowed on its way, is noticed by its silence: 10 s more than it lasts.
_SILENCE: Final = 1.4
#: In watches. Three silent ones in a row, each with its wait before the next, and a list between them: 2 minutes.
_DEAD: Final = 4.8
#: In watches. The server ends a watch when its time is over; one that ends this much sooner, and brought nothing, failed.
_IN_TIME: Final = 0.8
#: So many failures in a row, and the watch's version is no more trusted: list again.
_MOST_FAILURES: Final = 5

Names = tuple[str, str]
"""(namespace, name)."""


class Followed:
    """Objects of one kind, kept as they are now.

    Args:
        namespace: only those of this one; empty: all.
        selector: label selector. metadata_only: without spec, status and data.
        changed: called with (namespace, name), the object before and the object now; None: not there.
        watch_s: how long one watch lasts.

    Attributes:
        metadata_only: whether ``objects`` have nothing but their metadata.
        objects: by (namespace, name). listed: whether they have been listed at least once.
        reconnects: times that the watch showed a sign of life again after it had failed.
        answered_s: monotonic time of the watch's last sign of life: an event, a bookmark, an end in time. A list is
            none, for lists may come through where watches don't.
    """

    def __init__(
        self,
        api: KubeApi,
        kind: Kind,
        namespace: str,
        changed: Callable[[Names, Object | None, Object | None], None],
        *,
        selector: str = "",
        metadata_only: bool = False,
        watch_s: float = WATCH_S,
    ) -> None:
        self.kind = kind
        self.objects: dict[Names, Object] = {}
        self.listed = False
        self.answered_s = time.monotonic()
        self.reconnects = 0
        self._failed = False
        self._api = api
        self._namespace = namespace
        self._selector = selector
        self.metadata_only = metadata_only
        self._changed = changed
        self._watch_s = watch_s
        self._version = ""

    def problem(self) -> str:
        """Why what is held may be old; empty: the watch is alive, or what it is of can't be listed either."""
        silent_s = time.monotonic() - self.answered_s
        if silent_s <= _DEAD * self._watch_s:
            return ""
        where = f" in namespace {self._namespace}" if self._namespace else ""
        return f"the watch of {self.kind.plural}{where} has brought nothing for {silent_s:.0f} s"

    async def list_once(self) -> None:
        """List and take over; raises as :meth:`KubeApi.list`."""
        page = await self._api.list(
            self.kind, self._namespace, selector=self._selector, metadata_only=self.metadata_only
        )
        self._version = page.version
        found = {names_of(item): item for item in page.items}
        for names in [names for names in self.objects if names not in found]:
            self._set(names, None)
        for names, item in found.items():
            self._set(names, item)
        if not self.listed:
            self.listed, self.answered_s = True, time.monotonic()

    async def run(self) -> None:
        """Follow until cancelled. What can't be listed (no permission) is tried again, and said once a minute."""
        self.answered_s = time.monotonic()
        attempt = 0
        while True:
            try:
                if not self._version:
                    await self._list_again()
                await self._watch()
                attempt = 0
            except ChandleryError as error:
                attempt += 1
                # A version that is too old to go on from says nothing against the server.
                away = isinstance(error, UnavailableError) and not isinstance(error, GoneError | StaleError)
                self._failed = self._failed or (self.listed and away)
                if isinstance(error, StaleError) or attempt % _MOST_FAILURES == 0:
                    self._version = ""
                if isinstance(error, GoneError | RefusedError) and attempt % 12 == 1:
                    log.error("can't follow", extra={"kind": self.kind.plural, "problem": str(error)})
                elif isinstance(error, UnavailableError):
                    log.debug("watch ended", extra={"kind": self.kind.plural, "problem": str(error)})
                await backoff(attempt, random.random())

    async def _list_again(self) -> None:
        try:
            await self.list_once()
        except ChandleryError:
            # The API server is away, or comes up, or refuses this: a watch can bring nothing either, which says nothing
            # against it, and another process would see no more.
            self.answered_s = time.monotonic()
            raise

    async def _watch(self) -> None:
        began_s, brought = time.monotonic(), False
        changes = self._api.watch(
            self.kind, self._namespace, self._version,
            selector=self._selector, metadata_only=self.metadata_only,
            watch_s=self._watch_s, silence_s=_SILENCE * self._watch_s,
        )  # fmt: skip
        try:
            async for what, item in changes:
                brought = True
                self._lives()
                self._version = item["metadata"]["resourceVersion"]
                if what != "BOOKMARK":
                    self._set(names_of(item), None if what == "DELETED" else item)
        except (GoneError, RefusedError, StaleError):
            raise
        except UnavailableError:
            # Many silent watches in a row are a long time to be blind: what is there is listed meanwhile.
            if not brought and time.monotonic() - began_s > self._watch_s:
                self._version = ""
            raise
        if not brought and time.monotonic() - began_s < _IN_TIME * self._watch_s:
            raise UnavailableError(f"watch {self.kind.plural}: ended before its time, and brought nothing")
        self._lives()

    def _lives(self) -> None:
        self.answered_s = time.monotonic()
        self.reconnects += self._failed
        self._failed = False

    def _set(self, names: Names, item: Object | None) -> None:
        before = self.objects.get(names)
        if item is None:
            self.objects.pop(names, None)
        else:
            self.objects[names] = item
        if before is not item and _version(before) != _version(item):
            self._changed(names, before, item)


def _version(item: Mapping[str, object] | None) -> object:
    return item["metadata"]["resourceVersion"] if item is not None else None  # type: ignore[index]


def names_of(item: Mapping[str, Object]) -> Names:
    """(namespace, name) of an object."""
    meta = item["metadata"]
    return meta.get("namespace", ""), meta["name"]
