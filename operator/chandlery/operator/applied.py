"""Children in the cluster: what was applied, what is there, and applying again what somebody changed or deleted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from chandlery.operator.cache import Dirty
from chandlery.operator.children.naming import (
    CONTENT,
    FEED_LABEL,
    MANAGED_BY,
    OPERATOR,
    POOL_LABEL,
    Object,
    Owner,
    content_of,
    digest_of,
)
from chandlery.operator.covering import covers
from chandlery.operator.kubernetes.api import Kind, Page, RefusedError
from chandlery.operator.kubernetes.follow import Followed, Names
from chandlery.operator.kubernetes.kinds import SECRET

log = logging.getLogger("chandlery.operator.children")


class Cluster(Protocol):
    """What of the API server is needed."""

    async def apply(self, kind: Kind, body: Object, *, subresource: str = "") -> Object: ...
    async def list(
        self, kind: Kind, namespace: str = "", *, selector: str = "", fields: str = "", metadata_only: bool = False
    ) -> Page: ...
    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str = "") -> None: ...


@dataclass(frozen=True, slots=True)
class _Applied:
    """What we wrote last: digest of the manifest, the version that made, and of which object; digest ``""``: again."""

    digest: str
    version: int
    uid: str = ""


class Children:
    """The operator's children.

    Args:
        marked: called with what must be reconciled when a child changes by somebody else's hand, or its status does.
    """

    def __init__(self, api: Cluster, marked: Callable[[Dirty], None]) -> None:
        self.writes = 0
        self._api = api
        self._marked = marked
        self._applied: dict[tuple[Kind, Names], _Applied] = {}
        self._followed: dict[Kind, list[Followed]] = {}

    def follow(self, followed: Followed) -> None:
        """Know what is there of one kind (several times: in several namespaces)."""
        self._followed.setdefault(followed.kind, []).append(followed)

    def seen(self, kind: Kind, names: Names) -> Object | None:
        """A child as it was last seen; None: not there, or not followed."""
        for followed in self._followed.get(kind, ()):
            if names in followed.objects:
                return followed.objects[names]
        return None

    def _seen_whole(self, kind: Kind, names: Names) -> Object | None:
        """A child as it was last seen with all that it says; None: not there, or only its metadata is followed."""
        is_whole = not any(followed.metadata_only for followed in self._followed.get(kind, ()))
        return self.seen(kind, names) if is_whole else None

    def of(self, kind: Kind, namespace: str, labels: Mapping[str, str]) -> list[Object]:
        """Children of a kind in a namespace that have these labels."""
        return [
            item
            for followed in self._followed.get(kind, ())
            for (where, _), item in followed.objects.items()
            if where == namespace and labels.items() <= labels_of(item).items()
        ]

    def is_current(self, kind: Kind, body: Object) -> bool:
        """Whether this very manifest is what was applied last, and nobody changed that since."""
        names, digest = (body["metadata"]["namespace"], body["metadata"]["name"]), _digest(body)
        known = self._applied.get((kind, names))
        if known is None:
            # An operator before us may have applied it, and nobody changed it while none ran: nothing need be written.
            seen = self._seen_whole(kind, names)
            if seen is None or content_of(seen) != digest or not covers(seen, body):
                return False
            self._applied[kind, names] = _Applied(digest, version_of(seen), uid_of(seen))
            return True
        return known.digest == digest

    async def ensure(self, kind: Kind, body: Object) -> bool:
        """Apply a manifest unless it is applied already; returns whether it was written.

        Raises:
            ChandleryError: not written.
        """
        if self.is_current(kind, body):
            return False
        await self.apply(kind, body)
        return True

    async def apply(self, kind: Kind, body: Object, *, over_anothers: bool = False) -> Object:
        """Apply a manifest; raises as :meth:`ensure`.

        Args:
            over_anothers: also where somebody else's object of that name is.
        """
        names = (body["metadata"]["namespace"], body["metadata"]["name"])
        if not over_anothers and self.seen(kind, names) is None and not self.version_applied(kind, names):
            await self._refuse_anothers(kind, body)
        answer = await self._api.apply(kind, body)
        self.writes += 1
        self._applied[kind, names] = _Applied(_digest(body), version_of(answer), uid_of(answer))
        return answer

    async def _refuse_anothers(self, kind: Kind, body: Object) -> None:
        """Look whether what is about to be made is there, and somebody else's: applying would overwrite it, and have it
        deleted with our resource. Only what wears our label is followed. Secrets are never read: their type refuses it.

        Raises:
            RefusedError: it is. ChandleryError: that can't be asked now.
        """
        if kind == SECRET:
            return
        namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
        page = await self._api.list(kind, namespace, fields=f"metadata.name={name}", metadata_only=True)
        owners = {one["uid"] for one in body["metadata"]["ownerReferences"]}
        for item in page.items:
            owned_by = {one.get("uid") for one in item["metadata"].get("ownerReferences") or ()}
            if labels_of(item).get(MANAGED_BY) != OPERATOR and not owners & owned_by:
                raise RefusedError(
                    f"{kind.name} {namespace}/{name} is there and isn't the operator's (it has no label {MANAGED_BY}: "
                    f"{OPERATOR}), so it is left as it is: delete it, or give it or our resource another name"
                )

    async def delete(self, kind: Kind, namespace: str, name: str) -> None:
        """Delete a child: the very object that was applied or seen last; raises as :meth:`ensure`."""
        seen = self.seen(kind, (namespace, name))
        uid = uid_of(seen) if seen is not None else self.uid_applied(kind, (namespace, name))
        await self._api.delete(kind, namespace, name, uid=uid)
        self._applied.pop((kind, (namespace, name)), None)

    def uid_applied(self, kind: Kind, names: Names) -> str:
        """Uid of the object that our last write made or changed; empty: none known."""
        known = self._applied.get((kind, names))
        return known.uid if known is not None else ""

    def version_applied(self, kind: Kind, names: Names) -> int:
        """Version that our last write made; 0: none known."""
        known = self._applied.get((kind, names))
        return known.version if known is not None else 0

    def note_version(self, kind: Kind, names: Names, version: int) -> None:
        """Another version stands there than was thought; 0: nothing does. Apply again."""
        self._applied[kind, names] = _Applied("", version)

    def changed(
        self, kind: Kind, drifted: Callable[[Names, Object | None], None] | None = None
    ) -> Callable[[Names, Object | None, Object | None], None]:
        """What a :class:`Followed` of this kind calls.

        Args:
            drifted: called when somebody else changed or deleted what we, or an operator before us, had applied.
        """

        def note(names: Names, before: Object | None, now: Object | None) -> None:
            known = self._applied.get((kind, names))
            if known is not None and (now is None or _is_others_work(now, known)):
                self._applied[kind, names] = _Applied("", version_of(now) if now is not None else 0)
                if drifted is not None:
                    drifted(names, now)
            elif known is None and before is not None and drifted is not None:
                drifted(names, now)  # an operator before this one applied it
            item = now if now is not None else before
            dirty = owner_of(item) if item is not None else None
            if dirty is not None:
                self._marked(dirty)

        return note


def _is_others_work(now: Object, known: _Applied) -> bool:
    version = version_of(now)
    # Labels and annotations don't count as a generation; the digest among them tells of the rest.
    return version > known.version or bool(
        known.digest and version == known.version and content_of(now) != known.digest
    )


def _digest(body: Object) -> str:
    return str(body["metadata"].get("annotations", {}).get(CONTENT, "")) or digest_of(body)


def version_of(item: Mapping[str, Any]) -> int:
    """What grows when somebody changes what an object is to be: the generation, else the resource version."""
    meta = item["metadata"]
    return int(meta.get("generation") or meta["resourceVersion"])


def uid_of(item: Mapping[str, Any]) -> str:
    """Uid of an object; empty: it has none."""
    return str(item["metadata"].get("uid", ""))


def labels_of(item: Mapping[str, Any]) -> dict[str, str]:
    """Labels of an object."""
    return item["metadata"].get("labels") or {}


def is_owned_by(item: Mapping[str, Any], owner: Owner) -> bool:
    """Whether an object is a child of this very resource, not of an earlier one of its name."""
    return any(one.get("uid") == owner.identity for one in item["metadata"].get("ownerReferences") or ())


def owner_of(item: Mapping[str, Any]) -> Dirty | None:
    """What must be reconciled when this child changes."""
    labels, namespace = labels_of(item), item["metadata"].get("namespace", "")
    if POOL_LABEL in labels:
        return ("pool", namespace, labels[POOL_LABEL])
    if FEED_LABEL in labels:
        return ("feed", namespace, labels[FEED_LABEL])
    return None
