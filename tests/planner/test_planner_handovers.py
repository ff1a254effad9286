"""Single steps of a handover: from where, up to which candle, and with what the workers tell."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from chandlery.core.assignment import (
    Assignment,
    TraderAssignment,
    TraderState,
    TraderStatus,
    WorkerStatus,
    content_hash,
)
from chandlery.operator.planner_rollout import Step, next_step
from chandlery.operator.planner_standing import Entry, Standing, content_digest, entries_of, standing_of
from chandlery.operator.planner_types import Current, Desired, WorkerNow

POOL = ("default", "pool")
HOUR_MS = 3_600_000


def entry(worker: str, state: TraderState, *, last_ms: int = 0, interval: str = "1s", **assigned: Any) -> Entry:
    """An incarnation on a Ready worker that has taken in what it is told."""
    spec = TraderAssignment("default/a", "u", "s", ["BTC/USDT", "ETH/USDT"], interval, **assigned)
    status = TraderStatus(
        state,
        generation=spec.generation,
        incarnation=spec.incarnation,
        last_open_time_ms=last_ms,
        until_ms=spec.until_ms,
    )
    return Entry(
        POOL, worker, spec, content_digest(spec), status, ready=True, acknowledged=True, heard=True, may_have_run=True
    )


def step(decider: Entry, successor: Entry | None, home: str = "") -> Step:
    newest = successor or decider
    wanted = msgspec.structs.replace(newest.assignment, mode="active", from_ms=0, until_ms=None)
    return next_step(
        Standing(decider, successor),
        wanted,
        newest.digest,
        home or newest.worker,
        incarnation=newest.assignment.incarnation + 1,
    )


def test_after_event_time_went_back_a_handover_ends_the_old_one_at_what_it_decided_last() -> None:
    old = entry("pool-0", "Active", incarnation=5, from_ms=23 * HOUR_MS, last_ms=3 * HOUR_MS)
    new = entry("pool-0", "Warm", incarnation=6, mode="standby", parameters={"x": 2})
    made = step(old, new)
    assert made.placed[0][1].until_ms == 3 * HOUR_MS + 1_000


def test_what_a_lost_worker_had_goes_on_at_its_last_candle_also_after_event_time_went_back() -> None:
    lost = replace(entry("pool-0", "Active", incarnation=5, from_ms=23 * HOUR_MS, last_ms=3 * HOUR_MS), lost=True)
    ((worker, spec),) = step(lost, None, "pool-1").placed
    assert (worker, spec.incarnation, spec.from_ms) == ("pool-1", 6, 3 * HOUR_MS)


def test_the_bound_of_one_that_has_begun_is_taken_away_once_and_before_that_kept() -> None:
    # Well behind it, or in a replay's later run, whose times are before it.
    for away_ms in (110_000, 90_000, 1_000):
        begun = entry("pool-0", "Active", incarnation=5, from_ms=100_000, last_ms=away_ms)
        ((_, spec),) = step(begun, None).placed
        assert (spec.from_ms, spec.incarnation) == (0, 5)
        ((_, again),) = step(replace(begun, assignment=spec), None).placed
        assert again == spec
    for early in (
        entry("pool-0", "Active", incarnation=5, from_ms=100_000, last_ms=100_000),
        entry("pool-0", "Active", incarnation=5, from_ms=100_000, last_ms=109_999),
        entry("pool-0", "Active", incarnation=5, from_ms=100_000),
        entry("pool-0", "Ready", incarnation=5, from_ms=100_000, last_ms=100_000),
        replace(begun, status=None),
    ):
        assert step(early, None).placed[0][1].from_ms == 100_000


def test_a_successor_on_a_worker_that_is_not_ready_takes_nothing_over_and_the_old_one_goes_on() -> None:
    old = entry("pool-0", "Active", incarnation=5, until_ms=100_000, last_ms=99_000)
    new = replace(entry("pool-1", "Warm", incarnation=6, mode="standby"), ready=False)
    for decider in (old, entry("pool-0", "Active", incarnation=5, last_ms=99_000)):
        made = step(decider, new)
        assert made.rollout is not None
        assert made.rollout.phase == "Warming"
        assert [(spec.mode, spec.until_ms) for _, spec in made.placed] == [("active", None), ("standby", None)]


def test_a_successor_lost_while_it_takes_over_goes_on_elsewhere_with_its_last_candle() -> None:
    old = entry("pool-0", "Active", incarnation=5, until_ms=100_000, last_ms=99_000)
    new = replace(entry("pool-1", "Active", incarnation=6, from_ms=100_000, last_ms=150_000), lost=True)
    made = step(old, new, "pool-2")
    assert [(worker, spec.incarnation, spec.from_ms) for worker, spec in made.placed] == [
        ("pool-0", 5, 0),
        ("pool-2", 7, 150_000),
    ]
    # The old one still ends where it was to: what the lost one decided is not decided by both.
    moved = entry("pool-2", "Ready", incarnation=7, from_ms=150_000)
    standing = standing_of([old, moved], POOL, "u", None, overdue=False, now_ms=0)
    assert standing.decider is not None
    assert standing.decider.assignment.until_ms == 100_000


def test_where_only_the_successor_heard_of_a_moved_end_the_old_one_is_told_again() -> None:
    old = entry("pool-0", "Retired", incarnation=5, until_ms=100_000, last_ms=102_000)
    new = entry("pool-1", "Active", incarnation=6, from_ms=103_000)
    standing = standing_of([old, new], POOL, "u", None, overdue=False, now_ms=0)
    assert standing.decider is not None, "it isn't out: one of its symbols may have stopped before"
    assert standing.successor is not None
    made = step(standing.decider, standing.successor)
    assert [(spec.from_ms, spec.until_ms) for _, spec in made.placed] == [(0, 103_000), (103_000, None)]
    through = entry("pool-0", "Retired", incarnation=5, until_ms=103_000, last_ms=102_000)
    assert standing_of([through, new], POOL, "u", None, overdue=False, now_ms=0).successor is None


def test_one_that_is_not_warm_itself_waits_for_no_warm_successor() -> None:
    old = entry("pool-0", "Ready", incarnation=5, interval="1d")
    new = entry("pool-1", "Ready", incarnation=6, interval="1d", mode="standby")
    made = step(old, new)
    assert made.rollout is not None
    assert made.rollout.phase == "HandingOver"
    told: tuple[TraderState, ...] = ("Ready", "Retired")
    for state in told:
        made = step(entry("pool-0", state, incarnation=5, interval="1d", until_ms=0), new)
        assert made.rollout is not None
        assert (made.rollout.phase, made.placed[1][1].mode) == ("TakingOver", "active")
    warmed: tuple[TraderState, ...] = ("Warm", "Active")
    for state in warmed:
        warm = entry("pool-0", state, incarnation=5, interval="1d")
        rollout = step(warm, new).rollout
        assert rollout is not None
        assert rollout.phase == "Warming"


def test_an_end_counts_as_taken_in_only_by_a_worker_that_has_the_newest_assignment() -> None:
    spec = entry("pool-0", "Active", until_ms=100_000).assignment
    told = TraderStatus("Active", generation=1, incarnation=1, until_ms=100_000)
    assignment = Assignment("pool-0", 7, content_hash([spec]), [spec])
    for received, taken in ((6, False), (7, True), (8, True)):
        status = WorkerStatus("pool-0", 1, 0, "", received, True, {"default/a": told}, [], {})
        current = Current({POOL: {"pool-0": WorkerNow(assignment, True, 0, True, status)}})
        ((found,),) = entries_of(current, Desired(), 0).values()
        assert found.is_bounded is taken


def in_new_pod(state: TraderState, **more: Any) -> Entry:
    """An old one whose pod came lately, and which tells of no candle."""
    return replace(entry("pool-0", state, **{"incarnation": 5, "since_ms": 7, **more}), comes_up_until_ms=60_000)


@pytest.mark.parametrize("state", ["Ready", "Active", "Init", "Backoff"])
@pytest.mark.parametrize("interval", ["1s", "4h"])
def test_nobody_is_told_an_end_while_candles_may_be_due_to_it_in_its_new_pod(state: TraderState, interval: str) -> None:
    new = entry("pool-1", "Warm", interval=interval, incarnation=6, mode="standby", parameters={"x": 2})
    made = step(in_new_pod(state, interval=interval), new)
    assert [(one.mode, one.until_ms) for _, one in made.placed] == [("active", None), ("standby", None)]
    assert made.rollout is not None
    assert made.rollout.phase == "HandingOver"


@pytest.mark.parametrize(
    ("old", "until_ms"),
    [
        (replace(in_new_pod("Ready"), comes_up_until_ms=0), 0),
        (in_new_pod("Ready", since_ms=0), 0),
        (in_new_pod("Stalled"), 0),
        (in_new_pod("Active", last_ms=3 * HOUR_MS), 3 * HOUR_MS + 1_000),
        (in_new_pod("Ready", from_ms=HOUR_MS), HOUR_MS),
    ],
)
def test_an_end_is_told_once_it_is_known_or_nothing_is_to_be_waited_for(old: Entry, until_ms: int) -> None:
    new = entry("pool-1", "Warm", incarnation=6, mode="standby", parameters={"x": 2})
    assert step(old, new).placed[0][1].until_ms == until_ms


def test_who_takes_the_place_of_one_in_a_new_pod_waits_for_its_first_candle() -> None:
    old = in_new_pod("Ready")
    wanted = msgspec.structs.replace(old.assignment, parameters={"x": 2})
    for one, until_ms in ((old, None), (replace(old, comes_up_until_ms=0), 0)):
        made = next_step(Standing(one), wanted, content_digest(wanted), "pool-0", incarnation=6, in_place=True)
        assert [(placed.incarnation, placed.until_ms) for _, placed in made.placed] == [(5, until_ms)]


def test_a_pod_is_new_for_a_minute_after_it_got_ready() -> None:
    spec = entry("w", "Ready", since_ms=7).assignment
    worker = WorkerNow(Assignment("w", 1, content_hash([spec]), [spec]), True, 1_000)
    found = []
    for now_ms in (500, 1_000, 60_999, 61_000):
        ((one,),) = entries_of(Current({POOL: {"w": worker}}), Desired(), now_ms).values()
        found.append(one.comes_up_until_ms)
    assert found == [0, 61_000, 61_000, 0]
