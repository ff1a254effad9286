"""The manifests of a comparison: a made-up market, a pool for each transport, and the traders of each step. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import yaml

from chandlery.cli.comparing.asked import MOST_TRADERS, Asked
from chandlery.cli.comparing.result import TRANSPORTS
from chandlery.core.assignment import Trigger
from chandlery.core.resources import API_VERSION
from chandlery.core.resources.pool import GUARD_ROWS
from chandlery.core.transports import Transport

#: Candles that a decision reads.
WINDOW: Final = 500
INTERVAL: Final = "1s"
#: Each transport has a pool of one worker: what its feed takes is that transport's alone.
POOLS: Final[dict[Transport, str]] = {"SharedMemory": "shared", "Pipe": "pipe"}
#: Side by side is for the decisions, not for the figures: more would only wait for each other.
MOST_BESIDE: Final = 10
#: A measurement that takes all this long must not outgrow the rings.
_MORE_CANDLES: Final = 128


@dataclass(frozen=True)
class Group:
    """Traders alike: ``pool`` by the name of the transport that it is for, ``transport``: theirs."""

    transport: Transport
    pool: Transport
    names: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """What runs at a time. ``size``: traders of each group. ``trigger``: of all of them."""

    size: int
    groups: tuple[Group, ...]
    trigger: Trigger

    @property
    def is_side_by_side(self) -> bool:
        """Whether both transports run at once."""
        return len(self.groups) > 1

    @property
    def words(self) -> str:
        """For a person."""
        many = "trader" if self.size == 1 else "traders"
        if self.is_side_by_side:
            return f"{self.size} + {self.size} {many} side by side"
        return f"{self.size} {many} on {'pipes' if self.groups[0].transport == 'Pipe' else 'shared memory'}"


def steps_of(asked: Asked) -> list[Step]:
    """Every number of traders on each transport alone; then a few on both, side by side in one worker.

    Which transport comes first alternates: what warms up on the way favours neither.
    """
    steps: list[Step] = []
    for at, size in enumerate(asked.traders):
        for transport in TRANSPORTS if at % 2 == 0 else reversed(TRANSPORTS):
            steps.append(Step(size, (_group(transport, transport, f"{POOLS[transport]}-{size}", size),), asked.trigger))
    few = min(*asked.traders, MOST_BESIDE)
    both = [_group(transport, "SharedMemory", f"both-{POOLS[transport]}", few) for transport in TRANSPORTS]
    # On closed candles: how many forming ones are passed over is each trader's own.
    return [*steps, Step(few, tuple(both), "CandleClose")]


def _group(transport: Transport, pool: Transport, stem: str, size: int) -> Group:
    return Group(transport, pool, tuple(f"{stem}-{number}" for number in range(size)))


def symbols_of(asked: Asked) -> list[str]:
    """Names of that many made-up markets."""
    return [f"C{number:02d}/USDT" for number in range(asked.symbols)]


def manifests(asked: Asked, step: Step) -> str:
    """What ``chandlery up`` reads while this step runs."""
    source = {"seed": 11, "tradesPerSecond": asked.rate, "quietShare": 0, "volatility": 0.0005}
    market = {"source": {"synthetic": source}, "symbols": symbols_of(asked), "history": {"candles": WINDOW + 20}}
    made = [_resource("MarketFeed", "market", market)]
    for transport in TRANSPORTS:
        pool = {
            "feed": {"name": "market"},
            # Side by side there are two groups in one worker.
            "tradersPerWorker": MOST_TRADERS + 2 * MOST_BESIDE,
            "transport": transport,
            "segment": {"candles": WINDOW + GUARD_ROWS + _MORE_CANDLES, "series": asked.symbols},
        }
        made.append(_resource("TraderPool", POOLS[transport], pool))
    for group in step.groups:
        made += [_trader(asked, step, group, name) for name in group.names]
    return yaml.safe_dump_all(made, sort_keys=False)


def _trader(asked: Asked, step: Step, group: Group, name: str) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "pool": {"name": POOLS[group.pool]},
        "strategy": {"name": "window-mean", "parameters": {"window": WINDOW}},
        "market": {"symbols": symbols_of(asked), "interval": INTERVAL},
        "trigger": step.trigger,
    }
    if group.transport != group.pool:
        spec["transport"] = group.transport
    return _resource("Trader", name, spec)


def _resource(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
