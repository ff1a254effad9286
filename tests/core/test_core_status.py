"""Statuses as types: transition times that stay while nothing changes, and what is written and read back."""

from __future__ import annotations

from chandlery.core.resources.status import (
    Condition,
    FeedStatus,
    TraderStatus,
    Warmth,
    merge_conditions,
    read_status,
    status_manifest,
)


def ready(status: str, reason: str, time: str) -> Condition:
    assert status in ("True", "False", "Unknown")
    return Condition(type="Ready", status=status, reason=reason, last_transition_time=time)  # type: ignore[arg-type]


def test_a_condition_keeps_its_time_until_its_status_changes() -> None:
    before = [ready("False", "Starting", "2026-01-01T00:00:00Z")]
    (same,) = merge_conditions(before, [ready("False", "PoolFull", "2026-01-01T00:00:05Z")])
    assert (same.reason, same.last_transition_time) == ("PoolFull", "2026-01-01T00:00:00Z")
    (other,) = merge_conditions([same], [ready("True", "Running", "2026-01-01T00:00:09Z")])
    assert other.last_transition_time == "2026-01-01T00:00:09Z"


def test_what_is_not_known_is_not_written_and_a_known_zero_is() -> None:
    status = TraderStatus(observed_generation=2, signals=0, warm=Warmth(have=3, need=20))
    assert status_manifest(status) == {"observedGeneration": 2, "signals": 0, "warm": {"have": 3, "need": 20}}


def test_a_status_is_read_as_it_was_written_and_an_older_form_as_none() -> None:
    status = FeedStatus(symbols=["BTC/USDT"], conditions=[ready("True", "Running", "2026-01-01T00:00:00Z")])
    assert read_status("MarketFeed", status_manifest(status)) == status
    assert read_status("MarketFeed", None) == FeedStatus()
    assert read_status("MarketFeed", {"symbols": 5}) == FeedStatus()
