"""MarketFeeds, TraderPools and Traders watched by kopf; handlers only put what comes into the cache.

Only ``on.event``: it writes nothing on objects and needs no finalizer. kopf's own posting of events, its scanning of
namespaces and its peering are off.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import kopf

from chandlery.core.errors import ChandleryError
from chandlery.core.resources import API_VERSION
from chandlery.operator.cache import KIND_OF, Cache, Dirty
from chandlery.operator.kubernetes.api import KubeApi
from chandlery.operator.kubernetes.kinds import RESOURCES

log = logging.getLogger("chandlery.operator.watch")

_GROUP, _VERSION = API_VERSION.split("/")
#: A connection that is silently cut is noticed by its silence; kopf's default is 70 s.
_SILENCE_S: Final = 20
_BACKOFFS_S: Final = (0.2, 0.5, 1, 1, 2, 2, 3, 3, 5, 5)


def settings() -> kopf.OperatorSettings:
    """kopf's settings."""
    made = kopf.OperatorSettings()
    made.posting.enabled = False
    made.scanning.disabled = True
    made.peering.standalone = True
    made.networking.error_backoffs = list(_BACKOFFS_S)
    made.watching.inactivity_timeout = _SILENCE_S
    made.persistence.diffbase_storage = NothingCompared()
    return made


class NothingCompared(kopf.DiffBaseStorage):
    """Keeps nothing of an object to compare it with later: the cache does that by versions.

    kopf's own copies every object twice, deeply, with every event.
    """

    def build(self, *, body: kopf.Body, extra_fields: Iterable[Any] | None = None) -> kopf.BodyEssence:
        """Nothing."""
        return kopf.BodyEssence({})

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        """Nothing."""
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Nothing."""


def handlers(cache: Cache, marked: Callable[[Dirty], None], relisted: Callable[[], None]) -> kopf.OperatorRegistry:
    """kopf's registry with our handlers.

    Args:
        marked: called with what must be reconciled. relisted: called when an object came out of a list.
    """
    registry = kopf.OperatorRegistry()

    def no_index(**_: Any) -> None:
        """Is never called; that there is an index makes events wait until everything has been listed."""

    def never(**_: Any) -> bool:
        return False

    async def event(body: Mapping[str, Any], type: str | None, resource: Any, **_: Any) -> None:
        for dirty in take_in(cache, resource.plural, body, type):
            marked(dirty)
        if type is None:
            relisted()

    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    kopf.on.login(registry=registry)(login)
    for plural in RESOURCES:
        kopf.index(_GROUP, _VERSION, plural, id=f"gate-{plural}", when=never, registry=registry)(no_index)
        kopf.on.event(_GROUP, _VERSION, plural, id=f"take-in-{plural}", registry=registry)(event)
    return registry


def take_in(cache: Cache, plural: str, body: Mapping[str, Any], what: str | None) -> list[Dirty]:
    """Put a watched object into the cache; returns what must be reconciled."""
    if what == "DELETED":
        return cache.drop(body["metadata"]["uid"])
    # kopf's body is a view that changes under our hands: what is kept must be plain data.
    return cache.put(KIND_OF[plural], {name: body[name] for name in body})


async def prime(api: KubeApi, cache: Cache, namespaces: Sequence[str]) -> None:
    """Fill the cache by lists, before anything is planned: a plan from half of the Traders would stop the others.

    Args:
        namespaces: ``("",)`` for all.

    Raises:
        ChandleryError: one can't be listed.
    """
    for plural, kind in RESOURCES.items():
        for namespace in namespaces:
            page = await api.list(kind, namespace)
            for item in page.items:
                cache.put(KIND_OF[plural], item)


class Sweeper:
    """Looks, after every relist and once a minute, whether the cache is what the API server has.

    What the cache has too much (deleted while a watch was away) is dropped. What it lacks, or has older, should have
    come by the watch: if it hasn't a while later, the watch is dead, however alive it looks.

    Attributes:
        dropped: ghosts found so far. missed: how often the watch was behind at a second look.
        patience_s: how long after the first.
    """

    def __init__(
        self,
        api: KubeApi,
        cache: Cache,
        namespaces: Sequence[str],
        marked: Callable[[Dirty], None],
        dead: Callable[[str], None],
        period_s: float = 60.0,
    ) -> None:
        self.dropped = 0
        self.missed = 0
        self._api = api
        self._cache = cache
        self._namespaces = namespaces
        self._marked = marked
        self._dead = dead
        self._period_s = period_s
        #: A watch brings a change within milliseconds; while the API server restarts it takes seconds.
        self.patience_s = 20.0
        self._relisted = asyncio.Event()

    def relisted(self) -> None:
        """Look soon."""
        self._relisted.set()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                async with asyncio.timeout(self._period_s):
                    await self._relisted.wait()
                await asyncio.sleep(2.0)  # what the relist brings is still coming in
            except TimeoutError:
                pass
            self._relisted.clear()
            try:
                missing = await self.missing()
                if missing:
                    self.missed += 1
                    words = f"within {self.patience_s:g} s the watch did not bring {', '.join(missing[:3])}"
                    self._dead(words)
            except ChandleryError as error:
                log.warning("can't compare the cache", extra={"problem": str(error)})

    async def missing(self) -> list[str]:
        """Names of what the watch should have brought and hasn't; raises as :meth:`KubeApi.list`."""
        behind = await self.look()
        if not behind:
            return []
        await asyncio.sleep(self.patience_s)
        # A second list, for what was deleted meanwhile is no sign of a dead watch.
        return self._still_behind(behind, await self.look())

    async def look(self) -> dict[str, tuple[str, int]]:
        """Drop ghosts; returns what the cache hasn't as new as the lists: uid → (name, version)."""
        behind: dict[str, tuple[str, int]] = {}
        for plural, kind in RESOURCES.items():
            for namespace in self._namespaces:
                page = await self._api.list(kind, namespace, metadata_only=True)
                uids = {item["metadata"]["uid"] for item in page.items}
                ghosts = self._cache.sweep(KIND_OF[plural], int(page.version), uids, namespace)
                self.dropped += len(ghosts)
                for dirty in ghosts:
                    self._marked(dirty)
                behind |= self._behind(page.items)
        return behind

    def _behind(self, items: Iterable[Mapping[str, Any]]) -> dict[str, tuple[str, int]]:
        found: dict[str, tuple[str, int]] = {}
        for item in items:
            meta = item["metadata"]
            held = self._cache.by_uid(meta["uid"])
            version = int(meta["resourceVersion"])
            if "deletionTimestamp" not in meta and (held is None or held.version < version):
                found[meta["uid"]] = (f"{meta['namespace']}/{meta['name']}", version)
        return found

    def _still_behind(self, first: Mapping[str, tuple[str, int]], second: Mapping[str, tuple[str, int]]) -> list[str]:
        """Names of what is in both lists and the cache hasn't even as new as in the first one."""
        still = []
        for uid in first.keys() & second.keys():
            name, version = first[uid]
            held = self._cache.by_uid(uid)
            if held is None or held.version < version:
                still.append(name)
        return sorted(still)
