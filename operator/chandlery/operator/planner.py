"""The planner: resources in, workers and their assignments out. Pure; the operator and the local runtime share it.

Every Trader gets a verdict: exactly one worker, or no worker and a reason. Planning its own result again changes
nothing and gives back the very same assignments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

import msgspec

from chandlery.core.assignment import Assignment, TraderAssignment, content_hash, encode
from chandlery.core.checks import check_pool
from chandlery.core.intervals import parse_interval
from chandlery.core.manifests import Key
from chandlery.core.resources import TraderPool
from chandlery.operator.planner_placement import MOST_ASSIGNMENT_BYTES, Bounds, Existing, Placement, place
from chandlery.operator.planner_traders import Before, Candidate, Refusal, content_digest, judge, seen_of
from chandlery.operator.planner_types import (
    MAX_REMEMBERED,
    Current,
    Delays,
    Desired,
    FeedPlan,
    Memory,
    Plan,
    PoolPlan,
    Seen,
    Verdict,
    WorkerNow,
    desired_of,
)

__all__ = [
    "Current",
    "Delays",
    "Desired",
    "FeedPlan",
    "Memory",
    "Plan",
    "PoolPlan",
    "Verdict",
    "WorkerNow",
    "desired_of",
    "plan",
    "worker_name",
    "worker_number",
]


def worker_name(pool: str, number: int) -> str:
    """Name of a pool's worker: ``{pool}-{number}``."""
    return f"{pool}-{number}"


def worker_number(name: str) -> int:
    """Number of a worker, from its name."""
    return int(name.rpartition("-")[2])


def plan(desired: Desired, current: Current, *, now_ms: int) -> Plan:
    """Decide what shall run where.

    Args:
        desired: sound resources, and what the catalogue check found.
        current: the workers that are there, and the memory of the last plan.
        now_ms: now, by any clock that the times in ``current`` share, ms.
    """
    before = _assigned_before(current)
    candidates: dict[str, Candidate] = {}
    verdicts: dict[str, Verdict] = {}
    for key in sorted(desired.traders):
        trader = desired.traders[key]
        name = trader.full_name
        judged = judge(trader, desired, before.get(name), current.memory.traders.get(name))
        if isinstance(judged, Refusal):
            verdicts[name] = Verdict(name, None, judged.pool, judged.reason, judged.message)
        else:
            candidates[name] = judged
    placements = _place_all(desired, current, candidates, before, now_ms)
    pools: dict[Key, PoolPlan] = {}
    for key in sorted(desired.pools):
        pools[key] = _plan_pool(desired, current, key, placements.get(key), candidates, before, verdicts)
    return Plan(
        feeds=_plan_feeds(desired, pools),
        pools=pools,
        verdicts=dict(sorted(verdicts.items())),
        memory=_remember(current, before, pools, placements),
        plan_again_ms=min((one.again_ms for one in placements.values() if one.again_ms is not None), default=None),
    )


def _assigned_before(current: Current) -> dict[str, Before]:
    """Where each Trader is. One that is in two workers (a move cut short) counts where it is newest."""
    found: dict[str, Before] = {}
    for pool in sorted(current.workers):
        workers = current.workers[pool]
        for name in sorted(workers, key=worker_number):
            for trader in workers[name].assignment.traders:
                other = found.get(trader.trader)
                if other is None or other.assignment.incarnation < trader.incarnation:
                    found[trader.trader] = Before(pool, name, trader)
    return found


def _place_all(
    desired: Desired,
    current: Current,
    candidates: Mapping[str, Candidate],
    before: Mapping[str, Before],
    now_ms: int,
) -> dict[Key, Placement]:
    wanted: dict[Key, dict[str, Candidate]] = {}
    for name, candidate in candidates.items():
        wanted.setdefault(candidate.pool, {})[name] = candidate
    placements: dict[Key, Placement] = {}
    world = desired.world
    for key, pool in desired.pools.items():
        if next(check_pool(pool, world), None) is not None:
            continue
        existing = [_existing(key, name, worker, before) for name, worker in current.workers.get(key, {}).items()]
        placements[key] = place(
            {name: candidate.series for name, candidate in wanted.get(key, {}).items()},
            existing,
            bounds_of(pool),
            surplus_since_ms=current.memory.surplus_since_ms.get(pool.full_name),
            now_ms=now_ms,
            delays=desired.delays,
            sizes={name: len(encode(candidate.assignment)) + 1 for name, candidate in wanted.get(key, {}).items()},
        )
    return placements


def _existing(pool: Key, name: str, worker: WorkerNow, before: Mapping[str, Before]) -> Existing:
    traders = tuple(
        trader.trader
        for trader in worker.assignment.traders
        if (before[trader.trader].pool, before[trader.trader].worker) == (pool, name)
    )
    return Existing(worker_number(name), traders, worker.ready, worker.since_ms, worker.was_ready)


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


def _plan_pool(
    desired: Desired,
    current: Current,
    key: Key,
    placement: Placement | None,
    candidates: Mapping[str, Candidate],
    before: Mapping[str, Before],
    verdicts: dict[str, Verdict],
) -> PoolPlan:
    """Write a placed pool's assignments, and the verdicts of its Traders."""
    pool = desired.pools[key]
    capacity = pool.spec.workers.max * pool.spec.traders_per_worker
    if placement is None:
        finding = next(check_pool(pool, desired.world))
        return PoolPlan(pool, None, {}, capacity, 0, 0, finding.reason, finding.message)
    workers: dict[str, Assignment] = {}
    for number, names in placement.workers.items():
        worker = worker_name(pool.name, number)
        traders = [_settled(candidates[name], before.get(name), key, worker) for name in names]
        for trader in traders:
            candidate = candidates[trader.trader]
            verdicts[trader.trader] = Verdict(
                trader.trader,
                worker,
                key,
                candidate.reason,
                candidate.message + candidate.stays,
                trader.generation,
                trader.incarnation,
            )
        now = current.workers.get(key, {}).get(worker)
        workers[worker] = _next_assignment(worker, traders, now, current.memory, f"{key[0]}/{worker}")
    for name in placement.waiting:
        candidate = candidates[name]
        if candidate.stays:  # the version of before has lost its place, and the one of now may not run
            verdicts[name] = Verdict(name, None, key, candidate.reason, candidate.message)
        else:
            verdicts[name] = Verdict(name, None, key, "PoolFull", _full(pool, candidate, name in placement.crowded))
    used = sum(len(names) for names in placement.workers.values())
    feed = pool.spec.feed.key(pool.namespace)
    return PoolPlan(pool, feed, workers, capacity, used, len(placement.waiting))


def _settled(candidate: Candidate, before: Before | None, pool: Key, worker: str) -> TraderAssignment:
    """The Trader's assignment in this worker; one more incarnation if it is another than before, or elsewhere."""
    wanted = candidate.assignment
    if before is None or (before.pool, before.worker) != (pool, worker):
        return msgspec.structs.replace(wanted, incarnation=wanted.incarnation + 1)
    if content_digest(wanted) == content_digest(before.assignment):
        return wanted
    return msgspec.structs.replace(wanted, incarnation=wanted.incarnation + 1)


def _next_assignment(
    worker: str, traders: list[TraderAssignment], now: WorkerNow | None, memory: Memory, remembered: str
) -> Assignment:
    digest = content_hash(traders)
    if now is not None and now.assignment.hash == digest:
        return now.assignment
    last = max(now.assignment.sequence if now else 0, memory.sequences.get(remembered, 0))
    return Assignment(worker, last + 1, digest, traders)


def _full(pool: TraderPool, candidate: Candidate, crowded: bool) -> str:
    spec = pool.spec
    if crowded:
        return (
            f"its strategy's source and parameters don't fit beside those of the others: the assignments of a worker of "
            f"TraderPool {pool.full_name} hold {MOST_ASSIGNMENT_BYTES // 1024} KiB; raise the pool's spec.workers.max, "
            f"or put the strategy into the pool's image"
        )
    if len(candidate.series) > spec.segment.series:
        return (
            f"it reads {len(candidate.series)} series, a worker of TraderPool {pool.full_name} holds "
            f"{spec.segment.series}: raise the pool's spec.segment.series"
        )
    return (
        f"TraderPool {pool.full_name} has no room ({spec.workers.max} workers of {spec.traders_per_worker} traders and "
        f"{spec.segment.series} series): raise its spec.workers.max, spec.tradersPerWorker or spec.segment.series"
    )


def _plan_feeds(desired: Desired, pools: Mapping[Key, PoolPlan]) -> dict[Key, FeedPlan]:
    symbols: dict[Key, set[str]] = {key: set() for key in desired.feeds}
    intervals: dict[Key, set[str]] = {key: set() for key in desired.feeds}
    for key, feed in desired.feeds.items():
        intervals[key].update(feed.spec.intervals)
        if feed.spec.symbols != "auto":
            symbols[key].update(feed.spec.symbols)
    for pool in pools.values():
        if pool.feed is None:
            continue
        for assignment in pool.workers.values():
            for series in (one for trader in assignment.traders for one in trader.series()):
                symbols[pool.feed].add(series.symbol)
                intervals[pool.feed].add(series.interval)
    return {
        key: FeedPlan(desired.feeds[key], tuple(sorted(symbols[key])), _by_length(intervals[key]))
        for key in sorted(desired.feeds)
    }


def _by_length(intervals: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(intervals, key=lambda text: (parse_interval(text).length_ms, text)))


def _remember(
    current: Current, before: Mapping[str, Before], pools: Mapping[Key, PoolPlan], placements: Mapping[Key, Placement]
) -> Memory:
    sequences = dict(current.memory.sequences)
    traders = dict(current.memory.traders)
    # What is there but goes now is remembered as well: it may come back.
    for key, workers in current.workers.items():
        for name, worker in workers.items():
            _raise_to(sequences, f"{key[0]}/{name}", worker.assignment.sequence)
    for one in before.values():
        _see(traders, one.assignment)
    for key, pool in pools.items():
        for name, assignment in pool.workers.items():
            _raise_to(sequences, f"{key[0]}/{name}", assignment.sequence)
            for trader in assignment.traders:
                _see(traders, trader)
    surplus = {
        pools[key].pool.full_name: placement.surplus_since_ms
        for key, placement in placements.items()
        if placement.surplus_since_ms is not None
    }
    return Memory(surplus, _newest(sequences), _newest(traders))


def _see(traders: dict[str, Seen], trader: TraderAssignment) -> None:
    traders.pop(trader.trader, None)  # to the end: the oldest are forgotten first
    traders[trader.trader] = seen_of(trader)


def _raise_to(sequences: dict[str, int], name: str, sequence: int) -> None:
    sequences[name] = max(sequence, sequences.pop(name, 0))


ValueT = TypeVar("ValueT")


def _newest(entries: dict[str, ValueT]) -> dict[str, ValueT]:
    return dict(list(entries.items())[-MAX_REMEMBERED:])
