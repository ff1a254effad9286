"""Reconciling a pool: plan it, make its workers what the plan says, say what has become of it and its Traders."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from chandlery.core.assignment import TraderAssignment
from chandlery.core.errors import ChandleryError, InputError
from chandlery.core.manifests import Key
from chandlery.core.resources import MarketFeed, Trader, TraderPool
from chandlery.core.settings import KafkaSettings
from chandlery.operator.applied import Children, labels_of
from chandlery.operator.cache import Cache, Dirty, Held
from chandlery.operator.children.naming import POOL_LABEL, WORKER_LABEL, Defaults, Object
from chandlery.operator.children.pools import disruption_budget, network_policy, workers_service
from chandlery.operator.children.workers import (
    assignment_name,
    settings_map,
    settings_name,
    token_name,
    token_secret,
    worker_set,
)
from chandlery.operator.conditions import (
    State,
    WorkerView,
    pool_state,
    pool_status,
    trader_state,
    trader_status,
)
from chandlery.operator.events import Events
from chandlery.operator.kubernetes.kinds import (
    CONFIG_MAP,
    NETWORK_POLICY,
    POD_DISRUPTION_BUDGET,
    SECRET,
    SERVICE,
    STATEFUL_SET,
    TRADER,
    TRADER_POOL,
)
from chandlery.operator.planning import Planned, PoolPlanner
from chandlery.operator.settings_of import kafka_settings
from chandlery.operator.sources import Sources
from chandlery.operator.statuses import Statuses
from chandlery.operator.workerlink import WorkerLink, now_ms
from chandlery.operator.workers import Workers

log = logging.getLogger("chandlery.operator.pools")

#: After a start the workers that are there get this long to tell their catalogue, which decides what may run.
_CATALOGUE_WAIT_S: Final = 10.0
_LOOK_AGAIN_S: Final = 0.3
#: Status writes under way at once for one pool.
_WRITES: Final = 8


@dataclass(frozen=True, slots=True)
class Tools:
    """What reconciling uses.

    Attributes:
        namespaces: labels by namespace. unknown_symbols: by feed, what its exchange says it doesn't have.
        mark: have something reconciled, after a delay in seconds.
    """

    cache: Cache
    children: Children
    workers: Workers
    planner: PoolPlanner
    statuses: Statuses
    events: Events
    sources: Sources
    defaults: Defaults
    namespaces: Callable[[], Mapping[str, Mapping[str, str]]]
    unknown_symbols: Callable[[Key], Sequence[str]]
    mark: Callable[[Dirty, float], None]


class Pools:
    """Reconciles pools, each by its key, whether it exists or is only named by Traders."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._began_s = time.monotonic()
        self._catalogues: dict[Key, list[dict[str, Any]]] = {}
        self._problems: dict[Key, str] = {}

    async def reconcile(self, key: Key) -> None:
        """Bring one pool to what it shall be, as far as that can be done now; marks it when it must be looked at again.

        Raises:
            ChandleryError: something could not be done; it is repeated.
        """
        tools = self._tools
        dirty: Dirty = ("pool", *key)
        held = tools.cache.get(TraderPool.KIND, key)
        links = tools.workers.of(key)
        if held is None:
            await self._forget(key, links)
        catalogue = self._catalogue(key, links)
        if catalogue is None and self._may_still_tell(links):
            tools.mark(dirty, 0.2)
            return
        traders = [one.resource for one in tools.cache.traders_of(key) if isinstance(one.resource, Trader)]
        configmaps = await tools.sources.of(traders)
        planned = tools.planner.plan(
            key,
            {name: link.now() for name, link in links.items()},
            configmaps=configmaps,
            namespaces=tools.namespaces(),
            catalogue=catalogue,
            now_ms=now_ms(),
        )
        failure: ChandleryError | None = None
        outdated = 0
        if held is not None and isinstance(held.resource, TraderPool) and planned.pool is not None:
            try:
                outdated = await self._carry_out(held.resource, planned)
                self._problems.pop(key, None)
            except InputError as error:
                # Refused by the API server: nothing helps but a change, and the status must say so.
                self._problems[key] = str(error)
                failure = error
            except ChandleryError as error:
                failure = error
        if planned.again_ms is not None:
            tools.mark(dirty, max(0.05, (planned.again_ms - now_ms()) / 1000))
        await self._say(key, held, planned, outdated)
        if failure is not None:
            raise failure

    # Workers ------------------------------------------------------------------------------------------------

    async def _carry_out(self, pool: TraderPool, planned: Planned) -> int:
        """Make the pool's children and deliver its assignments; returns how many workers run an older template."""
        tools, made = self._tools, planned.pool
        assert made is not None
        if made.feed is None:
            if made.reason == "NotAllowed":
                await self._remove_others(pool, set())
            return 0  # a feed that is gone may come back: what runs, runs on
        feed = tools.cache.get(MarketFeed.KIND, made.feed)
        assert feed is not None
        assert isinstance(feed.resource, MarketFeed)
        tools.mark(("feed", *made.feed), 0.05)
        kafka = kafka_settings(feed.resource, tools.defaults.kafka)
        for name, assignment in made.workers.items():
            tools.workers.link(pool, name).want(assignment)
        if not kafka.bootstrap:
            return 0
        await self._shared(pool, kafka)
        outdated = await self._sets(pool, list(made.workers), kafka)
        await self._remove_others(pool, set(made.workers))
        return outdated

    async def _shared(self, pool: TraderPool, kafka: KafkaSettings) -> None:
        children = self._tools.children
        await children.ensure(SERVICE, workers_service(pool, self._tools.defaults))
        await children.ensure(POD_DISRUPTION_BUDGET, disruption_budget(pool))
        await children.ensure(NETWORK_POLICY, network_policy(pool, kafka.bootstrap, self._tools.defaults))

    async def _sets(self, pool: TraderPool, names: list[str], kafka: KafkaSettings) -> int:
        """Make missing workers; bring outdated ones up to date, one at a time."""
        children, defaults = self._tools.children, self._tools.defaults
        bodies = {name: worker_set(pool, name, kafka, defaults) for name in names}
        missing = [name for name in names if children.seen(STATEFUL_SET, (pool.namespace, name)) is None]
        await _each(missing, lambda name: self._make(pool, name, bodies[name], kafka))
        outdated = [
            name for name in names if name not in missing and not children.is_current(STATEFUL_SET, bodies[name])
        ]
        if not outdated:
            return 0
        links = self._tools.workers.of(pool.key)
        # One that isn't Ready has nothing to lose; of the others the first, once all the rest is up and rolled out.
        idle = [name for name in outdated if not links[name].is_ready]
        sound = all(links[name].is_ready and self._rolled_out(pool, name) for name in names)
        for name in idle or (outdated[:1] if sound else []):
            log.info("worker rolled", extra={"pool": pool.full_name, "worker": name})
            await self._make(pool, name, bodies[name], kafka)
            outdated.remove(name)
        if outdated:
            self._tools.mark(("pool", *pool.key), 1.0)
        return len(outdated)

    def _rolled_out(self, pool: TraderPool, name: str) -> bool:
        children, names = self._tools.children, (pool.namespace, name)
        item = children.seen(STATEFUL_SET, names)
        if item is None or int(item["metadata"]["generation"]) < children.version_applied(STATEFUL_SET, names):
            return False
        status = item.get("status", {})
        current = status.get("observedGeneration") == item["metadata"]["generation"]
        return bool(current and status.get("updatedReplicas", 0) >= 1 and status.get("readyReplicas", 0) >= 1)

    async def _make(self, pool: TraderPool, name: str, body: Object, kafka: KafkaSettings) -> None:
        tools = self._tools
        await tools.children.ensure(SECRET, token_secret(pool, name, tools.workers.token(pool, name)))
        await tools.children.ensure(CONFIG_MAP, settings_map(pool, name, kafka, tools.defaults))
        await tools.children.ensure(STATEFUL_SET, body)

    async def _remove_others(self, pool: TraderPool, stay: set[str]) -> None:
        """Remove workers that are not to be. Their pods end in their own time, rings drained."""
        children = self._tools.children
        there = {
            labels_of(item).get(WORKER_LABEL, "")
            for kind in (STATEFUL_SET, CONFIG_MAP)
            for item in children.of(kind, pool.namespace, {POOL_LABEL: pool.name})
        }
        for name in sorted((there | set(self._tools.workers.of(pool.key))) - stay - {""}):
            log.info("worker removed", extra={"pool": pool.full_name, "worker": name})
            await self._tools.workers.drop(pool.key, name)
            await children.delete(STATEFUL_SET, pool.namespace, name)
            await children.delete(CONFIG_MAP, pool.namespace, assignment_name(name))
            await children.delete(CONFIG_MAP, pool.namespace, settings_name(name))
            await children.delete(SECRET, pool.namespace, token_name(name))

    async def _forget(self, key: Key, links: Mapping[str, WorkerLink]) -> None:
        """The pool isn't there: Kubernetes removes its children, which are its own."""
        for name in links:
            await self._tools.workers.drop(key, name)
        self._catalogues.pop(key, None)
        self._problems.pop(key, None)
        self._tools.planner.forget(key)

    # Catalogue ----------------------------------------------------------------------------------------------

    def _catalogue(self, key: Key, links: Mapping[str, WorkerLink]) -> list[dict[str, Any]] | None:
        """The newest that a worker has told; None: none has."""
        for name in sorted(links):
            status = links[name].status
            if status is not None and status.catalogue:
                self._catalogues[key] = status.catalogue
                break
        return self._catalogues.get(key)

    def _may_still_tell(self, links: Mapping[str, WorkerLink]) -> bool:
        # Planning without the catalogue would give a bad edit to workers that run the version before it.
        young = time.monotonic() - self._began_s < _CATALOGUE_WAIT_S
        return young and any(link.is_ready and link.delivery.assignment.traders for link in links.values())

    # Statuses -----------------------------------------------------------------------------------------------

    async def _say(self, key: Key, held: Held | None, planned: Planned, outdated: int) -> None:
        tools, now = self._tools, timestamp()
        views = {name: link.view() for name, link in tools.workers.of(key).items()}
        assigned = {
            trader.trader: trader
            for link in tools.workers.of(key).values()
            for trader in link.delivery.assignment.traders
        }
        feed = planned.pool.feed if planned.pool is not None else None
        unknown = tools.unknown_symbols(feed) if feed is not None else ()
        traders = tools.cache.traders_of(key)
        await _each(traders, lambda one: self._say_trader(one, planned, views, assigned, unknown, now))
        if held is not None:
            workers = [views[name] for name in planned.pool.workers if name in views] if planned.pool else []
            state = pool_state(held, planned.pool, workers, outdated, self._problems.get(key, ""))
            status = pool_status(held, state, planned.pool, workers, outdated, now)
            await self._write(TRADER_POOL, held, state, status, ("pool", *key))

    async def _say_trader(
        self,
        held: Held,
        planned: Planned,
        views: Mapping[str, WorkerView],
        assigned: Mapping[str, TraderAssignment],
        unknown: Sequence[str],
        now: str,
    ) -> None:
        name = "/".join(held.key)
        verdict = planned.verdicts.get(name)
        view = views.get(verdict.worker) if verdict is not None and verdict.worker is not None else None
        state = trader_state(held, verdict, view, unknown)
        status = trader_status(held, state, verdict, assigned.get(name), view, now)
        pool = held.pool or ("", "")
        await self._write(TRADER, held, state, status, ("pool", *pool))

    async def _write(self, kind: Any, held: Held, state: State, status: Any, dirty: Dirty) -> None:
        statuses = self._tools.statuses
        wait_s = statuses.wait_s(held, status)
        if wait_s is None:
            return
        if wait_s > 0:
            self._tools.mark(dirty, wait_s)
            return
        try:
            outcome = await statuses.write(kind, held, status)
        except ChandleryError:
            self._tools.mark(dirty, 1.0)
            raise
        if outcome == "stale":
            self._tools.mark(dirty, _LOOK_AGAIN_S)
        elif outcome == "gone":
            for one in self._tools.cache.drop(held.uid):
                self._tools.mark(one, _LOOK_AGAIN_S)
        elif outcome == "written":
            await self._tools.events.tell_state(held, state)


async def _each(items: Sequence[Any], work: Callable[[Any], Any]) -> None:
    """Work on all, a few at a time; raises the first error when all are through."""
    gate = asyncio.Semaphore(_WRITES)

    async def one(item: Any) -> None:
        async with gate:
            await work(item)

    outcomes = await asyncio.gather(*(one(item) for item in items), return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome


def timestamp() -> str:
    """Now, as statuses write it: RFC 3339, UTC, whole seconds."""
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
