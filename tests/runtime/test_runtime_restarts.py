"""Restarts of trader processes in a run's summary: each once, whatever became of the Trader or its supervisor."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from tests.runtime.up_process import Up, kill_hard, teller, until, write_manifests

from chandlery.cli.runtime.trader_restarts import TraderRestarts
from chandlery.core.assignment import TraderState, TraderStatus, WorkerStatus


def told(successors: dict[str, TraderStatus] | None = None, **traders: TraderStatus) -> WorkerStatus:
    return WorkerStatus("demo-0", 1, 1, "", 1, True, traders, [], {}, successors or {})


def one(restarts: int, incarnation: int = 1, state: TraderState = "Active") -> TraderStatus:
    return TraderStatus(state, incarnation=incarnation, restarts=restarts)


def counted(*statuses: WorkerStatus) -> dict[str, int]:
    restarts = TraderRestarts()
    for status in statuses:
        restarts.note(status)
    return restarts.by_trader


def test_what_is_told_again_counts_once() -> None:
    assert counted(told(a=one(1)), told(a=one(1)), told(a=one(3)), told(a=one(3))) == {"a": 3}


def test_an_edited_traders_earlier_incarnation_and_its_successor_count_both() -> None:
    both = told({"a": one(1, 2)}, a=one(2, 1))
    assert counted(told(a=one(2, 1)), both, told(a=one(1, 2)), told(a=one(4, 2))) == {"a": 6}


def test_a_trader_that_was_deleted_keeps_its_count_and_one_made_anew_adds_its_own() -> None:
    assert counted(told(a=one(2), b=one(1)), told(b=one(1))) == {"a": 2, "b": 1}
    assert counted(told(a=one(2)), told(), told(a=one(0)), told(a=one(1))) == {"a": 3}


def test_a_new_supervisors_traders_add_to_what_the_one_before_counted() -> None:
    assert counted(told(a=one(2)), told(a=one(0, state="Init")), told(a=one(2))) == {"a": 4}


def test_one_that_no_supervisor_has_told_of_yet_has_not_begun_anew() -> None:
    nobodys = TraderStatus("Pending", "NoSupervisor")
    assert counted(told(a=one(2)), told(a=nobodys), told(a=one(0, state="Pending")), told(a=one(2))) == {"a": 2}


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_trader_that_is_killed_under_one_supervisor_and_the_next_counts_twice(tmp_path: Path) -> None:
    manifests = write_manifests(tmp_path / "m", one=teller("one"))

    def kill_trader() -> None:
        """Kill the Trader's process and see that another one is Ready."""
        row = up.trader("one")
        assert row is not None
        pid, restarts = row.pid, row.restarts
        kill_hard(pid)

        def is_back() -> bool:
            row = up.trader("one")
            return row is not None and row.ready and row.pid not in (0, pid) and row.restarts == restarts + 1

        until(is_back, lambda: f"it starts again: {up.trader('one')}")

    def is_ready() -> bool:
        row = up.trader("one")
        return row is not None and row.ready and row.pid not in (0, before) and row.restarts == 0

    with Up(tmp_path, manifests, "--for", "300s", "--json") as up:
        up.running()
        before = 0
        until(is_ready, lambda: f"it is Ready: {up.trader('one')}")
        kill_trader()
        row, supervisor = up.trader("one"), up.pid_of("supervisor-demo-0")
        assert row is not None
        before = row.pid
        kill_hard(supervisor)
        until(is_ready, lambda: f"the next supervisor's counts from 0: {up.trader('one')}")
        kill_trader()
        up.process.send_signal(signal.SIGINT)
        summary = up.summary()
        assert up.wait() == 0, up.said
    assert summary["traders"] == {"desired": 1, "ready": 1, "restarts": 2}
    assert summary["restarts"] == {"supervisor-demo-0": 1}
