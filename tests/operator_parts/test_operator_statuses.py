"""Writing statuses: only news, on the right version, in its time; and what conditions say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.operator_parts.operator_bodies import trader_body

from chandlery.core.assignment import TraderStatus as Reported
from chandlery.core.assignment import WorkerStatus
from chandlery.core.resources.status import TraderStatus, Warmth
from chandlery.operator.cache import Held, hold
from chandlery.operator.conditions import State, WorkerView, kstatus, trader_state, trader_status
from chandlery.operator.kubernetes.api import GoneError, Kind, Object, StaleError
from chandlery.operator.kubernetes.kinds import TRADER
from chandlery.operator.planner import Verdict
from chandlery.operator.statuses import FIGURES_PERIOD_S, PATIENCE_S, Statuses

ASSIGNED = Verdict("default/one", "quants-0", ("default", "quants"), generation=1, incarnation=1)


class Server:
    """Takes statuses as the API server does: by version."""

    def __init__(self) -> None:
        self.version = 1
        self.status: Object = {}
        self.writes = 0
        self.there = True

    async def apply(self, kind: Kind, body: Object, *, subresource: str = "") -> Object:
        assert (kind, subresource) == (TRADER, "status")
        if not self.there:
            raise GoneError("404")
        if body["metadata"]["resourceVersion"] != str(self.version):
            raise StaleError("409")
        self.version += 1
        self.writes += 1
        self.status = body["status"]
        return {"metadata": {"resourceVersion": str(self.version)}}

    def held(self, generation: int = 1) -> Held:
        """The resource as a watch that is up to date has it."""
        return hold("Trader", {**trader_body(version=self.version, generation=generation), "status": self.status})


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def says(state: State, generation: int = 1, now: str = "2026-01-01T00:00:00Z", **figures: Any) -> TraderStatus:
    return TraderStatus(observed_generation=generation, conditions=kstatus(state, generation, now), **figures)


RUNNING = State("Running", ready=True)


async def test_an_unchanged_status_is_not_written_again() -> None:
    server, clock = Server(), Clock()
    statuses = Statuses(server, clock)
    held = server.held()
    assert statuses.wait_s(held, says(RUNNING)) == 0
    assert await statuses.write(TRADER, held, says(RUNNING)) == "written"
    later = says(RUNNING, now="2026-01-01T00:05:00Z")
    assert statuses.wait_s(held, later) is None, "before the watch has brought our write"
    assert statuses.wait_s(server.held(), later) is None, "and after"
    assert Statuses(server, clock).wait_s(server.held(), later) is None, "and after a restart of the operator"
    assert server.writes == 1


async def test_a_transition_time_stays_while_the_status_of_a_condition_does() -> None:
    server = Server()
    statuses = Statuses(server, Clock())
    await statuses.write(TRADER, server.held(), says(RUNNING))
    blocked = says(State("Blocked", "its ring is full", ready=True), now="2026-01-01T00:05:00Z")
    assert await statuses.write(TRADER, server.held(), blocked) == "written"
    ready = server.status["conditions"][0]
    assert (ready["reason"], ready["lastTransitionTime"]) == ("Blocked", "2026-01-01T00:00:00Z")


async def test_figures_ride_along_and_are_else_written_after_ten_minutes() -> None:
    server, clock = Server(), Clock()
    statuses = Statuses(server, clock)
    await statuses.write(TRADER, server.held(), says(RUNNING, signals=1))
    more = says(RUNNING, signals=7, warm=Warmth(3, 50))
    clock.now_s += FIGURES_PERIOD_S - 1
    assert statuses.wait_s(server.held(), more) is None
    clock.now_s += 1
    assert statuses.wait_s(server.held(), more) == 0
    assert await statuses.write(TRADER, server.held(), more) == "written"
    assert server.status["signals"] == 7


async def test_other_words_of_a_failing_strategy_ride_along_as_figures_do_and_another_reason_or_incarnation_does_not() -> (
    None
):
    def failing(said: str, reason: str = "Crashed", incarnation: int = 1) -> tuple[State, TraderStatus]:
        one = reported("Backoff", reason=reason, attempt=2, incarnation=incarnation, last_error=said)
        state = trader_state(HELD, replace(ASSIGNED, incarnation=incarnation), worker(one))
        return state, says(state, incarnation=incarnation, last_error=said)

    server, clock = Server(), Clock()
    statuses = Statuses(server, clock)
    await statuses.write(TRADER, server.held(), failing("ValueError: price 1")[1])

    def waits_s(state: State, status: TraderStatus) -> float | None:
        return statuses.wait_s(server.held(), status, words_ride=bool(state.episode))

    assert waits_s(*failing("ValueError: price 2")) is None
    assert waits_s(*failing("ValueError: price 1", reason="Hang")) == 0
    assert waits_s(*failing("ValueError: price 1", incarnation=2)) == 0
    clock.now_s += FIGURES_PERIOD_S
    assert waits_s(*failing("ValueError: price 2")) == 0


async def test_a_first_status_that_says_under_way_waits_for_a_better_one() -> None:
    server, clock = Server(), Clock()
    statuses = Statuses(server, clock)
    starting = says(State("Starting"))
    assert statuses.wait_s(server.held(), starting) == PATIENCE_S
    clock.now_s += PATIENCE_S / 2
    assert statuses.wait_s(server.held(), starting) == PATIENCE_S / 2
    assert statuses.wait_s(server.held(), says(State("BadParameter", stalled=True))) == 0, "bad news don't wait"
    clock.now_s += PATIENCE_S / 2
    assert statuses.wait_s(server.held(), starting) == 0


async def test_a_second_write_goes_on_from_the_version_of_the_first_although_the_watch_lags() -> None:
    server = Server()
    statuses = Statuses(server, Clock())
    seen = server.held()
    assert await statuses.write(TRADER, seen, says(State("Starting"))) == "written"
    assert await statuses.write(TRADER, seen, says(RUNNING)) == "written"
    assert server.writes == 2


async def test_a_write_on_what_has_changed_is_refused_and_told_and_works_once_the_change_is_seen() -> None:
    server = Server()
    statuses = Statuses(server, Clock())
    seen = server.held()
    server.version += 1  # somebody edited it
    assert await statuses.write(TRADER, seen, says(RUNNING)) == "stale"
    assert server.writes == 0
    assert await statuses.write(TRADER, server.held(2), says(RUNNING, 2)) == "written"


async def test_a_resource_that_is_gone_is_told() -> None:
    server = Server()
    server.there = False
    assert await Statuses(server, Clock()).write(TRADER, server.held(), says(RUNNING)) == "gone"


# What conditions say -------------------------------------------------------------------------------------------


def worker(reported: Reported | None, *, ready: bool = True, was_ready: bool = True, problem: str = "") -> WorkerView:
    traders = {"default/one": reported} if reported is not None else {}
    status = WorkerStatus("quants-0", 1, 1, "h", 1, True, traders, [], {})
    return WorkerView("quants-0", "quants-0-0", ready, was_ready, None if problem else status, problem)


def reported(state: str, generation: int = 1, incarnation: int = 1, **more: Any) -> Reported:
    return Reported(state, generation=generation, incarnation=incarnation, **more)  # type: ignore[arg-type]


HELD = hold("Trader", trader_body())


@pytest.mark.parametrize(
    ("view", "reason", "words"),
    [
        (worker(reported("Active")), "Running", ("True", "False", "False")),
        (worker(reported("Ready")), "Warming", ("True", "False", "False")),
        (worker(reported("Blocked")), "Blocked", ("True", "False", "False")),
        (worker(reported("Active", generation=0)), "Starting", ("False", "True", "False")),
        (worker(reported("Active", incarnation=0)), "Starting", ("False", "True", "False")),
        (worker(reported("Init")), "Starting", ("False", "True", "False")),
        (worker(reported("Init", reason="SeriesRefused")), "SeriesRefused", ("False", "False", "True")),
        (worker(None), "Starting", ("False", "True", "False")),
        (worker(reported("Backoff", reason="Crashed")), "Crashed", ("False", "True", "False")),
        (worker(reported("Init", attempt=3)), "CrashLoop", ("False", "True", "False")),
        (worker(reported("Stalled", reason="BadParameter")), "BadParameter", ("False", "False", "True")),
        (worker(None, ready=False, was_ready=False), "WorkerStarting", ("False", "True", "False")),
        (worker(None, ready=False), "WorkerUnready", ("False", "True", "False")),
        (worker(None, problem="no route"), "WorkerUnreachable", ("False", "True", "False")),
    ],
)
def test_what_a_worker_says_of_a_trader_is_said_in_kstatus_words(
    view: WorkerView, reason: str, words: tuple[str, ...]
) -> None:
    state = trader_state(HELD, ASSIGNED, view)
    status = trader_status(HELD, state, ASSIGNED, None, view, "2026-01-01T00:00:00Z")
    assert state.reason == reason
    assert tuple(one.status for one in status.conditions[:3]) == words


def test_what_a_starting_trader_waits_for_is_said_in_its_condition() -> None:
    waits = "waits for series ADA/USDT 3m: this worker's segment holds ADA/USDT by 1m only"
    assert trader_state(HELD, ASSIGNED, worker(reported("Init", message=waits))).message == (
        f"worker quants-0 is starting it: {waits}"
    )
    assert trader_state(HELD, ASSIGNED, worker(reported("Init"))).message == "worker quants-0 is starting it"


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("PoolFull", ("False", "False", "True")),
        ("BadParameter", ("False", "False", "True")),
        ("AwaitingApproval", ("False", "True", "False")),
        ("Suspended", ("False", "False", "False")),
    ],
)
def test_a_verdict_goes_before_what_the_worker_says(reason: str, words: tuple[str, ...]) -> None:
    view = worker(reported("Active"))
    verdict = Verdict("default/one", "quants-0", ("default", "quants"), reason, "why", 1, 1)
    state = trader_state(HELD, verdict, view)
    conditions = trader_status(HELD, state, verdict, None, view, "2026-01-01T00:00:00Z").conditions
    assert state.reason == reason
    assert tuple(one.status for one in conditions[:3]) == words
    assert next(one.status for one in conditions if one.type == "AssignmentApplied") == "False"


def test_a_symbol_the_exchange_does_not_have_is_named_on_the_trader() -> None:
    state = trader_state(HELD, ASSIGNED, worker(reported("Active")), ["BTC/USDT", "ETH/USDT"])
    assert (state.reason, state.stalled) == ("UnknownSymbol", True)
    assert "BTC/USDT" in state.message
    assert "ETH/USDT" not in state.message


def test_a_crash_loop_does_not_change_its_words_with_every_attempt() -> None:
    states = {
        trader_state(HELD, ASSIGNED, worker(one))
        for one in (
            reported("Backoff", attempt=1, message="ValueError: x; starts again in 0.5 s", last_error="ValueError: x"),
            reported("Init", attempt=1, last_error="ValueError: x"),
            reported("Backoff", attempt=2, message="ValueError: x; starts again in 1 s", last_error="ValueError: x"),
        )
    }
    assert len(states) == 1
