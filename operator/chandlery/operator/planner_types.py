"""What the planner is given and what it gives: plain values, no resource of the outside in them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec

from chandlery.core.assignment import Assignment, WorkerStatus
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
        retire_ms: an incarnation whose successor decides, and that has not retired for this long, goes all the same.
            It waits for candles that have closed on its busiest symbol to close on the others too, and for its
            signals to be acknowledged: a feed that reconnects (backoff 30 s at most), its next heartbeat (1 s), a
            broker that restarts (4 s), and as much again for a busy machine.
        move_again_ms: a move whose successor failed is tried again after this long. Until then what runs stays where it
            is, and its worker is not rolled: a template in which nothing runs must not end what does.
        coming_up_ms: for so long after a worker has got Ready, one of its traders that tells of no candle may still find
            some that are due to it: its feed reads history (seconds; some ten where Kafka is far or busy), its
            processes start one after the other.
    """

    unready_ms: int = 30_000
    starting_ms: int = 300_000
    shrink_ms: int = 300_000
    retire_ms: int = 70_000
    move_again_ms: int = 300_000
    coming_up_ms: int = 60_000


@dataclass(frozen=True, slots=True)
class Waited:
    """That a Trader's status, as it was last written, awaits an approval: of which generation, and in what words."""

    generation: int
    message: str


@dataclass(frozen=True, slots=True)
class Desired:
    """What shall be: sound resources, by (namespace, name).

    Attributes:
        configmaps: data of ConfigMaps with strategy source. namespaces: labels of namespaces.
        problems: what the catalogue check found, by Trader; the worst word first.
        unknown_symbols: what sources of feeds say they don't have, by feed.
        waited: Traders whose statuses await an approval: who plans anew knows of no version before where none runs.
        unreadable: see :class:`World`.
    """

    feeds: Mapping[Key, MarketFeed] = field(default_factory=dict)
    pools: Mapping[Key, TraderPool] = field(default_factory=dict)
    traders: Mapping[Key, Trader] = field(default_factory=dict)
    configmaps: Mapping[Key, Mapping[str, str]] = field(default_factory=dict)
    namespaces: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    problems: Mapping[Key, Sequence[Problem]] = field(default_factory=dict)
    unknown_symbols: Mapping[Key, Collection[str]] = field(default_factory=dict)
    waited: Mapping[Key, Waited] = field(default_factory=dict)
    delays: Delays = Delays()
    unreadable: Mapping[tuple[str, Key], str] = field(default_factory=dict)

    @property
    def world(self) -> World:
        """What resources may refer to."""
        return World(self.feeds, self.pools, self.configmaps, self.namespaces, self.unreadable)

    def unknown_of(self, trader: Trader) -> Collection[str]:
        """Symbols that the source of a Trader's feed says it doesn't have."""
        return self.unknown_in(trader.spec.pool.key(trader.namespace))

    def unknown_in(self, pool: Key) -> Collection[str]:
        """Symbols that the source of a pool's feed says it doesn't have."""
        known = self.pools.get(pool)
        return self.unknown_symbols.get(known.spec.feed.key(known.namespace), ()) if known is not None else ()


def desired_of(
    manifests: ManifestSet,
    problems: Iterable[Problem] = (),
    delays: Delays | None = None,
    unknown_symbols: Mapping[Key, Collection[str]] | None = None,
) -> Desired:
    """What manifests ask for.

    Args:
        problems: from :func:`chandlery.core.manifests.check_against_catalogue`; those of Traders count.
        unknown_symbols: what sources of feeds say they don't have, by feed.
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
        unknown_symbols=unknown_symbols or {},
        delays=delays or Delays(),
    )


@dataclass(frozen=True, slots=True)
class WorkerNow:
    """A worker as it is.

    Attributes:
        assignment: the newest one decided for it, acknowledged or not.
        ready: whether it is Ready. since_ms: since when it is so (or since it was made).
        was_ready: whether it has been Ready since it was made.
        status: its newest answer; None: it has given none (since its pod came, or since who plans began).
        outdated: its pod is not of the newest template yet. rolled_out: nothing of a roll is under way with it.
        unmade: there is nothing of it that could come up: it has been refused, and waits for somebody to do something.
    """

    assignment: Assignment
    ready: bool
    since_ms: int
    was_ready: bool = True
    status: WorkerStatus | None = None
    outdated: bool = False
    rolled_out: bool = True
    unmade: bool = False


class Seen(msgspec.Struct, frozen=True):
    """Last generation, incarnation and content digest given to a Trader, and the uid it had.

    Attributes:
        since_ms: since when candles were its to decide; 0: not known, or it may no longer have decided them.
        pool, feed: where that was (``namespace/name``). pool empty: it has left that one, and runs in no other yet.
    """

    uid: str
    generation: int
    incarnation: int
    digest: str
    since_ms: int = 0
    pool: str = ""
    feed: str = ""


class Failed(msgspec.Struct, frozen=True):
    """A successor that did not get as far as to take over.

    Attributes:
        digest: of its content: that of another version, or of what runs (then it is a move that failed).
        reason, message: why. at_ms: when, by the planner's clock.
    """

    digest: str
    generation: int
    reason: str
    message: str
    at_ms: int = 0


class Memory(msgspec.Struct, frozen=True):
    """What the planner must find again next time; plain data, to be kept as it is (:class:`Plan` has the next).

    Losing it is harmless: delays begin anew, a version that failed is tried once more, and Traders and workers that
    are there are known from their assignments.

    Attributes:
        surplus_since_ms: by pool (``namespace/name``): since when it has more workers than it needs.
        sequences: by worker (``namespace/name``): last sequence, so that a worker that comes back under
            its name goes on from there.
        traders: by Trader (``namespace/name``).
        taking_over_since_ms: by Trader: since when its successor decides while it has not retired.
        failed: by Trader: the version that failed, while an older one runs.
    """

    surplus_since_ms: dict[str, int] = {}
    sequences: dict[str, int] = {}
    traders: dict[str, Seen] = {}
    taking_over_since_ms: dict[str, int] = {}
    failed: dict[str, Failed] = {}


#: Most entries that Memory keeps of Traders and of workers that are gone; the oldest go first.
MAX_REMEMBERED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Current:
    """What is: by pool its workers by name, and what the last plan wanted remembered."""

    workers: Mapping[Key, Mapping[str, WorkerNow]] = field(default_factory=dict)
    memory: Memory = field(default_factory=Memory)


#: How far the change of a Trader from one incarnation to the next is.
Phase = Literal[
    "Waiting",  # for room, or for its turn
    "Warming",  # the successor stands by until it is warm
    "HandingOver",  # the old one has been told to stop at a candle; which one it was, is not known yet
    "TakingOver",  # the successor decides; the old one has yet to retire
]


@dataclass(frozen=True, slots=True)
class Rollout:
    """A Trader's change to another version, or of its worker, while the incarnation before it decides.

    Attributes:
        generation, incarnation, worker: of the successor (incarnation 0, worker empty: none has been started yet).
        is_move: the same version, on another worker.
        from_ms: open time of the first candle that the successor decides, once that is known (0: not yet).
        message: one sentence for a person.
    """

    phase: Phase
    generation: int
    message: str
    incarnation: int = 0
    worker: str = ""
    is_move: bool = False
    from_ms: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a Trader.

    Attributes:
        trader: ``namespace/name``.
        worker: name of the worker with the incarnation that decides; None: none has one, and ``reason`` says why.
        pool: key of the pool that runs it, where that is known.
        reason: stable word: ``PoolFull``, ``UnknownPool``, ``UnknownFeed``, ``NotAllowed``, ``UnknownStrategy``,
            ``BadParameter``, ``UnknownSymbol`` …; with a worker: ``Suspended`` (it keeps its place),
            or why the version before is kept (``BadParameter``, ``AwaitingApproval`` …). Else empty.
        message: one sentence that says what to do; empty without a reason.
        generation, incarnation: of the one that decides, as assigned; 0 without a worker.
        rollout: the change that is under way; None: none is.
        keeps: the version of before runs, and ``reason`` says why the newest one doesn't. failed: it has been tried.
        suspended: who wants that it decides nothing, in words; empty: nobody.
        is_of_newest: ``reason`` is of the newest version alone: it stops none that runs.
    """

    trader: str
    worker: str | None
    pool: Key | None = None
    reason: str = ""
    message: str = ""
    generation: int = 0
    incarnation: int = 0
    rollout: Rollout | None = None
    keeps: bool = False
    failed: Failed | None = None
    is_of_newest: bool = False
    suspended: str = ""

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


#: What a Trader that finds no room lacks.
Lack = Literal[
    "room",  # a worker with a place, or with room for its series
    "series",  # a worker that holds as many series as it reads alone
    "bytes",  # a worker whose assignment takes its source and parameters beside the others'
]


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """The workers of a pool.

    Attributes:
        feed: key of its feed, None where it can't have it (``reason`` and ``message`` say why; no workers then).
        workers: by name, in order of number: exactly those that shall exist, each with its whole assignment.
            An unchanged assignment is the very object of :class:`WorkerNow`.
        capacity: traders that fit in the most workers. used: traders assigned. pending: PoolFull.
        rolling: traders whose change of version or worker is under way.
        to_roll: workers that run an older template, and may be given the newest now: what could move away has.
        lacks: what those that are pending lack. One whose version of before stays for want of room has its place: it is
            not pending, and its verdict alone says what it lacks.
    """

    pool: TraderPool
    feed: Key | None
    workers: Mapping[str, Assignment]
    capacity: int
    used: int
    pending: int
    reason: str = ""
    message: str = ""
    rolling: int = 0
    to_roll: tuple[str, ...] = ()
    lacks: frozenset[Lack] = frozenset()


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
