"""The operator as a whole: its parts put together, started, and ended in order."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import os
import secrets
import signal
import socket
import time
from collections.abc import Coroutine, Mapping
from typing import Any, Final

import aiohttp
import kopf

from chandlery.core.errors import ChandleryError, InputError, UnavailableError
from chandlery.core.http_errors import in_words
from chandlery.core.kube_credentials import Credentials
from chandlery.core.resources import MarketFeed, Trader
from chandlery.operator import watching
from chandlery.operator.applied import Children, owner_of
from chandlery.operator.cache import Cache, Dirty
from chandlery.operator.children.naming import COMPONENT, PART_OF, SELECTOR, Object
from chandlery.operator.dirty_queue import WINDOW_S, DirtyQueue
from chandlery.operator.events import Events
from chandlery.operator.feeds import Feeds
from chandlery.operator.health import Figures, HealthServer
from chandlery.operator.kubernetes.api import GoneError, KubeApi, RefusedError, StaleError
from chandlery.operator.kubernetes.follow import Followed, Names
from chandlery.operator.kubernetes.kinds import (
    CONFIG_MAP,
    NAMESPACE,
    NETWORK_POLICY,
    POD,
    POD_DISRUPTION_BUDGET,
    SECRET,
    SERVICE,
    STATEFUL_SET,
)
from chandlery.operator.options import Options
from chandlery.operator.planning import PoolPlanner
from chandlery.operator.pools import Pools, Tools
from chandlery.operator.refusals import Refusals
from chandlery.operator.sources import Sources, named_by
from chandlery.operator.statuses import Statuses
from chandlery.operator.workers import Workers

log = logging.getLogger("chandlery.operator")

#: What events missed, whatever the reason, is repaired by looking at everything this often.
_RESYNC_S: Final = 300.0
#: The API server may come up after the operator: this long it is waited for before the pod restarts.
_START_PATIENCE_S: Final = 60.0
#: One that has just come up knows no roles for a second or two, and refuses everything; ten times that.
_ROLES_PATIENCE_S: Final = 15.0


class Operator:
    """One operator process.

    Attributes:
        failure: set when a part can't go on; its message says why.
    """

    def __init__(self, options: Options, credentials: Credentials) -> None:
        self._options = options
        self._namespaces = options.namespaces or ("",)
        self._own = options.own_namespace or credentials.namespace
        self._api = KubeApi(credentials)
        self._cache = Cache()
        self._queue: DirtyQueue[Dirty] = DirtyQueue(self._reconcile)
        self._children = Children(self._api, self._mark)
        self._statuses = Statuses(self._api)
        self._events = Events(self._api, os.environ.get("HOSTNAME") or socket.gethostname())
        self._planner = PoolPlanner(self._cache, options.delays)
        self._metadata: list[Followed] = []
        self._namespace_watch: Followed | None = None
        self._followed: list[Followed] = []
        self._sweeper = watching.Sweeper(self._api, self._cache, self._namespaces, self._mark, self._fail)
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._health = HealthServer(
            options.listen,
            Figures(self._counters, self._gauges, lambda: dict(self._api.requests)),
            self._unhealthy,
            self._unready,
        )
        self._workers: Workers | None = None
        self._pools: Pools | None = None
        self._feeds: Feeds | None = None
        self._primed = False
        self.failure = ""

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT.

        Raises:
            ChandleryError: it can't start, or a part can't go on.
        """
        loop = asyncio.get_running_loop()
        await self._health.start()
        # Workers' long-polls are many and last long: no limit but theirs.
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            try:
                for number in (signal.SIGTERM, signal.SIGINT):
                    loop.add_signal_handler(number, self._stop.set)
                await self._start(session)
                await self._watch()
            finally:
                await self._end()
        if self.failure:
            raise UnavailableError(self.failure)

    async def _start(self, session: aiohttp.ClientSession) -> None:
        self._follow()
        await self._patiently(self._list_all())
        key = await self._token_key()
        if self._options.console_token_secret:
            await self._make_console_token(self._options.console_token_secret)
        self._workers = Workers(
            self._api,
            self._cache,
            self._children,
            session,
            key,
            self._options.defaults.worker_port,
            self._mark,
            self._settled,
        )
        tools = Tools(
            cache=self._cache,
            children=self._children,
            workers=self._workers,
            planner=self._planner,
            statuses=self._statuses,
            events=self._events,
            sources=Sources(self._api, self._metadata),
            refusals=Refusals(self._api),
            defaults=self._options.defaults,
            namespaces=self._namespace_labels,
            unknown_symbols=lambda feed: self._feeds.unknown_symbols(feed) if self._feeds is not None else (),
            mark=self._queue.mark,
        )
        self._pools = Pools(tools)
        self._feeds = Feeds(tools, self._api, session, self._options.grace_s)
        self._pools.adopt()
        self._primed = True
        self._mark_all()
        for followed in self._followed:
            self._spawn(followed.run(), f"follow {followed.kind.plural}")
        self._spawn(self._queue.run(), "queue")
        self._spawn(self._sweeper.run(), "sweep")
        self._spawn(self._resync(), "resync")
        self._spawn(self._events.run(), "events")
        log.info(
            "operator up",
            extra={
                "namespaces": list(self._options.namespaces) or "all",
                "traders": sum(1 for _ in self._cache.all_of(Trader.KIND)),
                "workers": len(self._workers.all()),
                "port": self._health.port,
            },
        )

    async def _watch(self) -> None:
        """kopf, until it is told to stop."""
        if self._options.kubeconfig:
            os.environ["KUBECONFIG"] = self._options.kubeconfig
        await kopf.operator(
            registry=watching.handlers(self._cache, self._mark, self._sweeper.relisted),
            settings=watching.settings(),
            clusterwide=not self._options.namespaces,
            namespaces=self._options.namespaces,
            standalone=True,
            stop_flag=self._stop,
        )
        if not self._stop.is_set() and not self.failure:
            # kopf ends by itself only when it was told to by a signal.
            log.info("told to stop")

    async def _end(self) -> None:
        self._stop.set()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._workers is not None:
            await self._workers.close()
        await self._api.close()
        await self._health.stop()
        log.info("operator ended")

    # Start --------------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        watch_s = self._options.watch_s

        def add(followed: Followed) -> Followed:
            self._followed.append(followed)
            return followed

        for namespace in self._namespaces:
            for kind, changed in (
                (STATEFUL_SET, self._children.changed(STATEFUL_SET)),
                (CONFIG_MAP, self._children.changed(CONFIG_MAP, self._assignment_changed)),
                (POD, self._pod_changed),
            ):
                self._children.follow(
                    add(Followed(self._api, kind, namespace, changed, selector=SELECTOR, watch_s=watch_s))
                )
            for kind in (SERVICE, POD_DISRUPTION_BUDGET, NETWORK_POLICY):
                # Their metadata tells of every change, and that is all that must be known of them.
                self._children.follow(
                    add(
                        Followed(
                            self._api, kind, namespace, self._children.changed(kind),
                            selector=SELECTOR, metadata_only=True, watch_s=watch_s,
                        )
                    )
                )  # fmt: skip
            self._metadata.append(
                add(
                    Followed(
                        self._api, CONFIG_MAP, namespace, self._source_changed, metadata_only=True, watch_s=watch_s
                    )
                )
            )
        if not self._options.namespaces:
            # With a list of namespaces the operator may see no others, and no labels: selectors go by names alone.
            self._namespace_watch = add(
                Followed(self._api, NAMESPACE, "", lambda *_: self._mark_all(), metadata_only=True, watch_s=watch_s)
            )

    async def _list_all(self) -> None:
        await watching.prime(self._api, self._cache, self._namespaces)
        for followed in self._followed:
            await followed.list_once()

    async def _patiently(self, work: Coroutine[Any, Any, None]) -> None:
        """Do what needs the API server, which may still be coming up."""
        began_s = time.monotonic()
        attempt = work
        while True:
            try:
                await attempt
                return
            except (RefusedError, GoneError) as error:
                if time.monotonic() - began_s > _ROLES_PATIENCE_S or self._stop.is_set():
                    raise InputError(f"missing permission or CustomResourceDefinition? {error}") from error
                problem: ChandleryError = error
            except UnavailableError as error:
                if time.monotonic() - began_s > _START_PATIENCE_S or self._stop.is_set():
                    raise
                problem = error
            log.warning("waiting for the API server", extra={"problem": str(problem)})
            await asyncio.sleep(1.0)
            attempt = self._list_all()

    async def _token_key(self) -> bytes:
        """The key that workers' tokens derive from, out of the operator's own Secret; made at the first start."""
        name = self._options.token_secret
        for _ in range(2):
            try:
                secret = await self._api.get(SECRET, self._own, name)
                return base64.b64decode(secret["data"]["key"])
            except KeyError as error:
                raise InputError(f"Secret {self._own}/{name} has no key named key") from error
            except GoneError:
                key = secrets.token_bytes(32)
                body: Object = {
                    "metadata": {"name": name, "namespace": self._own},
                    "type": "Opaque",
                    "data": {"key": base64.b64encode(key).decode()},
                }
                with contextlib.suppress(StaleError):
                    await self._api.create(SECRET, body)
                    return key
        raise UnavailableError(f"Secret {self._own}/{name} comes and goes")

    async def _make_console_token(self, name: str) -> None:
        """A token for the console, in a Secret that is never read here nor written again: whoever deletes it, and has the
        operator start anew, gets another. Made here, and not by a template, which would give another each time."""
        body: Object = {
            "metadata": {"name": name, "namespace": self._own, "labels": {PART_OF: "chandlery", COMPONENT: "console"}},
            "type": "Opaque",
            "data": {"token": base64.b64encode(secrets.token_urlsafe(32).encode()).decode()},
        }
        try:
            await self._api.create(SECRET, body)
        except StaleError:
            log.debug("the console has its token already")
        except RefusedError as error:
            # Traders don't wait for it, and its pod says which Secret it misses.
            log.error("no token for the console", extra={"problem": str(error)})

    # While running ------------------------------------------------------------------------------------------

    async def _reconcile(self, dirty: Dirty) -> None:
        what, *key = dirty
        if what == "pool" and self._pools is not None:
            await self._pools.reconcile((key[0], key[1]))
        elif what == "feed" and self._feeds is not None:
            await self._feeds.reconcile((key[0], key[1]))

    def _mark(self, dirty: Dirty) -> None:
        if self._primed:
            self._queue.mark(dirty, WINDOW_S)

    def _mark_all(self) -> None:
        for pool in {*self._cache.pool_keys(), *(key for key, _ in self._workers.all())} if self._workers else ():
            self._mark(("pool", *pool))
        for held in self._cache.all_of(MarketFeed.KIND):
            self._mark(("feed", *held.key))

    async def _resync(self) -> None:
        while True:
            await asyncio.sleep(_RESYNC_S)
            self._statuses.keep_only(self._cache.uids())
            self._mark_all()

    def _pod_changed(self, names: Names, before: Object | None, now: Object | None) -> None:
        if self._workers is not None:
            self._workers.pod_changed(names, before, now)
        dirty = owner_of(now or before or {"metadata": {}})
        if dirty is not None:
            self._mark(dirty)

    def _assignment_changed(self, names: Names, now: Object | None) -> None:
        if self._workers is not None:
            self._workers.assignment_changed(names, now)

    def _source_changed(self, names: Names, _before: Object | None, _now: Object | None) -> None:
        if not self._primed:
            return
        for held in self._cache.all_of(Trader.KIND):
            trader = held.resource
            if isinstance(trader, Trader) and held.pool is not None and names in named_by(trader):
                self._mark(("pool", *held.pool))

    def _namespace_labels(self) -> Mapping[str, Mapping[str, str]]:
        if self._namespace_watch is None:
            return {}
        return {name: item["metadata"].get("labels") or {} for (_, name), item in self._namespace_watch.objects.items()}

    # Health -------------------------------------------------------------------------------------------------

    def _fail(self, why: str) -> None:
        """A part can't go on: end, to be started again."""
        if not self.failure:
            self.failure = why
            log.error("operator can't go on", extra={"problem": why})
            self._stop.set()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._settled)

    def _settled(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("part failed", extra={"part": task.get_name()}, exc_info=error)
            self._fail(f"{task.get_name()} failed: {in_words(error)}")

    def _unhealthy(self) -> str:
        return self.failure or next(filter(None, (followed.problem() for followed in self._followed)), "")

    def _unready(self) -> str:
        return self.failure or ("" if self._primed else "not listed yet")

    def _counters(self) -> dict[str, float]:
        return {
            "reconciles": self._queue.runs,
            "reconcile_failures": self._queue.failures,
            "status_writes": self._statuses.writes,
            "status_conflicts": self._statuses.conflicts,
            "child_writes": self._children.writes,
            "events": self._events.told,
            "events_dropped": self._events.dropped,
            "ghosts_dropped": self._sweeper.dropped,
            "watch_reconnects": sum(one.reconnects for one in self._followed),
        }

    def _gauges(self) -> dict[str, float]:
        links = self._workers.all().values() if self._workers is not None else ()
        return {
            "queue": len(self._queue),
            "events_waiting": len(self._events),
            "watch_silence_seconds": time.monotonic() - min((one.answered_s for one in self._followed), default=0.0),
            "traders": sum(1 for _ in self._cache.all_of(Trader.KIND)),
            "workers": len(links),
            "workers_ready": sum(1 for link in links if link.is_ready),
            "assignments_pending": sum(1 for link in links if not link.settled),
        }
