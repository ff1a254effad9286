"""What a failure's report tells first; no cluster is asked here (``test_e2e_node.py`` has a real container's end)."""

from __future__ import annotations

from typing import Any

import pytest
from tests.e2e.diagnosis import ended_containers, stated

_RUNNING = {"running": {"startedAt": "2026-01-01T00:01:00Z"}}
_KILLED = {
    "terminated": {
        "exitCode": 137,
        "reason": "OOMKilled",
        "startedAt": "2026-01-01T00:00:00Z",
        "finishedAt": "2026-01-01T00:00:59Z",
    }
}
_DONE = {"terminated": {"exitCode": 0, "reason": "Completed"}}


def _pod(restarts: int, state: dict[str, Any], last: dict[str, Any], kind: str = "containerStatuses") -> dict[str, Any]:
    one = {"name": "traders", "restartCount": restarts, "state": state, "lastState": last}
    return {"metadata": {"name": "quants-0-0"}, "status": {kind: [one]}}


@pytest.mark.parametrize("kind", ["containerStatuses", "initContainerStatuses"])
def test_a_restarted_container_is_told_with_the_end_of_the_one_before(kind: str) -> None:
    (one,) = ended_containers([_pod(2, _RUNNING, _KILLED, kind)])
    assert (one.pod, one.container, one.again) == ("quants-0-0", "traders", True)
    assert one.how == (
        "2 restarts; ended with exit code 137, reason OOMKilled, ran from 2026-01-01T00:00:00Z to 2026-01-01T00:00:59Z; "
        "now running 2026-01-01T00:01:00Z"
    )


def test_a_container_that_ended_and_stays_so_is_told_with_its_own_log() -> None:
    (one,) = ended_containers([_pod(0, _KILLED, {})])
    assert not one.again
    assert "0 restarts; ended with exit code 137" in one.how


def test_of_a_container_that_did_its_work_at_the_second_try_the_first_ones_end_is_told() -> None:
    (one,) = ended_containers([_pod(1, _DONE, _KILLED, "initContainerStatuses")])
    assert one.again
    assert "exit code 137" in one.how


def test_a_restart_of_whose_cause_nothing_is_known_is_told() -> None:
    (one,) = ended_containers([_pod(1, {"waiting": {"reason": "CrashLoopBackOff"}}, {})])
    assert one.how == "1 restarts; nothing is known of its last end; now waiting CrashLoopBackOff"


@pytest.mark.parametrize("state", [_RUNNING, _DONE, {"waiting": {"reason": "PodInitializing"}}, {}])
def test_nothing_is_told_of_containers_that_are_as_they_should_be(state: dict[str, Any]) -> None:
    assert list(ended_containers([_pod(0, state, {}), {"metadata": {"name": "young"}}])) == []


def test_a_resource_is_told_in_few_lines_that_are_not_too_long() -> None:
    condition = {
        "type": "Ready", "status": "False", "reason": "WorkerUnready", "message": "so\n" * 500,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    status = {"worker": "quants-0", "lastError": "x" * 5_000, "conditions": [condition]}
    bare = {"kind": "TraderPool", "metadata": {"name": "quants"}}
    trader = {"kind": "Trader", "metadata": {"name": "one", "generation": 3}, "status": status}
    first, second, third = stated([trader, bare])
    assert first.startswith('Trader one generation 3 {"worker":"quants-0","lastError":"xxx')
    assert second.startswith("  Ready=False WorkerUnready since 2026-01-01T00:00:00Z so so")
    assert third == "TraderPool quants generation None {}"
    assert max(len(line) for line in (first, second)) < 700
