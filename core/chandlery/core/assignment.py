"""What a worker is told (assignment) and what it answers (worker status): the contract of the pod's API.

An assignment is whole state, never a delta, with a monotonic sequence and a hash over its content. A worker
refuses lower sequences and answers what it has applied, so lost, doubled, delayed or reordered messages
change nothing.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final, Literal

import msgspec

from chandlery.core.transports import Transport

#: Most Traders of one worker (``tradersPerWorker``); successors beside their predecessors come on top.
MOST_TRADERS: Final = 256


def surge_of(traders_per_worker: int) -> int:
    """How many successors a worker has room for beside its Traders: a quarter of them, at least one."""
    return max(1, -(-traders_per_worker // 4))


#: Most processes of one worker.
MOST_INCARNATIONS: Final = MOST_TRADERS + surge_of(MOST_TRADERS)


def trader_of(key: str) -> str:
    """The Trader's name within a :attr:`TraderAssignment.key`."""
    return key.rpartition("@")[0]


def incarnation_in(key: str) -> int:
    """The number within a :attr:`TraderAssignment.key`; 0: it has none (an earlier version named rings by the Trader)."""
    number = key.rpartition("@")[2]
    return int(number) if number.isdigit() else 0


Mode = Literal["active", "standby", "suspended"]
Trigger = Literal["CandleClose", "EveryUpdate"]


class SeriesRef(msgspec.Struct, frozen=True, order=True):
    """One series within a feed."""

    symbol: str
    interval: str


class TraderAssignment(msgspec.Struct, omit_defaults=True):
    """One Trader as its worker runs it; everything the worker needs, nothing it must look up.

    Attributes:
        trader: ``namespace/name``.
        uid: Kubernetes uid, or the manifest identity where there is no cluster.
        generation: the resource's generation (a count of spec changes).
        incarnation: grows with every (re)start that the planner asks for; signals carry it.
        strategy: strategy name in the catalogue, or the class name where ``source`` is given.
        source: Python text of the strategy, or None when the pool's image has it.
        symbols, interval: the series decided on. informative: series beside it.
        warmup: closed candles needed before the first call; None: what the strategy says.
        signal_ttl_ms: a closed candle that opened so much before the newest closed one of its series gets no call, counted.
        cooldown_ms: least event time between two signals of one rule and symbol.
        transport: how candles reach it; None: as its worker's settings say.
        memory_bytes: the trader's process is stopped above this resident size.
        from_ms: decides closed candles whose open time is this or later (event time, ms); earlier ones are another
            incarnation's. 0: no bound.
        until_ms: decides only candles whose open time is earlier than this; when it has decided them all and its
            signals are acknowledged it is ``Retired``. None: no bound.
        since_ms: since when candles are its to decide, ms: those that close after this, where no position tells how
            far it has come (its pod's rings are gone). The wall clock of whoever first made it active, or the
            ``from_ms`` at which it took over. 0: not known, it begins after the newest candle there is.

    ``mode`` from standby to active, ``generation``, ``tier``, ``from_ms`` and ``until_ms`` change in the running process,
    and ``since_ms`` beside it: it is for the process that starts next. Whatever else changes comes as another incarnation.
    """

    trader: str
    uid: str
    strategy: str
    symbols: list[str]
    interval: str
    generation: int = 1
    incarnation: int = 1
    parameters: dict[str, Any] = {}
    source: str | None = None
    informative: list[SeriesRef] = []
    warmup: int | None = None
    trigger: Trigger = "CandleClose"
    mode: Mode = "active"
    tier: str = "standard"
    signal_ttl_ms: int = 0
    cooldown_ms: int = 0
    memory_bytes: int = 256 * 1024 * 1024
    from_ms: int = 0
    until_ms: int | None = None
    since_ms: int = 0
    transport: Transport | None = None

    @property
    def key(self) -> str:
        """``namespace/name@INCARNATION``: what tells apart the two that a worker may have of one Trader."""
        return f"{self.trader}@{self.incarnation}"

    def series(self) -> list[SeriesRef]:
        """Every series that this Trader reads, its own first, without repetition."""
        own = [SeriesRef(symbol, self.interval) for symbol in self.symbols]
        return list(dict.fromkeys([*own, *self.informative]))


class Assignment(msgspec.Struct):
    """The whole state a worker shall have.

    Attributes:
        worker: name of the worker it is meant for.
        sequence: monotonic per worker, across restarts of whoever writes it.
        hash: :func:`content_hash` of ``traders``.
        traders: one entry an incarnation. Of one Trader there are at most two: the one that decides (lower
            incarnation) and its successor, which stands by until it takes over.
    """

    worker: str
    sequence: int
    hash: str
    traders: list[TraderAssignment]


_ordered: Final = msgspec.json.Encoder(order="deterministic")
encode: Final = _ordered.encode
decode_assignment: Final = msgspec.json.Decoder(Assignment).decode


def content_hash(traders: list[TraderAssignment]) -> str:
    """Hash of an assignment's content: 16 hex digits, equal for equal traders in whatever order.

    Fields at their default don't count: what is kept stays sound for a version that has got another field. Nor does
    ``since_ms``, which every active incarnation has: a worker of a version that doesn't know it takes the rest, and
    it never is a reason of its own to write an assignment.
    """
    body = _ordered.encode([_said_by(each) for each in sorted(traders, key=_by_incarnation)])
    return hashlib.sha256(body).hexdigest()[:16]


def _said_by(trader: TraderAssignment) -> dict[str, Any]:
    # Not omit_defaults: that compares by identity, which decoding changes.
    every = msgspec.structs.asdict(trader)
    said = {name: value for name, value in every.items() if name not in _DEFAULTS or value != _DEFAULTS[name]}
    said.pop("since_ms", None)
    return said


_DEFAULTS: Final[dict[str, Any]] = {
    field.name: field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    for field in msgspec.structs.fields(TraderAssignment)
    if not field.required
}


#: Assignments are counted from 1; whoever goes above another's number must still find one that JSON can carry.
MOST_SEQUENCE: Final = 2**53 - 1


def unsound(assignment: Assignment, worker: str) -> str:
    """Why nobody may go by this assignment, whoever wrote it; empty: it is sound.

    Args:
        worker: the one that it should be for.
    """
    if assignment.worker != worker:
        return f"assignment for worker {assignment.worker!r}, this is {worker!r}"
    if not 1 <= assignment.sequence <= MOST_SEQUENCE:
        return f"sequence {assignment.sequence} is not positive, or above {MOST_SEQUENCE}"
    if (digest := content_hash(assignment.traders)) != assignment.hash:
        return f"hash {assignment.hash!r} is not that of its traders ({digest})"
    return ""


def _by_incarnation(each: TraderAssignment) -> tuple[str, int]:
    return each.trader, each.incarnation


TraderState = Literal[
    "Pending",  # assigned, its process not started yet
    "Init",  # process started, strategy loading
    "Ready",  # attached to its series, not warm yet
    "Warm",  # enough history; standby stays here
    "Active",  # decides and signals
    "Blocked",  # its signal ring is full: waits for the broker
    "Backoff",  # ended unexpectedly; restarts at a known time
    "Stalled",  # will not get better without a change (bad parameter, unknown strategy)
    "Suspended",
    "Retired",  # has decided everything up to its ``until_ms``, and its signals are acknowledged
    "Stopping",
]
#: States in which the trader's own process has said READY for its generation.
READY_STATES: Final = frozenset({"Ready", "Warm", "Active", "Blocked", "Retired"})


class TraderStatus(msgspec.Struct, omit_defaults=True):
    """One incarnation of a Trader as its worker sees it.

    Counters start at 0 with the Trader in this worker, not with its process; a successor's start at 0 with it.

    Attributes:
        last_open_time_ms: open time of the newest closed candle that it has begun to signal on or is done with, over
            all its symbols; whatever can have left its process is covered.
        until_ms: the end that its process has taken in, or will be launched with: nothing at or after it is decided
            beyond what ``last_open_time_ms`` shows. Known before the whole assignment is acknowledged, which waits
            for every other Trader too.
        transport: how candles reach its process, or reached the last one it had.
    """

    state: TraderState
    reason: str = ""
    message: str = ""
    generation: int = 0
    incarnation: int = 0
    pid: int = 0
    attempt: int = 0
    restarts: int = 0
    code: str = ""
    warm_have: int = 0
    warm_need: int = 0
    calls: int = 0
    signals: int = 0
    reruns: int = 0
    stale: int = 0
    lapped: int = 0
    cooled_down: int = 0
    informative_missing: int = 0
    errors: int = 0
    blocked: int = 0
    rss_bytes: int = 0
    last_open_time_ms: int = 0
    last_error: str = ""
    until_ms: int | None = None
    transport: str = ""
    pss_bytes: int = 0


class WorkerStatus(msgspec.Struct):
    """Answer of ``GET /v1/status``.

    Attributes:
        version: grows with every change of what follows; ``?after=VERSION&wait_ms=N`` waits for a newer one.
        sequence, hash: of the assignment that every trader process has acknowledged (0: none).
        received_sequence: of the newest assignment taken in.
        traders: by Trader. Where two incarnations of one are here, the lower one.
        successors: by Trader: the higher incarnation, where two are here.
        catalogue: the strategies that this worker can run.
        feed: the feed's counters and gauges, see docs/status.md.
    """

    worker: str
    version: int
    sequence: int
    hash: str
    received_sequence: int
    supervisor_connected: bool
    traders: dict[str, TraderStatus]
    catalogue: list[dict[str, Any]]
    feed: dict[str, Any]
    successors: dict[str, TraderStatus] = {}


decode_status: Final = msgspec.json.Decoder(WorkerStatus).decode
