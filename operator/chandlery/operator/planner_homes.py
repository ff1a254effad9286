"""Where a pool's Traders are at home, and what each of them does next to run there. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

import msgspec

from chandlery.core.assignment import SeriesRef, TraderAssignment, encode, surge_of
from chandlery.core.checks import check_pool
from chandlery.core.manifests import Key
from chandlery.core.resources import TraderPool
from chandlery.operator.planner_placement import (
    MOST_ASSIGNMENT_BYTES,
    Bounds,
    Existing,
    Leaving,
    Placement,
    place,
)
from chandlery.operator.planner_rollout import Step, begins_beside, next_step, stands_beside
from chandlery.operator.planner_standing import Entry, Standing, content_digest
from chandlery.operator.planner_traders import Candidate, asleep
from chandlery.operator.planner_types import Current, Desired, Failed, Lack, Rollout, WorkerNow


def worker_name(pool: str, number: int) -> str:
    """Name of a pool's worker: ``{pool}-{number}``."""
    return f"{pool}-{number}"


def worker_number(name: str) -> int:
    """Number of a worker, from its name."""
    return int(name.rpartition("-")[2])


@dataclass(slots=True)
class Asked:
    """A Trader that may run.

    Attributes:
        wanted: what it shall run, active or suspended, without bounds; digest: of its content. incarnation: number of the next one.
        overdue: what is waited for in its change has had its time. home: worker that is its home so far.
        room: ``beside``: what runs and what shall run both find room; ``alone``: they don't, anywhere: one after the
            other; ``old``: not even that, so what runs stays.
        retires, rolls: what the plan made of it: the old one is waited for; a change is under way.
    """

    candidate: Candidate
    wanted: TraderAssignment
    digest: str
    standing: Standing
    incarnation: int
    overdue: bool
    home: str | None
    room: Literal["beside", "alone", "old"] = "beside"
    retires: bool = False
    rolls: bool = False

    @property
    def is_protected(self) -> bool:
        """Whether what runs may end only when its successor decides."""
        decider = self.standing.decider
        if decider is None or "suspended" in (self.wanted.mode, decider.assignment.mode):
            return False
        return not decider.lost and (decider.is_worth_keeping or self.standing.successor is not None)

    @property
    def may_stay(self) -> bool:
        """Whether what is assigned is better than nothing, where there is no room for what it shall become."""
        decider = self.standing.decider
        if decider is None or decider.lost:
            return False
        return decider.failure() is None or self.standing.successor is not None

    @property
    def may_step_back(self) -> bool:
        """Whether it may find room yet as it is, or with less beside it."""
        return self.room != "old" and self.may_stay and self.differs

    @property
    def is_stuck(self) -> bool:
        """Whether it runs where it is, and has lately failed elsewhere in this very version."""
        return self.is_protected and self.standing.move_failed and not self.differs and self.standing.successor is None

    @property
    def failed(self) -> Failed | None:
        """The successor that failed, as long as that matters."""
        return self.standing.failed if self.is_stuck else self.candidate.failed

    @property
    def differs(self) -> bool:
        """Whether what runs is another version."""
        decider = self.standing.decider
        return decider is not None and decider.digest != self.digest

    @property
    def is_edited(self) -> bool:
        """Whether what runs is another version, and not only suspended or resumed, which takes no room."""
        decider = self.standing.decider
        if decider is None or not self.differs:
            return False
        return content_digest(decider.assignment, mode="active") != content_digest(self.wanted, mode="active")

    @property
    def series(self) -> frozenset[SeriesRef]:
        """Every series that is read while the change is under way."""
        found = frozenset(self.wanted.series())
        if self.room == "beside" and self.is_protected and self.standing.decider is not None:
            found |= frozenset(self.standing.decider.assignment.series())
        return found

    @property
    def size_bytes(self) -> int:
        """Bytes of what is assigned while the change is under way."""
        size = _size(self.wanted)
        both = self.is_protected and (self.differs or self.standing.successor is not None)
        if self.room == "beside" and both and self.standing.decider is not None:
            size += _size(self.standing.decider.assignment)
        return size


def home_before(standing: Standing, digest: str, entries: list[Entry], pool: Key) -> str | None:
    """The worker that is a Trader's home so far."""
    decider, successor = standing.decider, standing.successor
    if decider is None:
        return next((one.worker for one in reversed(entries) if one.pool == pool), None)
    if successor is None:
        return decider.worker
    goes_back = decider.digest == digest != successor.digest
    if goes_back and successor.assignment.mode == "standby":
        return decider.worker
    return successor.worker


def place_all(desired: Desired, current: Current, asked: dict[str, Asked], now_ms: int) -> dict[Key, Placement]:
    """Place the Traders of every pool whose feed is there."""
    placements: dict[Key, Placement] = {}
    world = desired.world
    for key, pool in desired.pools.items():
        if next(check_pool(pool, world), None) is not None:
            continue
        mine = {name: one for name, one in asked.items() if one.candidate.pool == key}
        placement = _place(key, pool, desired, current, mine, now_ms)
        # What runs must not end for lack of room for what it shall become. Each round takes one step back at least.
        before: dict[str, Asked] = {}
        while stuck := [name for name in placement.waiting if mine[name].may_step_back]:
            for name in stuck:
                before[name] = replace(mine[name])
                _make_do(pool, mine[name], crowded=name in placement.crowded)
            placement = _place(key, pool, desired, current, mine, now_ms)
        # One may have stepped back beside another that had to do so after it: then there is room for it all the same.
        for name in [name for name in reversed(before) if mine[name].room == "old"]:
            stays, mine[name] = mine[name], before[name]
            tried = _place(key, pool, desired, current, mine, now_ms)
            if set(tried.waiting) <= set(placement.waiting):
                asked[name], placement = mine[name], tried
            else:
                mine[name] = stays
        placements[key] = placement
    return placements


def _make_do(pool: TraderPool, one: Asked, *, crowded: bool) -> None:
    one.room = "alone" if one.room == "beside" else "old"
    if one.room == "old":
        # Once a successor has been told to decide, the version that runs is that one: the other only retires.
        successor = one.standing.successor
        has_taken_over = successor is not None and successor.assignment.mode != "standby"
        old = successor if has_taken_over else one.standing.decider
        assert old is not None
        if not one.candidate.stays:  # else the version of before was kept for another reason already, which goes on
            message = full_message(pool, one.candidate, lack_of(pool, one.candidate, crowded=crowded))
            stays = f" (generation {old.assignment.generation} stays){asleep(one.candidate.suspended)}"
            one.candidate = replace(one.candidate, reason="PoolFull", message=message, stays=stays)
        # Suspending and resuming take effect all the same.
        one.wanted = msgspec.structs.replace(_unbounded(old.assignment), mode=one.wanted.mode)
        one.digest = content_digest(one.wanted)
        one.home = old.worker


def _unbounded(assignment: TraderAssignment) -> TraderAssignment:
    return msgspec.structs.replace(assignment, from_ms=0, until_ms=None, since_ms=0)


def _place(
    key: Key, pool: TraderPool, desired: Desired, current: Current, mine: Mapping[str, Asked], now_ms: int
) -> Placement:
    workers = current.workers.get(key, {})
    return place(
        {name: one.series for name, one in mine.items()},
        [_existing(name, worker, mine) for name, worker in workers.items()],
        bounds_of(pool),
        surplus_since_ms=current.memory.surplus_since_ms.get(pool.full_name),
        now_ms=now_ms,
        delays=desired.delays,
        sizes={name: one.size_bytes for name, one in mine.items()},
        stuck=frozenset(name for name, one in mine.items() if one.is_stuck),
        edited=frozenset(name for name, one in mine.items() if one.is_edited),
        alone=frozenset(name for name, one in mine.items() if one.room == "alone"),
        begun=frozenset(name for name, one in mine.items() if one.standing.successor is not None),
        running={
            name: _takes(one.standing.decider)
            for name, one in mine.items()
            if one.is_protected and one.standing.decider
        },
    )


def _existing(name: str, worker: WorkerNow, mine: Mapping[str, Asked]) -> Existing:
    leaving = {
        trader: _takes(one.standing.decider)
        for trader, one in mine.items()
        if one.standing.decider is not None
        and one.standing.decider.worker == name
        and one.home != name
        and one.is_protected
    }
    return Existing(
        worker_number(name),
        tuple(trader for trader, one in mine.items() if one.home == name),
        worker.ready,
        worker.since_ms,
        worker.was_ready,
        leaving,
        worker.outdated,
        worker.rolled_out,
        worker.unmade,
    )


def _takes(decider: Entry) -> Leaving:
    series = frozenset(decider.assignment.series())
    return Leaving(worker_number(decider.worker), series, _size(decider.assignment))


def _size(assignment: TraderAssignment) -> int:
    return len(encode(assignment)) + 1


def bounds_of(pool: TraderPool) -> Bounds:
    """What a pool allows."""
    spec = pool.spec
    return Bounds(
        least=spec.workers.min,
        most=spec.workers.max,
        spare=spec.workers.spare,
        traders=spec.traders_per_worker,
        series=spec.segment.series,
    )


def steps_of(pool: TraderPool, placement: Placement, asked: Mapping[str, Asked]) -> dict[str, Step]:
    """What each placed Trader does next; of those that want a successor beside them, as many as a worker holds begin."""
    steps: dict[str, Step] = {}
    surge = surge_of(pool.spec.traders_per_worker)
    for number, names in placement.workers.items():
        home = worker_name(pool.name, number)
        free = surge - sum(1 for name in names if stands_beside(asked[name].standing, home))
        for name in names:
            one = asked[name]
            alone = one.room == "alone" and one.standing.decider is not None and one.standing.decider.worker == home
            begins = not alone and begins_beside(one.standing, one.wanted, one.digest, home)
            steps[name] = next_step(
                one.standing,
                one.wanted,
                one.digest,
                home,
                incarnation=one.incarnation,
                may_begin=not begins or free > 0,
                in_place=alone,
                overdue=one.overdue,
            )
            free -= begins
            if steps[name].rollout is None and one.is_stuck:
                steps[name] = replace(steps[name], rollout=_stays(one, home))
    return steps


def _stays(one: Asked, home: str) -> Rollout:
    failed = one.standing.failed
    assert failed is not None
    message = (
        f"its move failed, so it stays on worker {home}, which is not rolled: {failed.message or failed.reason}; "
        "it is tried again in some minutes"
    )
    return Rollout("Waiting", one.wanted.generation, message, is_move=True)


def lack_of(pool: TraderPool, candidate: Candidate, *, crowded: bool) -> Lack:
    """What a Trader lacks that finds no room.

    Args:
        crowded: only bytes of an assignment are wanting.
    """
    if crowded:
        return "bytes"
    return "series" if len(candidate.series) > pool.spec.segment.series else "room"


def full_message(pool: TraderPool, candidate: Candidate, lack: Lack) -> str:
    """Why a Trader finds no room, and which field to raise."""
    spec = pool.spec
    if lack == "bytes":
        return (
            f"its strategy's source and parameters don't fit beside those of the others: the assignments of a worker of "
            f"TraderPool {pool.full_name} hold {MOST_ASSIGNMENT_BYTES // 1024} KiB; raise the pool's spec.workers.max, "
            f"or put the strategy into the pool's image"
        )
    if lack == "series":
        return (
            f"it reads {len(candidate.series)} series, a worker of TraderPool {pool.full_name} holds "
            f"{spec.segment.series}: raise the pool's spec.segment.series"
        )
    return (
        f"TraderPool {pool.full_name} has no room ({spec.workers.max} workers of {spec.traders_per_worker} traders and "
        f"{spec.segment.series} series): raise its spec.workers.max, spec.tradersPerWorker or spec.segment.series"
    )


#: By what the Traders of a pool lack, in the order of its message: what helps them.
_HELPS: Final[Mapping[Lack, str]] = {
    "room": "raise spec.workers.max, spec.tradersPerWorker or spec.segment.series",
    "series": "raise spec.segment.series, for one alone reads more series than a worker holds",
    "bytes": f"raise spec.workers.max, or put strategies into the image, for their sources and parameters fill the "
    f"{MOST_ASSIGNMENT_BYTES // 1024} KiB of a worker's assignments",
}


def pool_full_message(lacks: Collection[Lack]) -> str:
    """What a pool says of its Traders that find no room, and which fields to raise; empty: all find room."""
    helps = "; ".join(said for lack, said in _HELPS.items() if lack in lacks)
    return f"some of its traders find no room: {helps}" if helps else ""
