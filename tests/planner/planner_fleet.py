"""A fleet of workers as they behave towards a planner: late to hear, late to tell, each candle decided at most once.

Time is the number of candles of one second that have closed; a trader decides them in order, symbol by symbol.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from tests.planner import planner_worlds as worlds

from chandlery.core.assignment import (
    READY_STATES,
    Assignment,
    TraderAssignment,
    TraderState,
    TraderStatus,
    WorkerStatus,
)
from chandlery.core.resources import Trader, TraderPool
from chandlery.operator.planner import Current, Desired, Memory, Plan, WorkerNow, plan

Key = tuple[str, str]
#: Event time of the first candle, ms: of another year than the planner's clock.
EPOCH_MS = 1_700_000_000_000
STEP_MS = 1_000
#: Parameter value with which a strategy can't be loaded.
BROKEN = 13


@dataclass
class Process:
    """One incarnation in a worker."""

    spec: TraderAssignment
    state: TraderState = "Pending"
    due: dict[str, int] = field(default_factory=dict)
    last_ms: int = 0
    #: In a new pod: for so many steps its feed reads history, then it goes by its ``since_ms``.
    reads: int = 0
    recalls: bool = False

    @property
    def settled(self) -> bool:
        return self.state not in ("Pending", "Init")

    @property
    def is_broken(self) -> bool:
        return self.spec.parameters.get("fast") == BROKEN

    def told(self) -> TraderStatus:
        reason = "BadStrategy" if self.state == "Stalled" else ""
        return TraderStatus(
            self.state,
            reason,
            "can't be loaded" if reason else "",
            generation=self.spec.generation,
            incarnation=self.spec.incarnation,
            last_open_time_ms=self.last_ms,
            until_ms=self.spec.until_ms,
        )


@dataclass
class Member:
    """One worker."""

    wanted: Assignment
    sequence: int = 0
    hash: str = ""
    ready: bool = False
    was_ready: bool = False
    since_ms: int = 0
    processes: dict[tuple[str, int], Process] = field(default_factory=dict)
    status: WorkerStatus | None = None
    outdated: bool = False
    unmade: bool = False


@dataclass
class Fleet:
    """All workers, and the market."""

    now_ms: int = 1_000_000
    closed: int = 0
    members: dict[tuple[Key, str], Member] = field(default_factory=dict)
    memory: Memory = field(default_factory=Memory)
    #: (trader, symbol, candle) → incarnations that decided it.
    decided: dict[tuple[str, str, int], list[int]] = field(default_factory=dict)
    plans: int = 0
    #: Names of workers in which nothing can be loaded.
    broken_on: set[str] = field(default_factory=set)
    #: Symbols that are traded no more, and how many candles of them there are. What starts now has none of them: it says
    #: that it isn't warm, and decides on its others all the same.
    delisted: dict[str, int] = field(default_factory=dict)

    @property
    def current(self) -> Current:
        workers: dict[Key, dict[str, WorkerNow]] = {}
        for (pool, name), one in self.members.items():
            workers.setdefault(pool, {})[name] = WorkerNow(
                one.wanted, one.ready, one.since_ms, one.was_ready, one.status, one.outdated, unmade=one.unmade
            )
        return Current(workers, self.memory)

    @property
    def wall_ms(self) -> int:
        """The wall clock: half a candle after the newest has closed."""
        return EPOCH_MS + self.closed * STEP_MS + STEP_MS // 2

    # The operator's side ------------------------------------------------------------------------------------

    def plan(self, wanted: Desired) -> Plan:
        made = plan(wanted, self.current, now_ms=self.now_ms, wall_ms=self.wall_ms)
        # An old one that had nothing left to decide when its successor took over goes with the next plan.
        wall_ms = self.wall_ms + 1
        settled = plan(wanted, replace(self.after(made), memory=made.memory), now_ms=self.now_ms, wall_ms=wall_ms)
        after = replace(self.after(settled), memory=settled.memory)
        again = plan(wanted, after, now_ms=self.now_ms, wall_ms=wall_ms + 1)
        for key, pool in settled.pools.items():
            assert list(again.pools[key].workers) == list(pool.workers)
            for name, assignment in pool.workers.items():
                assert again.pools[key].workers[name] is assignment, "planning its own result changed something"
        self.carry_out(made)
        self.plans += 1
        return made

    def after(self, made: Plan) -> Current:
        """What is there right after a plan is written, before any worker has heard of it."""
        now = self.current.workers
        workers: dict[Key, dict[str, WorkerNow]] = {}
        for key, pool in made.pools.items():
            for name, assignment in pool.workers.items():
                fresh = WorkerNow(assignment, False, self.now_ms, was_ready=False)
                workers.setdefault(key, {})[name] = replace(now.get(key, {}).get(name, fresh), assignment=assignment)
        return Current(workers)

    def carry_out(self, made: Plan) -> None:
        wanted = {(key, name): one for key, pool in made.pools.items() for name, one in pool.workers.items()}
        self.members = {key: one for key, one in self.members.items() if key in wanted}
        for key, assignment in wanted.items():
            if key in self.members:
                self.members[key].wanted = assignment
            else:
                self.members[key] = Member(assignment, since_ms=self.now_ms)
            pool = made.pools[key[0]]
            if key[1] in pool.to_roll:
                self.roll(key)
        self.memory = made.memory

    def forget(self) -> None:
        """Another operator: it knows what is kept, and has heard of nobody yet."""
        self.memory = Memory()
        for one in self.members.values():
            one.status = None
            one.since_ms, one.was_ready = self.now_ms, bool(one.wanted.traders)

    # The workers' side --------------------------------------------------------------------------------------

    def roll(self, key: tuple[Key, str]) -> None:
        """Its pod is replaced by one of the newest template."""
        self.down(key)
        self.members[key].outdated = False

    def down(self, key: tuple[Key, str]) -> None:
        one = self.members[key]
        one.ready, one.since_ms, one.status, one.sequence, one.hash = False, self.now_ms, None, 0, ""
        for process in one.processes.values():
            process.state = "Pending"

    def unmake(self, key: tuple[Key, str]) -> None:
        """It is gone, and refused when it is to be made again."""
        self.down(key)
        self.members[key].unmade = True

    def lose_pod(self, key: tuple[Key, str], reads: int = 0) -> None:
        """Its pod is replaced, and the positions of its traders are gone with it."""
        self.down(key)
        one = self.members[key]
        one.processes = {name: Process(each.spec, reads=reads, recalls=True) for name, each in one.processes.items()}

    def up(self, key: tuple[Key, str]) -> None:
        one = self.members[key]
        if not (one.ready or one.unmade):
            one.ready, one.was_ready, one.since_ms = True, True, self.now_ms
            self.hear(key)

    def hear(self, key: tuple[Key, str]) -> None:
        """It takes its newest assignment."""
        one = self.members[key]
        if not one.ready:
            return
        before = one.processes
        one.processes = {}
        for spec in one.wanted.traders:
            name = (spec.trader, spec.incarnation)
            process = before.get(name) or Process(spec, recalls=True)
            one.processes[name] = self._told(process, spec)
        one.sequence, one.hash = one.wanted.sequence, one.wanted.hash
        self.tell(key)

    def _told(self, process: Process, spec: TraderAssignment) -> Process:
        was = process.spec
        process.spec = spec
        if was.mode == "standby" and spec.mode == "active" and self._may_begin(process):
            self._begin(process)
        if process.state == "Retired" and spec.until_ms != was.until_ms:
            process.state = "Active"
        return process

    def _lacks(self, process: Process) -> bool:
        return bool(self.delisted.keys() & {*process.spec.symbols})

    def _may_begin(self, process: Process) -> bool:
        return process.state == "Warm" or (process.state == "Ready" and not process.reads and self._lacks(process))

    def _begin(self, process: Process) -> None:
        process.state = "Ready" if self._lacks(process) else "Active"
        for symbol in process.spec.symbols:
            begins_ms = process.spec.from_ms or (process.spec.since_ms if process.recalls else 0)
            bound = (begins_ms - EPOCH_MS) // STEP_MS if begins_ms else self.closed
            process.due.setdefault(symbol, bound)

    def advance(self, key: tuple[Key, str]) -> None:
        """Every process of a worker gets one step further in its start."""
        one = self.members[key]
        if not one.ready:
            return
        for process in one.processes.values():
            if process.spec.mode == "suspended":
                process.state = "Suspended"
            elif process.state in ("Pending", "Suspended"):
                process.state = "Init"
            elif process.state == "Init":
                process.state = "Stalled" if process.is_broken or key[1] in self.broken_on else "Ready"
            elif process.state == "Ready" and process.reads:
                process.reads -= 1
            elif process.state == "Ready" and not self._lacks(process):
                process.state = "Warm"
            if process.spec.mode == "active" and self._may_begin(process):
                self._begin(process)
        self.tell(key)

    def decide(self, key: tuple[Key, str], *, most: int = 1_000, symbol: str = "") -> None:
        """Its traders decide what has closed; nobody is told of it yet."""
        one = self.members[key]
        for process in one.processes.values() if one.ready else ():
            if process.state != "Active" and not (process.state == "Ready" and self._lacks(process)):
                continue
            for name in process.due:
                if not symbol or symbol == name:
                    self._decide(process, name, most)

    def _decide(self, process: Process, symbol: str, most: int) -> None:
        spec = process.spec
        closed = self.delisted.get(symbol, self.closed)
        for _ in range(most):
            candle = process.due[symbol]
            open_ms = EPOCH_MS + candle * STEP_MS
            if candle >= closed or (spec.until_ms is not None and open_ms >= spec.until_ms):
                return
            if open_ms >= spec.from_ms:
                self.decided.setdefault((spec.trader, symbol, candle), []).append(spec.incarnation)
                process.last_ms = max(process.last_ms, open_ms)
            process.due[symbol] = candle + 1

    def tell(self, key: tuple[Key, str]) -> None:
        """The operator hears how it is."""
        one = self.members[key]
        if not one.ready:
            return
        for process in one.processes.values():
            until_ms = process.spec.until_ms
            due_ms = [EPOCH_MS + candle * STEP_MS for candle in process.due.values()]
            if process.state == "Active" and until_ms is not None and all(each >= until_ms for each in due_ms):
                process.state = "Retired"
        settled = all(process.settled or process.spec.mode == "suspended" for process in one.processes.values())
        traders: dict[str, TraderStatus] = {}
        successors: dict[str, TraderStatus] = {}
        for name, incarnation in sorted(one.processes):
            into = successors if name in traders else traders
            into[name] = one.processes[name, incarnation].told()
        version = one.status.version + 1 if one.status is not None else 1
        one.status = WorkerStatus(
            one.wanted.worker,
            version,
            one.sequence if settled else 0,
            one.hash if settled else "",
            one.sequence,
            True,
            traders,
            [],
            {},
            successors,
        )

    # All together -------------------------------------------------------------------------------------------

    def close(self, candles: int = 1) -> None:
        self.closed += candles

    def turn(self, wanted: Desired) -> Plan:
        """One turn in which nothing is late."""
        made = self.plan(wanted)
        self.now_ms += 100
        for key in list(self.members):
            self.up(key)
            self.hear(key)
            self.advance(key)
        self.close()
        for key in list(self.members):
            self.decide(key)
            self.tell(key)
        return made

    def late_turn(self, wanted: Desired) -> Plan:
        """One turn in which traders decide on while they have not heard yet, and every other plan isn't heard at all."""
        made = self.plan(wanted)
        self.now_ms += 100
        self.close(2)
        for key in list(self.members):
            self.decide(key, symbol="BTC/USDT")
            if self.plans % 2:
                self.up(key)
                self.hear(key)
                self.advance(key)
                self.decide(key)
            self.tell(key)
        return made

    def settle(self, wanted: Desired, turns: int) -> Plan:
        for _ in range(turns):
            made = self.turn(wanted)
        return made

    def entries(self, trader: str) -> list[tuple[str, TraderAssignment]]:
        found = [
            (name, spec)
            for (_, name), one in self.members.items()
            for spec in one.wanted.traders
            if spec.trader == trader
        ]
        return sorted(found, key=lambda each: each[1].incarnation)

    def active(self, trader: str) -> list[Process]:
        return [
            process
            for one in self.members.values()
            for (name, _), process in one.processes.items()
            if name == trader and process.state in READY_STATES and process.spec.mode == "active"
        ]

    def doubled(self) -> Iterator[tuple[str, str, int]]:
        """Candles that were decided more than once."""
        return (key for key, incarnations in self.decided.items() if len(incarnations) > 1)

    def missed(self) -> Iterator[tuple[str, str, int]]:
        """Candles between the first and the last that a trader decided on a symbol, that nobody decided."""
        spans: dict[tuple[str, str], list[int]] = {}
        for trader, symbol, candle in self.decided:
            spans.setdefault((trader, symbol), []).append(candle)
        for (trader, symbol), candles in spans.items():
            for candle in range(min(candles), max(candles)):
                if (trader, symbol, candle) not in self.decided:
                    yield trader, symbol, candle


POOL = ("default", "pool")
A = "default/a"
TWO = ("BTC/USDT", "ETH/USDT")


def edited(fast: int, name: str = "a", **more: Any) -> Trader:
    return worlds.trader(name, parameters={"fast": fast}, symbols=TWO, **more)


def running(wanted: Desired, turns: int = 8) -> Fleet:
    fleet = Fleet()
    fleet.settle(wanted, turns)
    return fleet


def sound(fleet: Fleet) -> None:
    assert list(fleet.doubled()) == []
    assert list(fleet.missed()) == []


def wanted_of(*traders: Trader, in_pool: TraderPool | None = None, **more: Any) -> Desired:
    return worlds.desired(worlds.feed(), in_pool or worlds.pool(), *traders, **more)


def modes(fleet: Fleet, name: str = A) -> list[tuple[str, int | None]]:
    return [(spec.mode, spec.until_ms) for _, spec in fleet.entries(name)]


def restart(fleet: Fleet, hit: str) -> None:
    """The pod of a's worker, or a's process, starts again."""
    key = (POOL, "pool-0")
    if hit == "pod restarts":
        fleet.down(key)
        return
    fleet.members[key].processes[A, 1].state = "Init"
    fleet.tell(key)
