"""Rollouts and moves by the operator on a real API server, with simulated workers: what is said, and who survives what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.e2e.kubectl import Namespace
from tests.e2e.operator_cases import running_one, scope, staged, until_told_once
from tests.support.operator_stage import Object, Stage, conditions_of, feed, pool, trader
from tests.support.simulated_workers import active

from chandlery.core.assignment import TraderAssignment, TraderStatus
from chandlery.operator.kubernetes.kinds import EVENT, STATEFUL_SET, TRADER, TRADER_POOL


def broken(fast: int) -> Any:
    """A worker in which a strategy with this parameter can't be loaded."""

    def state_of(assigned: TraderAssignment) -> TraderStatus:
        if assigned.parameters.get("fast") == fast:
            return TraderStatus(
                "Stalled", "BadStrategy", "fast is too fast",
                generation=assigned.generation, incarnation=assigned.incarnation,
            )  # fmt: skip
        return active(assigned)

    return state_of


async def events_of(stage: Stage, namespace: str, name: str) -> list[str]:
    items = (await stage.api.list(EVENT, namespace)).items
    return [item["reason"] for item in items if item["regarding"]["name"] == name]


async def note_of(stage: Stage, namespace: str, name: str, reason: str) -> str:
    """What the one event of a reason says."""
    items = (await stage.api.list(EVENT, namespace)).items
    (note,) = [one["note"] for one in items if (one["regarding"]["name"], one["reason"]) == (name, reason)]
    return str(note)


async def status_of(stage: Stage, namespace: str, name: str) -> tuple[Object, Object]:
    item = await stage.api.get(TRADER, namespace, name)
    return conditions_of(item), item["status"]


def assigned(stage: Stage, name: str) -> list[TraderAssignment]:
    """Every incarnation of a Trader in any worker, lowest first."""
    held = [
        one
        for pod in stage.workers.pods.values()
        for one in (pod.assignment.traders if pod.assignment is not None else [])
        if one.trader == name
    ]
    return sorted(held, key=lambda one: one.incarnation)


async def test_a_changed_trader_is_handed_over_and_said_so_once(on_control_plane: Namespace, tmp_path: Path) -> None:
    async with staged(on_control_plane, tmp_path) as (stage, ns):
        await stage.operator(*scope(ns))
        await running_one(stage, ns)
        await stage.apply(trader(ns, "one", fast=12))
        await stage.until_rolled_out(ns, "one")
        conditions, status = await status_of(stage, ns, "one")
        assert (status["runningGeneration"], status["incarnation"]) == (2, 2)
        assert conditions["AssignmentApplied"]["status"] == "True"

        async def alone() -> bool:
            return [(one.incarnation, one.until_ms) for one in assigned(stage, f"{ns}/one")] == [(2, None)]

        # Its newest version decides before the worker has been told to let go of the one before.
        await stage.until("the worker holds the newest version alone, without an end", alone)
        await until_told_once(stage, ns, "one", "RolloutFinished")
        assert "it decides from the candle of 20" in await note_of(stage, ns, "one", "RolloutFinished"), "not from any"

        async def told() -> bool:
            found = await events_of(stage, ns, "one")
            return (found.count("RolloutStarted"), found.count("RolloutFinished")) == (1, 1)

        await stage.until("two events", told)


async def test_a_trader_that_changes_its_pool_goes_on_there_with_what_is_its_own(
    on_control_plane: Namespace, tmp_path: Path
) -> None:
    async with staged(on_control_plane, tmp_path) as (stage, ns):
        await stage.operator(*scope(ns))
        await running_one(stage, ns)
        await stage.apply(pool(ns, "other"), trader(ns, "there", in_pool="other"))
        await stage.until_reason(ns, "there", "Running")
        (before,) = assigned(stage, f"{ns}/one")
        assert before.since_ms > 0
        await stage.apply(trader(ns, "one", in_pool="other"))

        async def moved() -> bool:
            return [one.incarnation for one in assigned(stage, f"{ns}/one")] == [before.incarnation + 1]

        await stage.until("it runs in the other pool alone", moved)
        (after,) = assigned(stage, f"{ns}/one")
        assert after.since_ms == before.since_ms, "what closed before, and was not decided, still is its own"

        async def told() -> bool:
            conditions, status = await status_of(stage, ns, "one")
            runs = (status.get("runningGeneration"), status.get("incarnation"), conditions["Ready"]["reason"])
            return runs == (2, after.incarnation, "Running")

        await stage.until("its status says so", told)


async def test_a_version_that_fails_leaves_the_old_one_running_and_both_conditions_say_so(
    on_control_plane: Namespace, tmp_path: Path
) -> None:
    async with staged(on_control_plane, tmp_path) as (stage, ns):
        stage.workers.state_of = broken(13)
        await stage.operator(*scope(ns))
        await running_one(stage, ns)
        await stage.apply(trader(ns, "one", fast=13))
        await stage.until_reason(ns, "one", "BadStrategy")
        conditions, status = await status_of(stage, ns, "one")
        found = {kind: one["status"] for kind, one in conditions.items()}
        assert (found["Ready"], found["Stalled"], found["Reconciling"]) == ("True", "True", "False")
        assert (conditions["AssignmentApplied"]["status"], status["runningGeneration"]) == ("True", 1)
        assert conditions["AssignmentApplied"]["observedGeneration"] == 1
        for words in ("generation 2 failed", "fast is too fast", "generation 1 goes on"):
            assert words in conditions["Stalled"]["message"]
        assert [one.incarnation for one in assigned(stage, f"{ns}/one")] == [1]
        await until_told_once(stage, ns, "one", "RolloutFailed")
        # Going back is no new start.
        await stage.apply(trader(ns, "one", fast=9))
        await stage.until_rolled_out(ns, "one")
        assert [(one.incarnation, one.generation) for one in assigned(stage, f"{ns}/one")] == [(1, 3)]


async def test_an_operator_that_is_killed_in_the_middle_goes_on_where_it_stopped(
    on_control_plane: Namespace, tmp_path: Path
) -> None:
    waits = True

    def state_of(one: TraderAssignment) -> TraderStatus:
        status = active(one)
        if waits and one.mode == "standby":
            status.state, status.warm_have = "Ready", 10
        return status

    async with staged(on_control_plane, tmp_path) as (stage, ns):
        stage.workers.state_of = state_of
        operator = await stage.operator(*scope(ns))
        await running_one(stage, ns)
        await stage.apply(trader(ns, "one", fast=12))

        async def warming() -> bool:
            conditions, status = await status_of(stage, ns, "one")
            said = conditions["Reconciling"]["status"], conditions["Reconciling"]["reason"]
            return said == ("True", "Warming") and status.get("warm", {}).get("have") == 10

        await stage.until("it warms, and says how far it is", warming)
        conditions, _ = await status_of(stage, ns, "one")
        assert (conditions["Ready"]["status"], conditions["Ready"]["reason"]) == ("True", "Running")
        operator.kill()
        await stage.operator(*scope(ns))
        await stage.apply(trader(ns, "two"))
        await stage.until_reason(ns, "two", "Running")
        assert [one.mode for one in assigned(stage, f"{ns}/one")] == ["active", "standby"]
        assert [one.incarnation for one in assigned(stage, f"{ns}/one")] == [1, 2]
        waits = False
        for pod in stage.workers.pods.values():
            pod.successors = {name: active(one) for name in pod.successors for one in assigned(stage, name)[-1:]}
            pod.bump()
        await stage.until_rolled_out(ns, "one")
        assert [one.incarnation for one in assigned(stage, f"{ns}/one")] == [2]


async def test_a_changed_pool_moves_traders_to_the_spare_worker_before_it_rolls_theirs(
    on_control_plane: Namespace, tmp_path: Path
) -> None:
    async with staged(on_control_plane, tmp_path) as (stage, ns):
        await stage.operator(*scope(ns))
        roomy = pool(ns, workers=2, most=2)
        roomy["spec"]["workers"]["spare"] = 1
        await stage.apply(feed(ns), roomy, *(trader(ns, name) for name in ("one", "two")))
        for name in ("one", "two"):
            await stage.until_reason(ns, name, "Running")
        await stage.until_reason(ns, "quants", "Running", TRADER_POOL)
        alone: list[str] = []
        changed = pool(ns, workers=2, most=2, segment={"candles": 2000})
        changed["spec"]["workers"]["spare"] = 1
        await stage.apply(changed)

        async def rolled() -> bool:
            sets = (await stage.api.list(STATEFUL_SET, ns, selector="chandlery.dev/pool=quants")).items
            for one in sets:
                name = one["metadata"]["name"]
                if one["metadata"]["generation"] == 2 and name not in alone:
                    alone.append(name)
            return len(alone) == 2

        await stage.until("both rolled", rolled)
        assert alone == ["quants-1", "quants-0"], "the empty one first"
        await stage.until_reason(ns, "quants", "Running", TRADER_POOL)
        for name in ("one", "two"):
            await stage.until_rolled_out(ns, name)
            _, status = await status_of(stage, ns, name)
            assert (status["worker"], status["incarnation"]) == ("quants-1", 2), "moved once, and not back"
            assert len(assigned(stage, f"{ns}/{name}")) == 1
            await until_told_once(stage, ns, name, "Moved")
            assert "it decides from the candle of 20" in await note_of(stage, ns, name, "Moved"), "not from any"
