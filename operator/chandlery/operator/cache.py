"""MarketFeeds, TraderPools and Traders as last seen, by uid. Pure.

kopf's own index keeps ghosts: it never synthesizes DELETED for what vanished while a watch was away. Here a list
of uids, taken after every relist and from time to time, drops what isn't in it (:meth:`Cache.sweep`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pydantic import ValidationError

from chandlery.core.explanations import explain
from chandlery.core.manifests import Key
from chandlery.core.resources import KINDS, MarketFeed, Resource, Trader, TraderPool
from chandlery.core.wording import path_text

Dirty = tuple[str, str, str]
"""What a reconcile is for: (``pool`` or ``feed``, namespace, name)."""

_MOST_PROBLEMS: Final = 3
#: Plural, as watches name it → kind.
KIND_OF: Final = {"marketfeeds": MarketFeed.KIND, "traderpools": TraderPool.KIND, "traders": Trader.KIND}


@dataclass(frozen=True, slots=True)
class Held:
    """One resource as it was last seen.

    Attributes:
        version: ``resourceVersion``. generation: of its spec.
        resource: as a type; None: it can't be read and never could, ``problem`` says why. With a problem it is
            the last version that could be read: a bad edit stops nothing; but whoever suspends is heard all the same.
        is_stand_in: the resource was never read here: it is what a worker has of it.
        status: as the API server has it. spec: the same, where it can't be read.
        pool: the pool that a Trader names. feed: the feed that a pool names, where that can be told.
    """

    kind: str
    uid: str
    key: Key
    version: int
    generation: int
    resource: Resource | None
    problem: str = ""
    status: Mapping[str, Any] = field(default_factory=dict)
    pool: Key | None = None
    feed: Key | None = None
    spec: Mapping[str, Any] = field(default_factory=dict)
    is_stand_in: bool = False

    @property
    def is_suspended(self) -> bool:
        """Whether a pool or a Trader says that it is, whatever else can't be read of it."""
        if isinstance(self.resource, Trader | TraderPool):
            return self.resource.spec.suspend
        return self.spec.get("suspend") is True


def hold(kind: str, body: Mapping[str, Any], before: Held | None = None) -> Held:
    """Read an object as the API server gives it.

    Args:
        before: the same object as seen before; an unchanged generation and metadata needn't be read again.
    """
    meta = body["metadata"]
    resource, problem = _read(kind, body, before)
    return Held(
        kind=kind,
        uid=meta["uid"],
        key=(meta["namespace"], meta["name"]),
        version=int(meta["resourceVersion"]),
        generation=int(meta.get("generation", 1)),
        resource=resource,
        problem=problem,
        status=body.get("status") or {},
        pool=_pool(kind, resource, body),
        feed=_feed(kind, resource, body),
        spec=_mapping(body.get("spec")) if problem else {},
        is_stand_in=before is not None and before.is_stand_in and bool(problem),
    )


def _read(kind: str, body: Mapping[str, Any], before: Held | None) -> tuple[Resource | None, str]:
    meta = body["metadata"]
    if before is not None and before.resource is not None and not before.problem:
        same_notes = before.resource.metadata.annotations == dict(meta.get("annotations") or {})
        if before.generation == meta.get("generation") and same_notes:
            return before.resource, ""
    given = {name: body[name] for name in ("apiVersion", "kind", "metadata", "spec") if name in body}
    try:
        return KINDS[kind].model_validate(given), ""
    except ValidationError as error:
        kept = _suspended_as_said(before.resource, given) if before is not None else None
        return kept, _in_words(kind, error, given)


def _suspended_as_said(resource: Resource | None, given: Mapping[str, Any]) -> Resource | None:
    """The version that is kept, suspended or not as the one says that can't be read; the very object where that is no change."""
    suspend = _mapping(given.get("spec")).get("suspend")
    if not isinstance(resource, Trader | TraderPool) or not isinstance(suspend, bool):
        return resource
    if suspend == resource.spec.suspend:
        return resource
    return resource.model_copy(update={"spec": resource.spec.model_copy(update={"suspend": suspend})})


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _in_words(kind: str, error: ValidationError, given: dict[str, Any]) -> str:
    explained = [explain(KINDS[kind], detail, given) for detail in error.errors()]
    return "; ".join(f"{path_text(path)}: {message}" for path, message in explained[:_MOST_PROBLEMS])


def _pool(kind: str, resource: Resource | None, body: Mapping[str, Any]) -> Key | None:
    if kind != Trader.KIND:
        return None
    if isinstance(resource, Trader):
        return resource.spec.pool.key(resource.namespace)
    # Whatever is wrong with it, its status is the business of the pool it names.
    named = _mapping(_mapping(body.get("spec")).get("pool"))
    return str(named.get("namespace") or body["metadata"]["namespace"]), str(named.get("name", ""))


def _feed(kind: str, resource: Resource | None, body: Mapping[str, Any]) -> Key | None:
    if kind != TraderPool.KIND:
        return None
    if isinstance(resource, TraderPool):
        return resource.spec.feed.key(resource.namespace)
    # Whatever is wrong with it, its workers may run on, and ask something of that feed.
    named = _mapping(_mapping(body.get("spec")).get("feed"))
    if not named.get("name"):
        return None
    return str(named.get("namespace") or body["metadata"]["namespace"]), str(named["name"])


class Cache:
    """Everything seen, by uid; of two with one name (recreated) the newer counts."""

    def __init__(self) -> None:
        self._held: dict[str, Held] = {}
        self._uid: dict[tuple[str, Key], str] = {}
        self._traders: dict[Key, set[str]] = {}

    def put(self, kind: str, body: Mapping[str, Any]) -> list[Dirty]:
        """Take in an object; returns what must be reconciled for it. An older version than held changes nothing.

        What is being deleted counts as gone: nothing shall be made for it any more.
        """
        meta = body["metadata"]
        if "deletionTimestamp" in meta:
            return self.drop(meta["uid"])
        before = self._held.get(meta["uid"])
        if before is not None and before.version >= int(meta["resourceVersion"]):
            return []
        now = hold(kind, body, before)
        dirty: list[Dirty] = []
        if before is not None:
            dirty = self._concerned(before)
            self._remove(before)
        self._add(now)
        seeking = self._seeking(kind) if before is None else []
        return [*dict.fromkeys([*dirty, *self._concerned(now), *seeking])]

    def drop(self, uid: str) -> list[Dirty]:
        """Forget an object; returns what must be reconciled for it."""
        held = self._held.get(uid)
        if held is None:
            return []
        dirty = self._concerned(held)
        self._remove(held)
        return [*dict.fromkeys([*dirty, *self._seeking(held.kind)])]

    def stand_in(self, uid: str, resource: Resource) -> None:
        """Hold this in the place of a resource that can't be read, and of which no version is known that could."""
        held = self._held[uid]
        assert held.resource is None
        self._held[uid] = replace(held, resource=resource, is_stand_in=True)

    def sweep(self, kind: str, version: int, uids: Iterable[str], namespace: str = "") -> list[Dirty]:
        """Forget what a list doesn't have, unless it is newer than the list.

        Args:
            version: the list's. uids: everything in it. namespace: the list is of this one only.
        """
        listed = set(uids)
        gone = [
            held
            for held in self._held.values()
            if held.kind == kind
            and held.uid not in listed
            and held.version <= version
            and namespace in ("", held.key[0])
        ]
        return [dirty for held in gone for dirty in self.drop(held.uid)]

    def get(self, kind: str, key: Key) -> Held | None:
        """The resource of a name."""
        uid = self._uid.get((kind, key))
        return self._held[uid] if uid is not None else None

    def by_uid(self, uid: str) -> Held | None:
        """The resource of a uid."""
        return self._held.get(uid)

    def uids(self) -> set[str]:
        """Every uid held."""
        return set(self._held)

    def all_of(self, kind: str) -> Iterator[Held]:
        """Every resource of a kind that counts."""
        for held in self._held.values():
            if held.kind == kind and self._uid.get((kind, held.key)) == held.uid:
                yield held

    def traders_of(self, pool: Key) -> list[Held]:
        """Traders that name a pool, whether it exists or not."""
        held = (self._held[uid] for uid in self._traders.get(pool, ()))
        return [one for one in held if self._uid.get((one.kind, one.key)) == one.uid]

    def pools_of(self, feed: Key) -> list[Key]:
        """Pools that name a feed."""
        return [held.key for held in self.all_of(TraderPool.KIND) if held.feed == feed]

    def pool_keys(self) -> list[Key]:
        """Every pool, and every name of one that a Trader gives."""
        return list({*(held.key for held in self.all_of(TraderPool.KIND)), *self._traders})

    def _add(self, held: Held) -> None:
        self._held[held.uid] = held
        other = self._held.get(self._uid.get((held.kind, held.key), ""))
        if other is None or other.version <= held.version:
            self._uid[held.kind, held.key] = held.uid
        if held.pool is not None:
            self._traders.setdefault(held.pool, set()).add(held.uid)

    def _remove(self, held: Held) -> None:
        del self._held[held.uid]
        if self._uid.get((held.kind, held.key)) == held.uid:
            del self._uid[held.kind, held.key]
        if held.pool is None:
            return
        members = self._traders.get(held.pool, set())
        members.discard(held.uid)
        if not members:
            self._traders.pop(held.pool, None)

    def _concerned(self, held: Held) -> list[Dirty]:
        if held.pool is not None:
            return [("pool", *held.pool)]
        if held.kind == TraderPool.KIND:
            return [("pool", *held.key), *([("feed", *held.feed)] if held.feed is not None else [])]
        return [("feed", *held.key), *(("pool", *pool) for pool in self.pools_of(held.key))]

    def _seeking(self, kind: str) -> list[Dirty]:
        """Pools that are concerned when one of a kind comes or goes: who names another that isn't there is told what is
        near."""
        if kind == TraderPool.KIND:
            return [("pool", *key) for key in self._traders if (kind, key) not in self._uid]
        if kind == MarketFeed.KIND:
            feeds = ((held.key, held.feed) for held in self.all_of(TraderPool.KIND))
            return [("pool", *key) for key, feed in feeds if feed is not None and (kind, feed) not in self._uid]
        return []
