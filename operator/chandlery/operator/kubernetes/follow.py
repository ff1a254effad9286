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

#: Bookmarks come once a minute at best, and a watch that is silently cut is noticed by its silence alone. Asking
#: again from the last version after 25 s costs one request.
_SILENCE_S: Final = 25.0
_LONG_S: Final = 5.0

Names = tuple[str, str]
"""(namespace, name)."""


class Followed:
    """Objects of one kind, kept as they are now.

    Args:
        namespace: only those of this one; empty: all.
        selector: label selector. metadata_only: without spec, status and data.
        changed: called with (namespace, name), the object before and the object now; None: not there.

    Attributes:
        objects: by (namespace, name). listed: whether they have been listed at least once.
        answered_s: monotonic time of the last sign of life.
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
    ) -> None:
        self.kind = kind
        self.objects: dict[Names, Object] = {}
        self.listed = False
        self.answered_s = time.monotonic()
        self._api = api
        self._namespace = namespace
        self._selector = selector
        self._metadata_only = metadata_only
        self._changed = changed
        self._version = ""

    async def list_once(self) -> None:
        """List and take over; raises as :meth:`KubeApi.list`."""
        page = await self._api.list(
            self.kind, self._namespace, selector=self._selector, metadata_only=self._metadata_only
        )
        self._version = page.version
        found = {names_of(item): item for item in page.items}
        for names in [names for names in self.objects if names not in found]:
            self._set(names, None)
        for names, item in found.items():
            self._set(names, item)
        self.listed = True
        self.answered_s = time.monotonic()

    async def run(self) -> None:
        """Follow until cancelled. What can't be listed (no permission) is tried again, and said once a minute."""
        attempt = 0
        while True:
            began_s = time.monotonic()
            try:
                if not self._version:
                    await self.list_once()
                await self._watch()
                attempt = 0
            except StaleError:
                self._version = ""
            except ChandleryError as error:
                # A quiet watch ends by its silence: that is no failure to slow down for.
                attempt = 1 if time.monotonic() - began_s > _LONG_S else attempt + 1
                if isinstance(error, GoneError | RefusedError) and attempt % 12 == 1:
                    log.error("can't follow", extra={"kind": self.kind.plural, "problem": str(error)})
                elif isinstance(error, UnavailableError):
                    log.debug("watch ended", extra={"kind": self.kind.plural, "problem": str(error)})
                await backoff(attempt, random.random())

    async def _watch(self) -> None:
        changes = self._api.watch(
            self.kind, self._namespace, self._version,
            selector=self._selector, metadata_only=self._metadata_only, silence_s=_SILENCE_S,
        )  # fmt: skip
        async for what, item in changes:
            self.answered_s = time.monotonic()
            self._version = item["metadata"]["resourceVersion"]
            if what != "BOOKMARK":
                self._set(names_of(item), None if what == "DELETED" else item)

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
