"""The workers that there are: a link to each, made from what stands in the cluster, kept as pods come and go."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

import aiohttp
import msgspec

from chandlery.core.assignment import MOST_SEQUENCE, Assignment, content_hash, decode_assignment, unsound
from chandlery.core.manifests import Key
from chandlery.core.resources import TraderPool
from chandlery.operator.applied import Children, is_owned_by, labels_of
from chandlery.operator.cache import Cache, Dirty, Held
from chandlery.operator.children.naming import POOL_LABEL, WORKER_LABEL, Object, Owner, UnreadPool
from chandlery.operator.children.workers import ASSIGNMENT_KEY, assignment_map, assignment_name, token_of
from chandlery.operator.kubernetes.api import GoneError, KubeApi, StaleError
from chandlery.operator.kubernetes.follow import Names
from chandlery.operator.kubernetes.kinds import CONFIG_MAP, POD
from chandlery.operator.planner import worker_name
from chandlery.operator.planner_standing import has_known_intervals
from chandlery.operator.workerlink import PodEndpoint, WorkerLink

log = logging.getLogger("chandlery.operator.workers")

WorkerKey = tuple[Key, str]
"""Pool and name of a worker."""


class Workers:
    """Links to every worker.

    Args:
        token_key: what workers' tokens are derived from. port: of their API. marked: called with a pool that must be reconciled.
        ended: called with a link's task that has ended; one that failed must not go unnoticed.
    """

    def __init__(
        self,
        api: KubeApi,
        cache: Cache,
        children: Children,
        session: aiohttp.ClientSession,
        token_key: bytes,
        port: int,
        marked: Callable[[Dirty], None],
        ended: Callable[[asyncio.Task[None]], None],
    ) -> None:
        self._api = api
        self._cache = cache
        self._children = children
        self._session = session
        self._token_key = token_key
        self._port = port
        self._marked = marked
        self._ended = ended
        self._links: dict[WorkerKey, WorkerLink] = {}
        self._unsound: dict[WorkerKey, str] = {}

    def token(self, pool: Owner, worker: str) -> str:
        """The token of a worker's API."""
        return token_of(self._token_key, pool, worker)

    def of(self, pool: Key) -> dict[str, WorkerLink]:
        """Links of a pool's workers by name."""
        return {name: link for (owner, name), link in self._links.items() if owner == pool}

    def unsound(self, pool: Key) -> dict[str, str]:
        """Which of a pool's kept assignments nobody could go by, and why, since this was asked last, by worker."""
        found = {name: why for (owner, name), why in self._unsound.items() if owner == pool}
        for name in found:
            del self._unsound[pool, name]
        return found

    def all(self) -> Mapping[WorkerKey, WorkerLink]:
        """Every link."""
        return self._links

    def adopt(self) -> list[tuple[Key, Assignment]]:
        """Take over the workers that stand in the cluster: their assignments go on from what is kept.

        Returns:
            What they are assigned, by pool.
        """
        for held in self._cache.all_of(TraderPool.KIND):
            pool = _owner(held)
            for item in self._children.of(CONFIG_MAP, pool.namespace, {POOL_LABEL: pool.name}):
                name = worker_of(pool, item)
                if not name:
                    log.warning(
                        "not this pool's, whatever its labels say", extra={"pool": pool.full_name, **_named(item)}
                    )
                elif item["metadata"]["name"] == assignment_name(name):
                    there, wrong = _read(item, name)
                    link = self.link(pool, name, None if wrong else there)
                    if wrong:
                        # Nothing is told to the worker before its Traders are planned: it may well run what it shall.
                        self._unsound[pool.key, name] = wrong
                        link.delivery.least_sequence = there.sequence + 1
                    _tell_of_unknown_intervals(there)
        return [(pool, link.delivery.assignment) for (pool, _), link in self._links.items()]

    def link(self, pool: Owner, name: str, assignment: Assignment | None = None) -> WorkerLink:
        """The link to a worker; made if there is none.

        Args:
            assignment: the newest that is kept for it; None: nothing is.
        """
        found = self._links.get((pool.key, name))
        if found is not None:
            return found
        endpoint = PodEndpoint(self._session, lambda: self._token(pool.key, name), self._port)

        async def keep(wanted: Assignment) -> None:
            await self._keep(pool.key, link, wanted)

        link = WorkerLink(
            assignment or Assignment(name, 0, content_hash([]), []),
            endpoint,
            keep,
            lambda: self._marked(("pool", *pool.key)),
            self._ended,
        )
        self._links[pool.key, name] = link
        pod = self._children.seen(POD, (pool.namespace, f"{name}-0"))
        if pod is not None:
            link.pod_changed(pod)
        link.start()
        return link

    async def drop(self, pool: Key, name: str) -> None:
        """Let go of a worker."""
        link = self._links.pop((pool, name), None)
        if link is not None:
            await link.stop()

    async def close(self) -> None:
        """Let go of all."""
        for key in list(self._links):
            await self.drop(*key)

    def pod_changed(self, names: Names, before: Object | None, now: Object | None) -> None:
        """Called for every change of a worker's pod."""
        labels = labels_of(now or before or {"metadata": {}})
        link = self._links.get(((names[0], labels.get(POOL_LABEL, "")), labels.get(WORKER_LABEL, "")))
        # Labels alone make no worker: what is told to it carries its token.
        if link is not None and names[1] == f"{link.name}-0":
            link.pod_changed(now)

    def assignment_changed(self, names: Names, now: Object | None) -> None:
        """Called when an assignment's ConfigMap changed by another's hand, or went: it is written again, above it."""
        labels = labels_of(now) if now is not None else {}
        for (pool, name), link in self._links.items():
            if (pool[0], assignment_name(name)) != names:
                continue
            there, wrong = _read(now, name) if now is not None and labels.get(WORKER_LABEL) == name else (None, "")
            if there is not None and not wrong and there == link.delivery.assignment:
                continue  # our own write, seen before its answer came
            if wrong:
                self._unsound[pool, name] = wrong
            if there is not None:
                link.delivery.above(there.sequence)
            link.delivery.keep_again()

    def _token(self, pool: Key, name: str) -> str:
        held = self._cache.get(TraderPool.KIND, pool)
        return self.token(_owner(held), name) if held is not None else ""

    async def _keep(self, key: Key, link: WorkerLink, assignment: Assignment) -> None:
        held = self._cache.get(TraderPool.KIND, key)
        if held is None:
            raise GoneError(f"TraderPool {'/'.join(key)} is gone")
        body = assignment_map(_owner(held), assignment)
        names = (key[0], assignment_name(link.name))
        if self._children.is_current(CONFIG_MAP, body):
            return
        version = self._children.version_applied(CONFIG_MAP, names) or _version(self._children.seen(CONFIG_MAP, names))
        if version:
            body["metadata"]["resourceVersion"] = str(version)
        try:
            # A worker that comes back alone runs what stands there: it mustn't be somebody else's.
            await self._children.apply(CONFIG_MAP, body, over_anothers=True)
        except (StaleError, GoneError):
            await self._look(names, link)
            raise

    async def _look(self, names: Names, link: WorkerLink) -> None:
        """See what stands there instead, and go above it."""
        try:
            there = await self._api.get(CONFIG_MAP, *names)
        except GoneError:
            self._children.note_version(CONFIG_MAP, names, 0)
            return
        self._children.note_version(CONFIG_MAP, names, int(there["metadata"]["resourceVersion"]))
        link.delivery.above(_read(there, link.name)[0].sequence)


def _owner(pool: Held) -> Owner:
    return pool.resource if isinstance(pool.resource, TraderPool) else UnreadPool(pool.key, pool.uid)


def worker_of(pool: Owner, item: Object) -> str:
    """Name of the worker of this pool that a child belongs to; empty: none, whatever its labels say.

    Anybody who may create a ConfigMap may put our labels on it: the child must be owned by this very pool, and its
    worker be named as the pool's workers are.
    """
    name = labels_of(item).get(WORKER_LABEL, "")
    number = name.removeprefix(f"{pool.name}-")
    is_named_so = number.isascii() and number.isdecimal() and name == worker_name(pool.name, int(number))
    return name if is_named_so and is_owned_by(item, pool) else ""


def _named(item: Object) -> dict[str, str]:
    return {"configmap": item["metadata"]["name"], "worker": labels_of(item).get(WORKER_LABEL, "")}


def _tell_of_unknown_intervals(kept: Assignment) -> None:
    for one in kept.traders:
        if not has_known_intervals(one):
            log.warning(
                "a trader reads an interval that this version doesn't know; it ends once its pool is planned",
                extra={
                    "worker": kept.worker,
                    "trader": one.key,
                    "series": [msgspec.to_builtins(each) for each in one.series()],
                },
            )


def _version(item: Object | None) -> int:
    return int(item["metadata"]["resourceVersion"]) if item is not None else 0


def _read(item: Object, worker: str) -> tuple[Assignment, str]:
    """The assignment in a ConfigMap, and why nobody may go by it (empty: nothing is wrong with it).

    One that is wrong counts as none. Its sequence stays, so that what replaces it is above it, for whoever takes it.
    """
    sequence = 0
    try:
        found = decode_assignment(item["data"][ASSIGNMENT_KEY])
        wrong = unsound(found, worker)
        sequence = found.sequence if 0 <= found.sequence < MOST_SEQUENCE else 0
    except (KeyError, TypeError, msgspec.DecodeError) as error:
        wrong = f"unreadable: {type(error).__name__}"
    if not wrong:
        return found, ""
    log.warning("kept assignment is not to be gone by", extra={"worker": worker, "problem": wrong})
    return Assignment(worker, sequence, content_hash([]), []), wrong
