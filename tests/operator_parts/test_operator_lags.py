"""When a part counts as behind its market, and how a pool says so of its workers' feeds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.operator_parts.operator_bodies import pool_body

from chandlery.core.assignment import Assignment, WorkerStatus, content_hash
from chandlery.core.behind import BEHIND_MS, CAUGHT_UP_MS, HOLDS_S, Lag
from chandlery.core.durations import format_duration
from chandlery.operator.cache import hold
from chandlery.operator.conditions import WorkerView, pool_state
from chandlery.operator.planner import PoolPlan
from chandlery.operator.workerlink import PodEndpoint, WorkerLink

FEED = ("default", "market")


@given(st.lists(st.integers(0, 8 * BEHIND_MS), max_size=30))
def test_a_part_lags_from_when_it_is_far_behind_for_a_while_until_it_has_caught_up_for_a_while(
    looks: list[int],
) -> None:
    """Looks a second apart."""
    lag, far, near = Lag(), 0, 0
    for second, behind_ms in enumerate(looks):
        before = lag.told_ms
        assert lag.note(behind_ms, float(second)) == (lag.told_ms != before)
        far = far + 1 if behind_ms > BEHIND_MS else 0
        near = near + 1 if behind_ms < CAUGHT_UP_MS else 0
        if not before:
            assert (lag.told_ms > 0) == (far > HOLDS_S)
        else:
            assert (lag.told_ms == 0) == (near > HOLDS_S)
        if lag.told_ms:
            far = 0
            assert lag.told_ms >= max(before, BEHIND_MS)
            assert behind_ms <= 2 * lag.told_ms
        else:
            near = 0


def _linked(behind: list[int], monkeypatch: pytest.MonkeyPatch) -> tuple[WorkerLink, int]:
    """A worker's link after such answers, and how often it was news."""
    monkeypatch.setattr("chandlery.core.behind.HOLDS_S", 0.0)
    session: Any = None
    told: list[None] = []

    async def keep(_assignment: Assignment) -> None:
        raise AssertionError("nothing is wanted")

    endpoint = PodEndpoint(session, lambda: "", 1)
    link = WorkerLink(
        Assignment("quants-0", 0, content_hash([]), []), endpoint, keep, lambda: told.append(None), lambda _: None
    )
    link._pod_ready = True
    for each in behind:
        link._take(WorkerStatus("quants-0", 1, 0, "", 0, True, {}, [], {"behind_ms": each}))
    return link, len(told)


def test_a_pool_says_which_workers_feed_lags_and_that_is_news_as_it_begins_and_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = hold("TraderPool", pool_body())
    plan = PoolPlan(held.resource, FEED, {}, 20, 0, 0)  # type: ignore[arg-type]
    link, told = _linked([0, 15_000, 15_000, 16_000, 17_000], monkeypatch)
    assert told == 2, "the first answer, and that it lags"
    view = link.view()
    state = pool_state(held, plan, [WorkerView("quants-1", ready=True), view], 0, "")
    assert (state.reason, state.ready) == ("Lagging", True)
    assert f"worker quants-0 fell more than {format_duration(view.lags_ms)} behind" in state.message
    link, told = _linked([0, 15_000, 15_000, 100, 100], monkeypatch)
    assert (told, link.view().lags_ms) == (3, 0)
    assert pool_state(held, plan, [link.view()], 0, "").reason == "Running"
