"""A feed's operator side without a cluster: an API server that takes everything, and pods that answer what a test says."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import aiohttp
from tests.operator_parts.operator_bodies import feed_body, pool_body, trader_body

from chandlery.core.errors import UnavailableError
from chandlery.operator.applied import Children
from chandlery.operator.cache import Cache, Dirty
from chandlery.operator.children.naming import Defaults, Object
from chandlery.operator.events import Events
from chandlery.operator.feeds import Feeds
from chandlery.operator.kubernetes.api import Kind, Page, RefusedError
from chandlery.operator.kubernetes.follow import Followed
from chandlery.operator.kubernetes.kinds import CONFIG_MAP, POD, STATEFUL_SET
from chandlery.operator.planning import PoolPlanner
from chandlery.operator.pools import Tools
from chandlery.operator.refusals import Refusals
from chandlery.operator.statuses import Statuses

FEED = ("default", "market")
PACED: dict[str, Any] = {"source": {"synthetic": {}}}
HASTY: dict[str, Any] = {"source": {"replay": {"files": [{"path": "x.jsonl"}], "speed": "max"}}}


class Server:
    """An API server that takes everything; the feed's pods are Ready from the first."""

    def __init__(self) -> None:
        self.there: dict[Kind, Followed] = {
            kind: Followed(self, kind, "", lambda *_: None)  # type: ignore[arg-type]
            for kind in (STATEFUL_SET, CONFIG_MAP, POD)
        }
        for component in ("ingest", "aggregator"):
            self.ready(component)
        self.statuses: list[Object] = []
        self.refuses: Callable[[Kind, str], str] = lambda _kind, _name: ""
        self.deleted: list[tuple[Kind, str]] = []
        self.is_told_late = False
        self.events: list[str] = []
        self.takes_events = True
        self.version = 100

    def ready(self, component: str, *, ready: bool = True) -> None:
        name = f"market-{component}-0"
        conditions = [{"type": "Ready", "status": str(ready)}]
        meta = {"name": name, "namespace": "default", "uid": name, "resourceVersion": "1"}
        status = {"podIP": "127.0.0.1", "conditions": conditions}
        self.there[POD].objects["default", name] = {"metadata": meta, "status": status}

    async def apply(self, kind: Kind, body: Object, *, subresource: str = "") -> Object:
        if said := self.refuses(kind, body["metadata"]["name"]):
            raise RefusedError(said)
        self.version += 1
        meta = {
            **body["metadata"],
            "resourceVersion": str(self.version),
            "generation": 1,
            "uid": body["metadata"]["name"],
        }
        if subresource:
            self.statuses.append(body["status"])
        elif kind in self.there:
            self.there[kind].objects["default", meta["name"]] = {**body, "metadata": meta}
        return {"metadata": meta}

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str = "") -> None:
        self.deleted.append((kind, name))
        if not self.is_told_late:
            self.tell_deleted()

    def tell_deleted(self) -> None:
        for kind, name in self.deleted:
            self.there[kind].objects.pop(("default", name), None)

    def children(self) -> list[str]:
        found = [name for kind in (STATEFUL_SET, CONFIG_MAP) for _, name in self.there[kind].objects]
        return sorted(found)

    async def merge(self, kind: Kind, namespace: str, name: str, patch: Object, *, subresource: str = "") -> Object:
        return patch

    async def list(self, kind: Kind, namespace: str = "", *, fields: str = "", **_: Any) -> Page:
        return Page("1", [])

    async def create(self, kind: Kind, body: Object) -> Object:
        if not self.takes_events:
            raise UnavailableError("429 too many requests")
        self.events.append(body["reason"])
        return body


class Market:
    """A feed's operator side, over pods that answer what a test says."""

    def __init__(self, session: aiohttp.ClientSession, spec: dict[str, Any]) -> None:
        self.server, self.cache = Server(), Cache()
        self.marked: list[Dirty] = []
        self.answers: dict[str, dict[str, Any]] = {"ingest": {}, "aggregator": {}}
        api: Any = self.server
        children = Children(api, lambda _dirty: None)
        for followed in self.server.there.values():
            children.follow(followed)
        nobody: Any = None
        self.planner = PoolPlanner(self.cache)
        tools = Tools(
            cache=self.cache, children=children, workers=nobody, planner=self.planner,
            statuses=Statuses(api), events=Events(api, "test"), sources=nobody, refusals=Refusals(api),
            defaults=Defaults("workers:1", "stream:1", kafka="kafka:9092"), namespaces=dict,
            unknown_symbols=lambda _feed: (), mark=lambda dirty, _delay_s: self.marked.append(dirty),
        )  # fmt: skip
        self.feeds = Feeds(tools, api, session)
        self.cache.put("MarketFeed", feed_body(**spec))
        self.cache.put("TraderPool", pool_body())
        self.cache.put("Trader", trader_body())
        self.plan()

    def plan(self) -> None:
        self.planner.plan(("default", "quants"), {}, configmaps={}, namespaces={}, catalogue=None, now_ms=1)

    def put(self, name: str, symbol: str, interval: str = "1s") -> None:
        self.cache.put("Trader", trader_body(name, market={"symbols": [symbol], "interval": interval}))
        self.plan()

    def drop(self, name: str) -> None:
        self.cache.drop(f"Trader-default-{name}")
        self.plan()

    def settings(self, component: str) -> dict[str, Any]:
        item = self.server.there[CONFIG_MAP].objects["default", f"market-{component}"]
        found: dict[str, Any] = json.loads(item["data"][f"{component}.json"])
        return found

    async def look(self) -> dict[str, Any]:
        """One reconcile; the feed's condition Ready afterwards."""
        await self.feeds.reconcile(FEED)
        found: dict[str, Any] = next(one for one in self.server.statuses[-1]["conditions"] if one["type"] == "Ready")
        return found
