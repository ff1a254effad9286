"""A pool's workers as objects in the cluster: made, kept as they shall be, rolled one at a time, removed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from chandlery.core.errors import ChandleryError
from chandlery.core.manifests import Key
from chandlery.core.resources import TraderPool
from chandlery.core.settings import KafkaSettings
from chandlery.operator.applied import Children, is_owned_by
from chandlery.operator.cache import Dirty
from chandlery.operator.children.naming import POOL_LABEL, Defaults, Object
from chandlery.operator.children.pools import disruption_budget, network_policy, workers_service
from chandlery.operator.children.workers import (
    assignment_name,
    settings_map,
    settings_name,
    token_name,
    token_secret,
    worker_set,
)
from chandlery.operator.kubernetes.api import Kind, RefusedError
from chandlery.operator.kubernetes.follow import Names
from chandlery.operator.kubernetes.kinds import (
    CONFIG_MAP,
    NETWORK_POLICY,
    POD_DISRUPTION_BUDGET,
    SECRET,
    SERVICE,
    STATEFUL_SET,
)
from chandlery.operator.workers import Workers, worker_of

log = logging.getLogger("chandlery.operator.workersets")

#: Writes under way at once for one pool.
_WRITES: Final = 8
#: A worker that isn't Ready may lack its Secret, one that refuses our token may have another's. Secrets are never read:
#: then it is applied again this often.
_SECRET_AGAIN_S: Final = 30.0
#: And of a worker that is well so often: its pod must find the Secret when it starts again. That writes nothing new.
_SECRET_RESYNC_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class _Manifests:
    """A worker's manifests."""

    workload: Object
    settings: Object
    secret: Object


@dataclass(frozen=True, slots=True)
class SetState:
    """Whether a worker's pod is of an older template, and whether what was applied last has been rolled out."""

    outdated: bool
    rolled_out: bool


class WorkerSets:
    """Workers' objects.

    Args:
        mark: have a pool reconciled again, after a delay in seconds.
    """

    def __init__(
        self, children: Children, workers: Workers, defaults: Defaults, mark: Callable[[Dirty, float], None]
    ) -> None:
        self._children = children
        self._workers = workers
        self._defaults = defaults
        self._mark = mark
        self._made: dict[Key, tuple[TraderPool, KafkaSettings, dict[str, _Manifests]]] = {}
        self._failed: dict[Key, dict[str, ChandleryError]] = {}
        self._secret_applied_s: dict[tuple[Key, str], float] = {}
        self._secret_denied_s: dict[tuple[Key, str], float] = {}

    def states(self, pool: TraderPool, names: Iterable[str], kafka: KafkaSettings) -> dict[str, SetState]:
        """How each worker's pod compares with what it is to be."""
        return {name: self._state(pool, name, kafka) for name in names}

    def _state(self, pool: TraderPool, name: str, kafka: KafkaSettings) -> SetState:
        if self._children.seen(STATEFUL_SET, (pool.namespace, name)) is None:
            return SetState(outdated=False, rolled_out=False)
        current = self._children.is_current(STATEFUL_SET, self._manifests(pool, name, kafka).workload)
        return SetState(not current, self._rolled_out(pool, name))

    async def ensure(
        self, pool: TraderPool, names: Sequence[str], kafka: KafkaSettings, to_roll: Collection[str] = ()
    ) -> int:
        """Make what is missing, put right what was changed, bring outdated workers up to date one at a time.

        Args:
            to_roll: the outdated workers from which all Traders have moved that could.

        Returns:
            How many workers still run an older template.

        Raises:
            ChandleryError: not all could be done: a worker's error, a refusal first, once all have been worked on.
        """
        failed = self._failed[pool.key] = {}
        try:
            await self._shared(pool, kafka)
        except ChandleryError as error:
            failed.update(dict.fromkeys(names, error))
            raise
        children = self._children
        manifests = {name: self._manifests(pool, name, kafka) for name in names}
        missing = [name for name in names if children.seen(STATEFUL_SET, (pool.namespace, name)) is None]
        outdated = [
            name
            for name in names
            if name not in missing and not children.is_current(STATEFUL_SET, manifests[name].workload)
        ]

        async def make(name: str) -> None:
            try:
                await self._ensure_secret(pool, name, manifests[name].secret)
                if name in missing:
                    await self._apply(manifests[name])
                elif name not in outdated:
                    await children.ensure(CONFIG_MAP, manifests[name].settings)
            except ChandleryError as error:
                failed[name] = error  # what is refused of one worker holds up no other

        await each(names, make)
        left = await self._roll(pool, names, outdated, manifests, to_roll) if outdated else []
        if errors := [failed[name] for name in names if name in failed]:
            # What is refused stays so until somebody does something; what fails otherwise may pass by itself.
            raise next((error for error in errors if isinstance(error, RefusedError)), errors[0])
        return sum(name in left or self._is_replacing(pool, name) for name in names)

    def unmade(self, key: Key) -> dict[str, RefusedError]:
        """What the API server refused at the last :meth:`ensure`, by the worker that has no StatefulSet for it."""
        failed = self._failed.get(key, {})
        return {
            name: error
            for name, error in failed.items()
            if isinstance(error, RefusedError) and not self._is_made((key[0], name))
        }

    def _is_made(self, names: Names) -> bool:
        # What was applied just now may not be seen yet.
        return (
            self._children.seen(STATEFUL_SET, names) is not None
            or self._children.version_applied(STATEFUL_SET, names) > 0
        )

    def others(self, pool: TraderPool, stay: Collection[str]) -> list[str]:
        """Workers that there are beside those that are to be."""
        there = {
            worker_of(pool, item)
            for kind in (STATEFUL_SET, CONFIG_MAP)
            for item in self._children.of(kind, pool.namespace, {POOL_LABEL: pool.name})
        }
        return sorted((there | set(self._workers.of(pool.key))) - set(stay) - {""})

    async def remove_others(self, pool: TraderPool, stay: Collection[str]) -> None:
        """Remove workers that are not to be. Their pods end in their own time, rings drained.

        Raises:
            ChandleryError: not all could be removed.
        """
        for name in self.others(pool, stay):
            log.info("worker removed", extra={"pool": pool.full_name, "worker": name})
            await self._workers.drop(pool.key, name)
            await self._delete(pool, STATEFUL_SET, name)
            await self._delete(pool, CONFIG_MAP, assignment_name(name))
            await self._delete(pool, CONFIG_MAP, settings_name(name))
            await self._delete_secret(pool, name)

    async def _delete_secret(self, pool: TraderPool, name: str) -> None:
        """Delete a worker's Secret, unless what has its name is somebody else's: Secrets are never read, but one of
        another type can't be applied, and what was applied is known by its uid."""
        names = (pool.namespace, token_name(name))
        try:
            if not self._children.uid_applied(SECRET, names):
                await self._children.apply(SECRET, token_secret(pool, name, self._workers.token(pool, name)))
        except RefusedError as error:
            log.warning("Secret left: it isn't ours", extra={"pool": pool.full_name, "problem": str(error)})
            return
        await self._children.delete(SECRET, *names)

    async def _delete(self, pool: TraderPool, kind: Kind, name: str) -> None:
        """Delete a child, unless what has its name is somebody else's. One not seen yet goes when it is."""
        item = self._children.seen(kind, (pool.namespace, name))
        if item is not None and is_owned_by(item, pool):
            await self._children.delete(kind, pool.namespace, name)

    def forget(self, key: Key) -> None:
        """A pool is gone; Kubernetes removes its children, which are its own."""
        self._made.pop(key, None)
        self._failed.pop(key, None)
        for when_s in (self._secret_applied_s, self._secret_denied_s):
            for one in [one for one in when_s if one[0] == key]:
                del when_s[one]

    async def _shared(self, pool: TraderPool, kafka: KafkaSettings) -> None:
        await self._children.ensure(SERVICE, workers_service(pool, self._defaults))
        await self._children.ensure(POD_DISRUPTION_BUDGET, disruption_budget(pool))
        await self._children.ensure(NETWORK_POLICY, network_policy(pool, kafka.bootstrap, self._defaults))

    def _manifests(self, pool: TraderPool, name: str, kafka: KafkaSettings) -> _Manifests:
        """The worker's manifests, made once for as long as pool and Kafka stay the same."""
        known = self._made.get(pool.key)
        if known is None or known[0] is not pool or known[1] != kafka:
            known = self._made[pool.key] = (pool, kafka, {})
        if name not in known[2]:
            known[2][name] = _Manifests(
                worker_set(pool, name, kafka, self._defaults),
                settings_map(pool, name, kafka, self._defaults),
                token_secret(pool, name, self._workers.token(pool, name)),
            )
        return known[2][name]

    async def _ensure_secret(self, pool: TraderPool, name: str, secret: Object) -> None:
        key, now_s = (pool.key, name), time.monotonic()
        link = self._workers.of(pool.key).get(name)
        is_denied = link is not None and link.denied
        is_doubtful = is_denied or (link is not None and not link.is_ready)
        last_s = (self._secret_denied_s if is_denied else self._secret_applied_s).get(key, float("-inf"))
        is_due = now_s - last_s > (_SECRET_AGAIN_S if is_doubtful else _SECRET_RESYNC_S)
        if is_due or not self._children.is_current(SECRET, secret):
            await self._children.apply(SECRET, secret)
            self._secret_applied_s[key] = now_s
            if is_denied:
                self._secret_denied_s[key] = now_s
        if is_doubtful:
            self._mark(("pool", *pool.key), _SECRET_AGAIN_S)

    async def _apply(self, manifests: _Manifests) -> None:
        await self._children.ensure(CONFIG_MAP, manifests.settings)
        await self._children.ensure(STATEFUL_SET, manifests.workload)

    async def _roll(
        self,
        pool: TraderPool,
        names: Sequence[str],
        outdated: list[str],
        manifests: dict[str, _Manifests],
        to_roll: Collection[str],
    ) -> list[str]:
        links, failed = self._workers.of(pool.key), self._failed[pool.key]
        # One whose Secret could not be written keeps its pod, which has one.
        able = [name for name in outdated if name not in failed]
        # One that isn't Ready has nothing to lose; of the others one, once all the rest is up and rolled out and its
        # Traders have moved where there was room.
        idle = [name for name in able if not links[name].is_ready]
        # What can't be made waits for somebody: nothing of it comes up while another is down.
        unmade = self.unmade(pool.key)
        sound = all(links[name].is_ready and self._rolled_out(pool, name) for name in names if name not in unmade)
        emptied = [name for name in able if name in to_roll][:1]
        for name in idle or (emptied if sound else []):
            try:
                await self._apply(manifests[name])
            except ChandleryError as error:
                failed[name] = error
                continue
            log.info("worker rolled", extra={"pool": pool.full_name, "worker": name})
            outdated.remove(name)
        if outdated and not failed:  # else it is repeated anyway, ever later
            self._mark(("pool", *pool.key), 1.0)
        return outdated

    def _is_replacing(self, pool: TraderPool, name: str) -> bool:
        """Whether a worker's newest template is told, and its pod still of the one before."""
        names = (pool.namespace, name)
        item = self._children.seen(STATEFUL_SET, names)
        if item is None or "observedGeneration" not in item.get("status", {}):
            return False  # it is new, and has no other
        generation, status = int(item["metadata"]["generation"]), item["status"]
        if (
            generation < self._children.version_applied(STATEFUL_SET, names)
            or status["observedGeneration"] < generation
        ):
            return True
        return bool(status.get("currentRevision") != status.get("updateRevision") and not status.get("updatedReplicas"))

    def _rolled_out(self, pool: TraderPool, name: str) -> bool:
        names = (pool.namespace, name)
        item = self._children.seen(STATEFUL_SET, names)
        if item is None or int(item["metadata"]["generation"]) < self._children.version_applied(STATEFUL_SET, names):
            return False
        status = item.get("status", {})
        current = status.get("observedGeneration") == item["metadata"]["generation"]
        return bool(current and status.get("updatedReplicas", 0) >= 1 and status.get("readyReplicas", 0) >= 1)


async def each(items: Sequence[Any], work: Callable[[Any], Awaitable[Any]]) -> None:
    """Work on all, a few at a time; raises the first error when all are through."""
    gate = asyncio.Semaphore(_WRITES)

    async def one(item: Any) -> None:
        async with gate:
            await work(item)

    outcomes = await asyncio.gather(*(one(item) for item in items), return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
