"""kill -9 of traders, feeds and supervisors at each of their steps on a signal ring."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.segment_crash.ring_matrix import RingReport
from tests.segment_crash.stage import play


def test_a_trader_killed_at_any_step_of_a_push_or_a_position_loses_nothing(library: Path, shared: Path) -> None:
    """And none of a ring's makers leaves one that the next can't go on with."""
    report: RingReport = play(library, "ring_matrix", shared)
    assert report["flaws"] == [], f"{len(report['flaws'])} flaws, such as {report['flaws'][:3]}"
    assert sum(report["points"].values()) > 200
    assert report["repeated"] > 0, "a signal whose position was not stored yet comes again"
    assert report["left"] == []


@pytest.mark.parametrize("memory", ["none", "recalled"])
def test_a_feed_killed_at_any_step_of_draining_loses_nothing(library: Path, shared: Path, memory: str) -> None:
    report: RingReport = play(library, "drain_matrix", shared, memory)
    assert report["flaws"] == [], f"{len(report['flaws'])} flaws, such as {report['flaws'][:3]}"
    assert report["points"]["drain"] > 70
    assert (report["repeated"] > 0) is (memory == "none"), "what is known to be on the topic isn't sent again"
