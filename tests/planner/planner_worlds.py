"""Resources for planner tests, and a world that carries a plan out."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from chandlery.core.assignment import Assignment, WorkerStatus
from chandlery.core.resources import MarketFeed, Trader, TraderPool
from chandlery.operator.planner import Current, Delays, Desired, Memory, Plan, WorkerNow, plan

Key = tuple[str, str]
#: What the wall clock showed when the planner's clock was at 0, ms.
WALL_MS = 1_750_000_000_000


def feed(name: str = "market", namespace: str = "default", **spec: object) -> MarketFeed:
    return MarketFeed.model_validate(
        {"metadata": {"name": name, "namespace": namespace}, "spec": {"source": {"synthetic": {}}, **spec}}
    )


def pool(
    name: str = "pool",
    namespace: str = "default",
    *,
    least: int = 1,
    most: int = 1,
    spare: int = 0,
    per_worker: int = 20,
    series: int = 512,
    **spec: object,
) -> TraderPool:
    return TraderPool.model_validate(
        {
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "feed": {"name": "market"},
                "workers": {"min": least, "max": most, "spare": spare},
                "tradersPerWorker": per_worker,
                "segment": {"series": series},
                **spec,
            },
        }
    )


def trader(
    name: str,
    namespace: str = "default",
    *,
    in_pool: str = "pool",
    symbols: Iterable[str] = ("BTC/USDT",),
    interval: str = "1s",
    parameters: Mapping[str, object] | None = None,
    metadata: Mapping[str, object] | None = None,
    market: Mapping[str, object] | None = None,
    **spec: object,
) -> Trader:
    return Trader.model_validate(
        {
            "metadata": {"name": name, "namespace": namespace, **(metadata or {})},
            "spec": {
                "pool": {"name": in_pool},
                "strategy": {"name": "sma-cross", "parameters": dict(parameters or {})},
                "market": {"symbols": list(symbols), "interval": interval, **(market or {})},
                **spec,
            },
        }
    )


def desired(*resources: MarketFeed | TraderPool | Trader, seed: int = 0, **more: object) -> Desired:
    """Resources in an order that the seed decides."""
    shuffled = list(resources)
    random.Random(seed).shuffle(shuffled)
    return Desired(
        feeds={one.key: one for one in shuffled if isinstance(one, MarketFeed)},
        pools={one.key: one for one in shuffled if isinstance(one, TraderPool)},
        traders={one.key: one for one in shuffled if isinstance(one, Trader)},
        **more,  # type: ignore[arg-type]
    )


@dataclass
class World:
    """Workers as a backend would have them: every plan is carried out at once; tests decide what gets Ready.

    Their processes never get anywhere: nothing runs that would have to be handed over.
    """

    delays: Delays = field(default_factory=Delays)
    now_ms: int = 1_000_000
    workers: dict[Key, dict[str, WorkerNow]] = field(default_factory=dict)
    memory: Memory = field(default_factory=Memory)

    @property
    def current(self) -> Current:
        return Current({key: dict(workers) for key, workers in self.workers.items()}, self.memory)

    def step(self, wanted: Desired, *, all_ready: bool = True) -> Plan:
        result = plan(wanted, self.current, now_ms=self.now_ms, wall_ms=WALL_MS + self.now_ms)
        self.carry_out(result)
        if all_ready:
            for key, workers in self.workers.items():
                for name in workers:
                    self.ready(key, name, True)
        return result

    def carry_out(self, result: Plan) -> None:
        self.workers = {
            key: {name: self._worker(key, name, assignment) for name, assignment in one.workers.items()}
            for key, one in result.pools.items()
        }
        self.memory = result.memory

    def _worker(self, key: Key, name: str, assignment: Assignment) -> WorkerNow:
        now = self.workers.get(key, {}).get(name)
        if now is None:
            return WorkerNow(assignment, ready=False, since_ms=self.now_ms, was_ready=False)
        return replace(now, assignment=assignment)

    def ready(self, key: Key, name: str, ready: bool) -> None:
        now = self.workers[key][name]
        if now.ready != ready:
            status = now.status or WorkerStatus(name, 1, 0, "", 0, True, {}, [], {})
            self.workers[key][name] = WorkerNow(now.assignment, ready, self.now_ms, now.was_ready or ready, status)


def placed(result: Plan) -> dict[str, list[str]]:
    """Worker → names of its traders without their namespace."""
    return {
        name: [one.trader.partition("/")[2] for one in assignment.traders]
        for pool_plan in result.pools.values()
        for name, assignment in pool_plan.workers.items()
    }
