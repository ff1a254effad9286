"""The planner: resources in, workers and their assignments out. Pure; the operator and the local runtime share it.

Every Trader gets a verdict: exactly one worker, or no worker and a reason. Planning its own result again changes
nothing and gives back the very same assignments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

import msgspec

from chandlery.core.assignment import Assignment, TraderAssignment, content_hash
from chandlery.core.checks import UNKNOWN_SYMBOL, check_pool
from chandlery.core.intervals import parse_interval
from chandlery.core.manifests import Key
from chandlery.core.resources import Trader
from chandlery.operator.planner_homes import (
    Asked,
    full_message,
    home_before,
    lack_of,
    place_all,
    steps_of,
    worker_name,
)
from chandlery.operator.planner_homes import worker_number as worker_number
from chandlery.operator.planner_placement import Placement
from chandlery.operator.planner_since import elsewhere_of, with_since, with_waiting
from chandlery.operator.planner_standing import Entry, content_digest, entries_of, standing_of
from chandlery.operator.planner_traders import Refusal, judge, seen_of
from chandlery.operator.planner_types import (
    MAX_REMEMBERED,
    Current,
    Delays,
    Desired,
    FeedPlan,
    Lack,
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
    "assigned_before",
    "desired_of",
    "plan",
    "worker_name",
    "worker_number",
]


def plan(desired: Desired, current: Current, *, now_ms: int, wall_ms: int = 0) -> Plan:
    """Decide what shall run where.

    Args:
        desired: sound resources, and what the catalogue check found.
        current: the workers that are there, and the memory of the last plan.
        now_ms: now, by any clock that the times in ``current`` share, ms.
        wall_ms: now, by the wall clock, ms (0: not known): since then candles are a new Trader's to decide.
    """
    made = _plan_once(desired, current, now_ms, wall_ms)
    # One that makes do with its version of before needn't wait for the next plan where others, that leave in this one or
    # shrink, make room for it.
    while (kept := _kept_for_want_of_room(made)) and not _changes_nothing(made, current):
        current = _carried_out(made, current, now_ms)
        again = _plan_once(desired, current, now_ms, wall_ms)
        if not _kept_for_want_of_room(again) < kept:
            break
        made = again
    return made


def _kept_for_want_of_room(made: Plan) -> frozenset[str]:
    return frozenset(name for name, one in made.verdicts.items() if one.keeps and one.reason == "PoolFull")


def _changes_nothing(made: Plan, current: Current) -> bool:
    return all(
        (now := current.workers.get(key, {}).get(name)) is not None and now.assignment is assignment
        for key, pool in made.pools.items()
        for name, assignment in pool.workers.items()
    )


def _carried_out(made: Plan, before: Current, now_ms: int) -> Current:
    """What is there right after a plan is written, before any worker has heard of it."""
    workers: dict[Key, dict[str, WorkerNow]] = {}
    for key, pool in made.pools.items():
        for name, assignment in pool.workers.items():
            fresh = WorkerNow(assignment, ready=False, since_ms=now_ms, was_ready=False)
            now = before.workers.get(key, {}).get(name, fresh)
            workers.setdefault(key, {})[name] = replace(now, assignment=assignment)
    return Current(workers, made.memory)


def _plan_once(desired: Desired, current: Current, now_ms: int, wall_ms: int) -> Plan:
    entries = entries_of(current, desired, now_ms)
    asked: dict[str, Asked] = {}
    verdicts: dict[str, Verdict] = {}
    for key in sorted(desired.traders):
        trader = desired.traders[key]
        name = trader.full_name
        judged = _ask(trader, desired, current, entries.get(name, []), now_ms)
        if isinstance(judged, Refusal):
            verdicts[name] = Verdict(
                name, None, judged.pool, judged.reason, judged.message, is_of_newest=judged.is_of_newest
            )
        else:
            asked[name] = judged
    placements = place_all(desired, current, asked, now_ms)
    pools: dict[Key, PoolPlan] = {}
    for key in sorted(desired.pools):
        pools[key] = _plan_pool(desired, current, key, placements.get(key), asked, verdicts, entries, wall_ms)
    memory = _remember(current, entries, pools, placements, asked, verdicts, now_ms)
    deadlines = [one.again_ms for one in placements.values() if one.again_ms is not None]
    waits = [since_ms + desired.delays.retire_ms for since_ms in memory.taking_over_since_ms.values()]
    waits += [
        one.standing.failed.at_ms + desired.delays.move_again_ms
        for one in asked.values()
        if one.is_stuck and one.standing.failed
    ]
    deciders = [one.standing.decider for one in asked.values() if one.rolls]
    waits += [decider.comes_up_until_ms for decider in deciders if decider is not None and decider.is_coming_up]
    return Plan(
        feeds=_plan_feeds(desired, pools, verdicts),
        pools=pools,
        verdicts=dict(sorted(verdicts.items())),
        memory=memory,
        plan_again_ms=min([*deadlines, *(at_ms for at_ms in waits if at_ms > now_ms)], default=None),
    )


def _ask(trader: Trader, desired: Desired, current: Current, entries: list[Entry], now_ms: int) -> Asked | Refusal:
    """Whether a Trader may run, what, and where it stands."""
    name, memory = trader.full_name, current.memory
    since_ms = memory.taking_over_since_ms.get(name)
    overdue = since_ms is not None and now_ms - since_ms >= desired.delays.retire_ms
    pool = trader.spec.pool.key(trader.namespace)
    failed = memory.failed.get(name)
    standing = standing_of(entries, pool, trader.identity, failed, overdue=overdue, now_ms=now_ms)
    if standing.move_failed and standing.failed is not None:
        # A time to come is of another clock (the machine was started again): tried now.
        waited_ms = now_ms - standing.failed.at_ms
        if not 0 <= waited_ms < desired.delays.move_again_ms:
            standing = replace(standing, failed=None)
    judged = judge(trader, desired, standing, memory.traders.get(name))
    if isinstance(judged, Refusal):
        return judged
    seen = memory.traders.get(name)
    wanted = msgspec.structs.replace(judged.assignment, from_ms=0, until_ms=None, since_ms=0)
    if wanted.mode == "standby":
        wanted.mode = "active"
    highest = max(standing.highest, seen.incarnation if seen is not None else 0)
    digest = content_digest(wanted)
    return Asked(judged, wanted, digest, standing, highest + 1, overdue, home_before(standing, digest, entries, pool))


def _plan_pool(
    desired: Desired,
    current: Current,
    key: Key,
    placement: Placement | None,
    asked: Mapping[str, Asked],
    verdicts: dict[str, Verdict],
    entries: Mapping[str, list[Entry]],
    wall_ms: int,
) -> PoolPlan:
    """Write a placed pool's assignments, and the verdicts of its Traders."""
    pool = desired.pools[key]
    capacity = pool.spec.workers.max * pool.spec.traders_per_worker
    if placement is None:
        finding = next(check_pool(pool, desired.world))
        return PoolPlan(pool, None, {}, capacity, 0, 0, finding.reason, finding.message)
    feed = pool.spec.feed.key(pool.namespace)
    placed: dict[str, list[TraderAssignment]] = {worker_name(pool.name, number): [] for number in placement.workers}
    for name, step in steps_of(pool, placement, asked).items():
        one = asked[name]
        before = [entry for entry in entries.get(name, ()) if entry.pool == key]
        elsewhere = elsewhere_of(current.memory.traders.get(name), pool.full_name, "/".join(feed))
        for worker, trader in step.placed:
            placed[worker].append(with_since(trader, before, wall_ms, elsewhere))
        worker, decider = step.placed[0]
        reason, message = one.candidate.reason, one.candidate.told
        verdicts[name] = Verdict(
            name,
            worker,
            key,
            reason,
            message,
            decider.generation,
            decider.incarnation,
            step.rollout,
            keeps=bool(one.candidate.stays),
            failed=one.candidate.failed,
            suspended=one.candidate.suspended,
        )
        one.retires = step.retires
        one.rolls = step.rollout is not None
    workers: dict[str, Assignment] = {}
    for worker, traders in placed.items():
        now = current.workers.get(key, {}).get(worker)
        traders.sort(key=lambda each: (each.trader, each.incarnation))
        workers[worker] = _next_assignment(worker, traders, now, current.memory, f"{key[0]}/{worker}")
    lacks: set[Lack] = set()
    for name in placement.waiting:
        candidate = asked[name].candidate
        lack = lack_of(pool, candidate, crowded=name in placement.crowded)
        lacks.add(lack)
        if candidate.stays:  # the version of before has lost its place, and the one of now may not run
            verdicts[name] = Verdict(name, None, key, candidate.reason, candidate.told_without_place)
        else:
            verdicts[name] = Verdict(name, None, key, "PoolFull", full_message(pool, candidate, lack))
    used = sum(len(names) for names in placement.workers.values())
    rolling = sum(1 for names in placement.workers.values() for name in names if asked[name].rolls)
    return PoolPlan(
        pool,
        feed,
        workers,
        capacity,
        used,
        len(placement.waiting),
        rolling=rolling,
        to_roll=tuple(worker_name(pool.name, number) for number in placement.to_roll),
        lacks=frozenset(lacks),
    )


def _next_assignment(
    worker: str, traders: list[TraderAssignment], now: WorkerNow | None, memory: Memory, remembered: str
) -> Assignment:
    digest = content_hash(traders)
    if now is not None and now.assignment.hash == digest:
        return now.assignment
    last = max(now.assignment.sequence if now else 0, memory.sequences.get(remembered, 0))
    return Assignment(worker, last + 1, digest, traders)


def _plan_feeds(
    desired: Desired, pools: Mapping[Key, PoolPlan], verdicts: Mapping[str, Verdict]
) -> dict[Key, FeedPlan]:
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
    # Asked for all the same, or their source would have nothing to say of them, and they be tried again and again.
    for key, trader in desired.traders.items():
        verdict = verdicts["/".join(key)]
        planned = pools.get(verdict.pool) if verdict.pool is not None and verdict.reason == UNKNOWN_SYMBOL else None
        if planned is not None and planned.feed is not None and desired.feeds[planned.feed].spec.symbols == "auto":
            asked = {series.symbol for series in trader.spec.market.series()}
            symbols[planned.feed] |= asked & {*desired.unknown_of(trader)}
    return {
        key: FeedPlan(desired.feeds[key], tuple(sorted(symbols[key])), _by_length(intervals[key]))
        for key in sorted(desired.feeds)
    }


def _by_length(intervals: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(intervals, key=lambda text: (parse_interval(text).length_ms, text)))


def _remember(
    current: Current,
    entries: Mapping[str, list[Entry]],
    pools: Mapping[Key, PoolPlan],
    placements: Mapping[Key, Placement],
    asked: Mapping[str, Asked],
    verdicts: Mapping[str, Verdict],
    now_ms: int,
) -> Memory:
    sequences = dict(current.memory.sequences)
    traders = dict(current.memory.traders)
    # What is there but goes now is remembered as well: it may come back.
    for key, workers in current.workers.items():
        for name, worker in workers.items():
            _raise_to(sequences, f"{key[0]}/{name}", worker.assignment.sequence)
    for name in sorted(entries):
        newest = entries[name][-1]
        _see(traders, newest.assignment, newest.pool, pools.get(newest.pool))
    for key, pool in pools.items():
        for name, assignment in pool.workers.items():
            _raise_to(sequences, f"{key[0]}/{name}", assignment.sequence)
            for trader in sorted(assignment.traders, key=lambda each: each.incarnation):
                _see(traders, trader, key, pool)
    traders = with_waiting(traders, verdicts, {"/".join(key) for key in pools})
    surplus = {
        pools[key].pool.full_name: placement.surplus_since_ms
        for key, placement in placements.items()
        if placement.surplus_since_ms is not None
    }
    since = {
        name: min(current.memory.taking_over_since_ms.get(name, now_ms), now_ms)
        for name, one in sorted(asked.items())
        if one.retires
    }
    failed = {name: one.failed for name, one in sorted(asked.items()) if one.failed is not None}
    return Memory(surplus, _newest(sequences), _newest(traders), since, failed)


def _see(traders: dict[str, Seen], trader: TraderAssignment, key: Key, pool: PoolPlan | None) -> None:
    before = traders.pop(trader.trader, None)  # to the end: the oldest are forgotten first
    feed = "/".join(pool.feed) if pool is not None and pool.feed is not None else ""
    if before is None or before.incarnation < trader.incarnation or before.uid != trader.uid:
        before = seen_of(trader, "/".join(key), feed)
    elif before.incarnation == trader.incarnation:  # an incarnation's content stays
        # Its pool may have got another feed since.
        before = msgspec.structs.replace(
            before,
            generation=trader.generation,
            since_ms=trader.since_ms,
            pool="/".join(key),
            feed=feed or before.feed,
        )
    traders[trader.trader] = before


def assigned_before(assigned: Iterable[tuple[Key, Key, Assignment]]) -> Memory:
    """What to begin with where nothing is remembered, and workers have assignments: of pool, its feed, the assignment."""
    traders: dict[str, Seen] = {}
    for pool, feed, assignment in assigned:
        for trader in sorted(assignment.traders, key=lambda each: each.incarnation):
            before = traders.get(trader.trader)
            if before is None or before.incarnation < trader.incarnation:
                traders[trader.trader] = seen_of(trader, "/".join(pool), "/".join(feed))
    return Memory(traders=_newest(traders))


def _raise_to(sequences: dict[str, int], name: str, sequence: int) -> None:
    sequences[name] = max(sequence, sequences.pop(name, 0))


ValueT = TypeVar("ValueT")


def _newest(entries: dict[str, ValueT]) -> dict[str, ValueT]:
    return dict(list(entries.items())[-MAX_REMEMBERED:])
