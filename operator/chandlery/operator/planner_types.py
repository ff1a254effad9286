"""What the planner is given and what it gives: plain values, no resource of the outside in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from chandlery.core.assignment import Assignment
from chandlery.core.checks import World
from chandlery.core.manifests import Key, ManifestSet, Problem
from chandlery.core.resources import MarketFeed, Trader, TraderPool


@dataclass(frozen=True, slots=True)
class Delays:
    """How long the planner waits before it acts on what it sees.

    Attributes:
        unready_ms: a worker not Ready for this long gives its traders to others.
        starting_ms: the same for a worker that has not been Ready since it was made: an image has to be pulled,
            a first history read; moving its traders to another new worker would only start that again.
        shrink_ms: more workers than needed for this long: the last goes. Longer than a rollout or a lunch
            break of traders being edited, so that workers don't come and go with every edit.
    """

    unready_ms: int = 30_000
    starting_ms: int = 300_000
    shrink_ms: int = 300_000


@dataclass(frozen=True, slots=True)
class Desired:
    """What shall be: sound resources, by (namespace, name).

    Attributes:
        configmaps: data of ConfigMaps with strategy source. namespaces: labels of namespaces.
        problems: what the catalogue check found, by Trader; the worst word first.
    """

    feeds: Mapping[Key, MarketFeed] = field(default_factory=dict)
    pools: Mapping[Key, TraderPool] = field(default_factory=dict)
    traders: Mapping[Key, Trader] = field(default_factory=dict)
    configmaps: Mapping[Key, Mapping[str, str]] = field(default_factory=dict)
    namespaces: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    problems: Mapping[Key, Sequence[Problem]] = field(default_factory=dict)
    delays: Delays = Delays()

    @property
    def world(self) -> World:
        """What resources may refer to."""
        return World(self.feeds, self.pools, self.configmaps, self.namespaces)


def desired_of(manifests: ManifestSet, problems: Iterable[Problem] = (), delays: Delays | None = None) -> Desired:
    """What manifests ask for.

    Args:
        problems: from :func:`chandlery.core.manifests.check_against_catalogue`; those of Traders count.
    """
    by_trader: dict[Key, list[Problem]] = {}
    for problem in problems:
        if problem.kind == Trader.KIND:
            by_trader.setdefault((problem.namespace, problem.name), []).append(problem)
    return Desired(
        feeds=manifests.feeds,
        pools=manifests.pools,
        traders=manifests.traders,
        configmaps=manifests.configmaps,
        namespaces=manifests.namespaces,
        problems=by_trader,
        delays=delays or Delays(),
    )


@dataclass(frozen=True, slots=True)
class WorkerNow:
    """A worker as it is.

    Attributes:
        assignment: the newest one decided for it, acknowledged or not.
        ready: whether it is Ready. since_ms: since when it is so (or since it was made).
        was_ready: whether it has been Ready since it was made.
    """

    assignment: Assignment
    ready: bool
    since_ms: int
    was_ready: bool = True


class Seen(msgspec.Struct, frozen=True):
    """Last generation, incarnation and content digest given to a Trader, and the uid it had."""

    uid: str
    generation: int
    incarnation: int
    digest: str


class Memory(msgspec.Struct, frozen=True):
    """What the planner must find again next time; plain data, to be kept as it is (:class:`Plan` has the next).

    Losing it is harmless: delays begin anew, and Traders and workers that are there are known from
    their assignments.

    Attributes:
        surplus_since_ms: by pool (``namespace/name``): since when it has more workers than it needs.
        sequences: by worker (``namespace/name``): last sequence, so that a worker that comes back under
            its name goes on from there.
        traders: by Trader (``namespace/name``).
    """

    surplus_since_ms: dict[str, int] = {}
    sequences: dict[str, int] = {}
    traders: dict[str, Seen] = {}


#: Most entries that Memory keeps of Traders and of workers that are gone; the oldest go first.
MAX_REMEMBERED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Current:
    """What is: by pool its workers by name, and what the last plan wanted remembered."""

    workers: Mapping[Key, Mapping[str, WorkerNow]] = field(default_factory=dict)
    memory: Memory = field(default_factory=Memory)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a Trader.

    Attributes:
        trader: ``namespace/name``.
        worker: name of the one worker whose assignment has it; None: none, and ``reason`` says why.
        pool: key of the pool that runs it, where that is known.
        reason: stable word: ``PoolFull``, ``UnknownPool``, ``UnknownFeed``, ``NotAllowed``, ``UnknownStrategy``,
            ``BadParameter``, ``UnknownSymbol`` …; with a worker: ``Suspended`` (it keeps its place),
            or why the version before is kept (``BadParameter``, ``AwaitingApproval`` …). Else empty.
        message: one sentence that says what to do; empty without a reason.
        generation, incarnation: as assigned, 0 without a worker.
    """

    trader: str
    worker: str | None
    pool: Key | None = None
    reason: str = ""
    message: str = ""
    generation: int = 0
    incarnation: int = 0

    @property
    def runs_as_asked(self) -> bool:
        """Assigned, in its newest version, not suspended: it should become Ready."""
        return self.worker is not None and not self.reason


@dataclass(frozen=True, slots=True)
class FeedPlan:
    """What a feed must build: symbols in order, intervals from short to long."""

    feed: MarketFeed
    symbols: tuple[str, ...]
    intervals: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """The workers of a pool.

    Attributes:
        feed: key of its feed, None where it can't have it (``reason`` and ``message`` say why; no workers then).
        workers: by name, in order of number: exactly those that shall exist, each with its whole assignment.
            An unchanged assignment is the very object of :class:`WorkerNow`.
        capacity: traders that fit in the most workers. used: traders assigned. pending: PoolFull.
    """

    pool: TraderPool
    feed: Key | None
    workers: Mapping[str, Assignment]
    capacity: int
    used: int
    pending: int
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do: whole state. Workers that are there and not in it go.

    Attributes:
        verdicts: by Trader, ``namespace/name``.
        memory: give it back in the next :class:`Current`.
        plan_again_ms: time at which a delay will have passed and planning again may change something;
            None: only when something changes.
    """

    feeds: Mapping[Key, FeedPlan]
    pools: Mapping[Key, PoolPlan]
    verdicts: Mapping[str, Verdict]
    memory: Memory
    plan_again_ms: int | None
