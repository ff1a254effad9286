"""Pools over a cache and an API server that takes everything; no worker ever answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import aiohttp
from tests.operator_parts.operator_bodies import feed_body, pool_body

from chandlery.core.assignment import Assignment, TraderAssignment, content_hash
from chandlery.core.errors import UnavailableError
from chandlery.core.resources import MarketFeed, Trader, TraderPool
from chandlery.operator.applied import Children
from chandlery.operator.cache import Cache, Dirty
from chandlery.operator.children.naming import Defaults, Object
from chandlery.operator.children.workers import assignment_map
from chandlery.operator.events import Events
from chandlery.operator.kubernetes.api import GoneError, Kind, Page
from chandlery.operator.kubernetes.follow import Followed
from chandlery.operator.kubernetes.kinds import CONFIG_MAP, EVENT, POD, STATEFUL_SET
from chandlery.operator.planner import Delays
from chandlery.operator.planning import PoolPlanner
from chandlery.operator.pools import Pools, Tools
from chandlery.operator.refusals import Refusals
from chandlery.operator.statuses import Statuses
from chandlery.operator.workers import Workers

KEY = ("default", "quants")


class Server:
    """An API server that takes everything, and shows its workloads at once."""

    def __init__(self) -> None:
        self.there: dict[Kind, Followed] = {
            kind: Followed(self, kind, "", lambda *_: None)  # type: ignore[arg-type]
            for kind in (STATEFUL_SET, CONFIG_MAP, POD)
        }
        self.statuses: dict[str, Object] = {}
        self.events: list[tuple[str, str]] = []
        self.log: list[str] = []
        self.before: Callable[[Kind, str], Awaitable[None]] | None = None
        self.version = 100
        self.takes_events = True

    async def apply(self, kind: Kind, body: Object, *, subresource: str = "") -> Object:
        name = body["metadata"]["name"]
        if self.before is not None:
            await self.before(kind, name)
        self.log.append(f"{kind.name}/{name}")
        self.version += 1
        meta = {**body["metadata"], "resourceVersion": str(self.version), "generation": 1, "uid": name}
        if subresource:
            self.statuses[f"{kind.name}/{name}"] = body["status"]
        elif kind in self.there:
            self.there[kind].objects["default", name] = {**body, "metadata": meta}
        return {"metadata": meta}

    async def list(self, kind: Kind, namespace: str = "", *, fields: str = "", **_: Any) -> Page:
        return Page("1", [])

    async def create(self, kind: Kind, body: Object) -> Object:
        if not self.takes_events:
            raise UnavailableError("429 too many requests")
        of = body["regarding"]
        if kind is EVENT:
            self.events.append((of["name"], body["reason"]))
        self.log.append(f"{kind.name}/{body['reason']} of {of['kind']}/{of['name']}")
        return body

    async def get(self, kind: Kind, namespace: str, name: str) -> Object:
        raise GoneError("404")

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str = "") -> None:
        self.log.append(f"deleted {kind.name}/{name}")
        if kind in self.there:
            self.there[kind].objects.pop((namespace, name), None)


class Texts:
    """Sources, by default without any; calls what a test wants to happen meanwhile."""

    def __init__(self) -> None:
        self.meanwhile: Callable[[], None] = lambda: None
        self.data: dict[tuple[str, str], dict[str, str]] = {}

    async def of(self, traders: Iterable[Trader]) -> dict[tuple[str, str], dict[str, str]]:
        await asyncio.sleep(0)
        self.meanwhile()
        return self.data


class Bench:
    """Pools over a cache and a server; no worker ever answers."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.server, self.cache, self.texts = Server(), Cache(), Texts()
        self.marked: list[Dirty] = []
        #: Symbols that the source of every feed says it doesn't have.
        self.unknown: list[str] = []
        self.defects: list[asyncio.Task[None]] = []
        api: Any = self.server
        children = Children(api, lambda _dirty: None)
        for followed in self.server.there.values():
            children.follow(followed)
        defaults = Defaults("workers:1", "stream:1", kafka="kafka:9092")
        self.workers = Workers(
            api, self.cache, children, session, b"key", 1, lambda _dirty: None, self.defects.append
        )  # fmt: skip
        self.planner = PoolPlanner(self.cache, Delays(shrink_ms=0))
        sources: Any = self.texts
        self.tools = Tools(
            cache=self.cache, children=children, workers=self.workers, planner=self.planner,
            statuses=Statuses(api, clock=iter(range(0, 10**9, 1000)).__next__), events=Events(api, "test"),
            sources=sources, refusals=Refusals(api), defaults=defaults, namespaces=dict,
            unknown_symbols=lambda _feed: self.unknown, mark=lambda dirty, _delay_s: self.marked.append(dirty),
        )  # fmt: skip
        self.pools = Pools(self.tools)
        self.cache.put("MarketFeed", feed_body())

    def planned_alone(self) -> list[TraderAssignment]:
        """What the pool's first worker is to have, by a planner that nobody else asks."""
        made = PoolPlanner(self.cache).plan(KEY, {}, configmaps={}, namespaces={}, catalogue=None, now_ms=1)
        assert made.pool is not None
        return made.pool.workers["quants-0"].traders

    def feed(self) -> MarketFeed:
        """The feed of the pools, as it is held."""
        held = self.cache.get(MarketFeed.KIND, ("default", "market"))
        assert held is not None
        assert isinstance(held.resource, MarketFeed)
        return held.resource

    def condition(self, name: str, kind: str = "Ready") -> dict[str, Any]:
        found: dict[str, Any] = next(
            one for one in self.server.statuses[name]["conditions"] if one["type"] == kind
        )  # fmt: skip
        return found


def kept_in(pool: str, *traders: TraderAssignment, number: int = 0) -> Object:
    """The ConfigMap with what a pool's worker (its first) is assigned, as an operator before this one left it."""
    of = TraderPool.model_validate(pool_body(pool))
    body = assignment_map(of, Assignment(f"{pool}-{number}", 3, content_hash(list(traders)), list(traders)))
    body["metadata"].update(resourceVersion="7", uid=body["metadata"]["name"])
    return body
