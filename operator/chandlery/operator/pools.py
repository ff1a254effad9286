"""Reconciling a pool: plan it, make its workers what the plan says, say what has become of it and its Traders."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from chandlery.core.assignment import Assignment, TraderAssignment
from chandlery.core.assignment import TraderStatus as Reported
from chandlery.core.errors import ChandleryError, InputError, UnavailableError
from chandlery.core.feed_kafka import kafka_settings
from chandlery.core.manifests import Key
from chandlery.core.resources import MarketFeed, Trader, TraderPool
from chandlery.core.settings import KafkaSettings
from chandlery.operator.applied import Children
from chandlery.operator.cache import Cache, Dirty, Held
from chandlery.operator.changes import changes_to_tell
from chandlery.operator.children.naming import Defaults
from chandlery.operator.conditions import (
    PodRefusal,
    State,
    WorkerView,
    no_kafka,
    pool_state,
    pool_status,
    trader_state,
    trader_status,
)
from chandlery.operator.events import Events
from chandlery.operator.kubernetes.kinds import (
    STATEFUL_SET,
    TRADER,
    TRADER_POOL,
)
from chandlery.operator.planner import PoolPlan, Verdict, WorkerNow
from chandlery.operator.planner_standing import told_of
from chandlery.operator.planning import Planned, PoolPlanner
from chandlery.operator.refusals import Refusals, refusal_to_make
from chandlery.operator.settings_of import is_paced
from chandlery.operator.sources import Sources, named_by
from chandlery.operator.statuses import Statuses
from chandlery.operator.troubles import Troubles
from chandlery.operator.workerlink import WorkerLink, now_ms, wall_ms
from chandlery.operator.workers import Workers
from chandlery.operator.workersets import WorkerSets, each

log = logging.getLogger("chandlery.operator.pools")

#: After a start the workers that are there get this long to tell their catalogue, which decides what may run.
_CATALOGUE_WAIT_S: Final = 10.0
_LOOK_AGAIN_S: Final = 0.3
#: A status whose event waits is looked at again after this long; the event is tried again by itself.
UNTOLD_S: Final = 1.0
#: Assignments are kept within milliseconds; a push that a worker doesn't answer holds back the next for 2 s.
_KEPT_WAIT_S: Final = 3.0


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
    refusals: Refusals
    defaults: Defaults
    namespaces: Callable[[], Mapping[str, Mapping[str, str]]]
    unknown_symbols: Callable[[Key], Sequence[str]]
    mark: Callable[[Dirty, float], None]


class Pools:
    """Reconciles pools, each by its key, whether it exists or is only named by Traders."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._sets = WorkerSets(tools.children, tools.workers, tools.defaults, tools.mark)
        self._began_s = time.monotonic()
        self._catalogues: dict[Key, list[dict[str, Any]]] = {}
        self._problems: dict[Key, str] = {}
        self._troubles = Troubles()

    def adopt(self) -> None:
        """Take over what stands in the cluster, before anything is reconciled."""
        self._tools.planner.adopt(self._tools.workers.adopt())

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
        try:
            configmaps = await self._sources(key)
            asked = tools.planner.feed_of(key)
            if held is not None:
                await self._tell_unsound(held)
            # From here to the plan nothing is awaited: of what is judged, and of nothing newer, is told afterwards.
            held, traders = tools.cache.get(TraderPool.KIND, key), tools.cache.traders_of(key)
            workers = self._workers_now(key, held)
            unknown = self._unknown_symbols(held)
            planned = tools.planner.plan(
                key,
                workers,
                configmaps=configmaps,
                namespaces=tools.namespaces(),
                catalogue=catalogue,
                unknown_symbols=unknown,
                now_ms=now_ms(),
                wall_ms=wall_ms(),
            )
        except UnavailableError:
            raise  # passes by itself; no state of the pool
        except Exception as error:
            await self._say_unplanned(key, error)
            raise  # logged, and repeated with backoff, by the queue
        self._tell_feed_left(key, asked)
        failure: ChandleryError | None = None
        # Where not all could be carried out this is what is known.
        outdated = sum(one.outdated for one in workers.values())
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
            self._blame(key)
            await self._look_for_pods(key)
        elif held is not None:
            self._leave(key, planned)
        if planned.again_ms is not None:
            tools.mark(dirty, max(0.05, (planned.again_ms - now_ms()) / 1000))
        await self._say(key, held, traders, planned, outdated, unknown)
        if failure is not None:
            raise failure

    async def _sources(self, key: Key) -> Mapping[Key, Mapping[str, str]]:
        """Data of the ConfigMaps that the pool's Traders name, those included that come while others are read."""
        while True:
            traders = self._readable(key)
            configmaps = await self._tools.sources.of(traders)
            if _named(self._readable(key)) <= _named(traders):
                return configmaps

    def _readable(self, key: Key) -> list[Trader]:
        held = self._tools.cache.traders_of(key)
        return [one.resource for one in held if isinstance(one.resource, Trader)]

    def _workers_now(self, key: Key, held: Held | None) -> dict[str, WorkerNow]:
        """The pool's workers as they are."""
        tools = self._tools
        workers = {name: link.now() for name, link in tools.workers.of(key).items()}
        pool = held.resource if held is not None else None
        if not isinstance(pool, TraderPool):
            return workers
        feed = tools.cache.get(MarketFeed.KIND, pool.spec.feed.key(pool.namespace))
        if feed is None or not isinstance(feed.resource, MarketFeed):
            return workers
        kafka = self._kafka(pool, feed.resource)
        if not kafka.bootstrap:
            return workers
        states, unmade = self._sets.states(pool, workers, kafka), self._sets.unmade(pool.key)
        return {
            name: replace(
                now, outdated=states[name].outdated, rolled_out=states[name].rolled_out, unmade=name in unmade
            )
            for name, now in workers.items()
        }

    def _unknown_symbols(self, held: Held | None) -> Sequence[str]:
        """What the source of a pool's feed says it doesn't have."""
        pool = held.resource if held is not None else None
        return self._tools.unknown_symbols(pool.spec.feed.key(pool.namespace)) if isinstance(pool, TraderPool) else ()

    # Workers ------------------------------------------------------------------------------------------------

    def _kafka(self, pool: TraderPool, feed: MarketFeed) -> KafkaSettings:
        """Kafka as the pool's workers enter it: with Secrets of the pool's namespace, whichever the feed's is."""
        return kafka_settings(feed, self._tools.defaults.kafka, namespace=pool.namespace)

    async def _carry_out(self, pool: TraderPool, planned: Planned) -> int:
        """Make the pool's children and deliver its assignments; returns how many workers run an older template.

        Raises:
            ChandleryError: not all could be done: a refusal first, once all has been tried.
        """
        tools, made = self._tools, planned.pool
        assert made is not None
        if made.feed is None:
            if made.reason == "NotAllowed":
                await self._sets.remove_others(pool, ())
            # A feed that is gone may come back: pods stay for that, and are told at once who runs in them no more.
            self._want(pool, made)
            return 0
        feed = tools.cache.get(MarketFeed.KIND, made.feed)
        assert feed is not None
        assert isinstance(feed.resource, MarketFeed)
        tools.mark(("feed", *made.feed), 0.05)
        kafka = self._kafka(pool, feed.resource)
        self._want(pool, made)
        if not kafka.bootstrap:
            return 0
        outdated, failures = 0, list[ChandleryError]()
        try:
            outdated = await self._sets.ensure(pool, list(made.workers), kafka, made.to_roll)
        except ChandleryError as error:
            failures.append(error)
        try:
            # What is refused of one worker keeps no other from going.
            await self._remove_surplus(pool, made)
        except ChandleryError as error:
            failures.append(error)
        if failures:
            raise next((error for error in failures if isinstance(error, InputError)), failures[0])
        return outdated

    async def _remove_surplus(self, pool: TraderPool, made: PoolPlan) -> None:
        surplus = self._sets.others(pool, made.workers)
        if not surplus:
            return
        # What can't be made may not be kept either, until somebody does something: it holds up only what leads there.
        unmade = self._sets.unmade(pool.key).keys() & made.workers.keys()
        if await self._all_kept(pool.key, made.workers.keys() - unmade):
            surplus = self._leading_to(pool.key, surplus, {name: made.workers[name] for name in unmade})
            await self._sets.remove_others(pool, [*made.workers, *surplus])
        if surplus:  # some have to wait
            self._tools.mark(("pool", *pool.key), _KEPT_WAIT_S)

    def _leading_to(self, key: Key, surplus: Iterable[str], places: Mapping[str, Assignment]) -> list[str]:
        """Those surplus workers with a Trader whose new place isn't kept yet, as far as anybody knows what they have."""
        links = self._tools.workers.of(key)
        unkept = [places[name] for name in places if not links[name].delivery.is_newest_kept]
        leaving = {trader.trader for assignment in unkept for trader in assignment.traders}
        told = {name: links[name].delivery.assignment for name in surplus if name in links}
        return [
            name
            for name, assignment in told.items()
            if (leaving and not assignment.sequence) or any(one.trader in leaving for one in assignment.traders)
        ]

    def _want(self, pool: TraderPool, made: PoolPlan) -> None:
        for name, assignment in made.workers.items():
            self._tools.workers.link(pool, name).want(assignment)

    def _leave(self, key: Key, planned: Planned) -> None:
        """Of a pool that can't be read nothing is made; its workers are told of what stops."""
        links = self._tools.workers.of(key)
        for name, assignment in planned.left.items():
            links[name].want(assignment)
        if (feed := self._tools.planner.feed_of(key)) is not None:
            self._tools.mark(("feed", *feed), 0.05)

    async def _look_for_pods(self, key: Key) -> None:
        """Find out why workers have no pods, as far as they have StatefulSets that should make them."""
        for name, link in self._tools.workers.of(key).items():
            item = self._tools.children.seen(STATEFUL_SET, (key[0], name))
            if item is None:
                continue
            try:
                link.refused, again_s = await self._tools.refusals.look(item, has_pod=bool(link.view().pod))
            except ChandleryError as error:
                log.warning("can't ask why a worker has no pod", extra={"worker": name, "problem": str(error)})
                again_s = _KEPT_WAIT_S
            if again_s is not None:
                self._tools.mark(("pool", *key), again_s)

    def _blame(self, key: Key) -> None:
        """A worker that can't even have its objects has no pod for the same reason."""
        links = self._tools.workers.of(key)
        for name, error in self._sets.unmade(key).items():
            if name in links:
                links[name].refused = refusal_to_make(str(error), name)

    async def _all_kept(self, key: Key, names: Collection[str]) -> bool:
        """Whether the workers that stay have their assignments: what leaves with a worker must have its new place."""
        links = self._tools.workers.of(key)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_KEPT_WAIT_S):
                for name in names:
                    await links[name].delivery.kept()
            return True
        return False

    async def _forget(self, key: Key, links: Mapping[str, WorkerLink]) -> None:
        """The pool isn't there."""
        for name in links:
            await self._tools.workers.drop(key, name)
        self._sets.forget(key)
        self._catalogues.pop(key, None)
        self._problems.pop(key, None)
        self._troubles.forget(key)
        asked = self._tools.planner.feed_of(key)
        self._tools.planner.forget(key)
        self._tell_feed_left(key, asked)

    def _tell_feed_left(self, key: Key, asked: Key | None) -> None:
        """Have the feed looked at that the pool asked until now: it was told of the change before the pool was planned."""
        if asked is not None and asked != self._tools.planner.feed_of(key):
            self._tools.mark(("feed", *asked), 0.05)

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

    async def _say(
        self,
        key: Key,
        held: Held | None,
        judged: Sequence[Held],
        planned: Planned,
        outdated: int,
        unknown: Sequence[str],
    ) -> None:
        """Write what has become of the pool and its Traders, as far as they are still what was judged."""
        tools, now = self._tools, timestamp()
        views = {name: link.view() for name, link in tools.workers.of(key).items()}
        assigned = {
            (trader.trader, trader.incarnation): trader
            for link in tools.workers.of(key).values()
            for trader in link.delivery.assignment.traders
        }
        made = planned.pool
        feed = made.feed if made is not None else None
        if made is not None and (missing := self._without_kafka(made)) is not None:
            made = replace(made, reason=missing.reason, message=missing.message)
            unmade = {name for name in views if tools.children.seen(STATEFUL_SET, (key[0], name)) is None}
            views = {name: replace(view, refused=missing) if name in unmade else view for name, view in views.items()}
        traders = [one for one in map(self._unchanged, judged) if one is not None]
        await each(traders, lambda one: self._say_trader(one, planned, views, assigned, unknown, now))
        if held is not None and (held := self._unchanged(held)) is not None:
            # Of one that can't be read, or without a feed: those that there are.
            names = made.workers if made is not None and made.feed is not None else views
            workers = [views[name] for name in names if name in views]
            if not self._is_paced(feed):
                workers = [replace(view, lags_ms=0) for view in workers]
            state = pool_state(held, made, workers, outdated, self._problems.get(key, ""))
            status = pool_status(held, state, made, workers, outdated, now)
            told = [
                await tools.events.tell(held, "Warning", reason, note, episode, outlasts_edits=True)
                for reason, note, episode in self._troubles.to_tell(key, held.status, workers)
            ]
            await self._write(TRADER_POOL, held, state, status, ("pool", *key), may=all(told))

    def _without_kafka(self, made: PoolPlan) -> PodRefusal | None:
        """What keeps a pool from having workers made whose feed can't have a Kafka; None: it has one.

        Those made before run on, and their Traders tell how they are.
        """
        feed = self._tools.cache.get(MarketFeed.KIND, made.feed) if made.feed is not None else None
        if feed is None or not isinstance(feed.resource, MarketFeed):
            return None
        return no_kafka(feed.resource.full_name) if not self._kafka(made.pool, feed.resource).bootstrap else None

    def _is_paced(self, key: Key | None) -> bool:
        feed = self._tools.cache.get(MarketFeed.KIND, key) if key is not None else None
        return feed is not None and isinstance(feed.resource, MarketFeed) and is_paced(feed.resource)

    def _unchanged(self, judged: Held) -> Held | None:
        """The resource as it is now (its status may be newer); None: it is another, which has been marked already."""
        now = self._tools.cache.by_uid(judged.uid)
        if now is None or now.resource is not judged.resource:
            return None
        return now if (now.generation, now.problem) == (judged.generation, judged.problem) else None

    async def _tell_unsound(self, held: Held) -> None:
        """Tell of kept assignments that nobody could go by, before those found at the start are replaced: after that nobody
        would know."""
        for name, wrong in self._tools.workers.unsound(held.key).items():
            note = (
                f"the kept assignment of worker {name} was changed by somebody else, and is replaced as soon as what "
                f"it shall be can be planned: {wrong}"
            )
            await self._tools.events.tell(held, "Warning", "AssignmentReplaced", note)

    async def _say_unplanned(self, key: Key, error: Exception) -> None:
        """Nothing could be decided: what runs, runs on, and the pool says why nothing else happens."""
        held = self._tools.cache.get(TraderPool.KIND, key)
        if held is None:
            return
        workers = [link.view() for link in self._tools.workers.of(key).values()]
        known = str(error) if isinstance(error, ChandleryError) else f"a defect, {type(error).__name__}: {error}"
        state = State("PlanFailed", f"its traders can't be planned; it is tried again: {known}")
        try:
            await self._write(
                TRADER_POOL, held, state, pool_status(held, state, None, workers, 0, timestamp()), ("pool", *key)
            )
        except ChandleryError as unwritten:
            log.warning("status not written", extra={"pool": "/".join(key), "problem": str(unwritten)})

    async def _say_trader(
        self,
        held: Held,
        planned: Planned,
        views: Mapping[str, WorkerView],
        assigned: Mapping[tuple[str, int], TraderAssignment],
        unknown: Sequence[str],
        now: str,
    ) -> None:
        name = "/".join(held.key)
        verdict = planned.verdicts.get(name)
        view = views.get(verdict.worker) if verdict is not None and verdict.worker is not None else None
        state = trader_state(held, verdict, view, unknown)
        runs = assigned.get((name, verdict.incarnation)) if verdict is not None else None
        status = trader_status(held, state, verdict, runs, view, now, _successor(verdict, views))
        pool = held.pool or ("", "")
        news = changes_to_tell(held.status, verdict, runs)
        told = [await self._tools.events.tell(held, level, reason, note) for level, reason, note in news]
        await self._write(TRADER, held, state, status, ("pool", *pool), may=all(told))

    async def _write(self, kind: Any, held: Held, state: State, status: Any, dirty: Dirty, *, may: bool = True) -> None:
        """Write a status that says anything new, once that is told.

        Args:
            dirty: what to look at when it could not be written. may: False: what goes with it is not told yet.
        """
        statuses = self._tools.statuses
        wait_s = statuses.wait_s(held, status, words_ride=bool(state.episode))
        if wait_s is None:
            return
        if wait_s > 0:
            self._tools.mark(dirty, wait_s)
            return
        if not (await self._tools.events.tell_state(held, state) and may):
            self._tools.mark(dirty, UNTOLD_S)
            return
        if self._unchanged(held) is None:
            return  # while that was told; another pool may have said how it is since
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


def _successor(verdict: Verdict | None, views: Mapping[str, WorkerView]) -> Reported | None:
    """What is told of the successor of what decides."""
    rollout = verdict.rollout if verdict is not None else None
    if verdict is None or rollout is None or rollout.worker not in views:
        return None
    return told_of(views[rollout.worker].status, verdict.trader, rollout.incarnation)


def _named(traders: Iterable[Trader]) -> set[Key]:
    return {configmap for trader in traders for configmap in named_by(trader)}


def timestamp() -> str:
    """Now, as statuses write it: RFC 3339, UTC, whole seconds."""
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
