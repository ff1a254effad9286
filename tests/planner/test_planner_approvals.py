"""``rollout: Manual``: what waits for an approval, and what an approval covers."""

from __future__ import annotations

from dataclasses import replace

from tests.planner.planner_fleet import TWO, A, Fleet, edited, modes, running, sound, wanted_of
from tests.planner.planner_worlds import World, desired, feed, pool, trader

from chandlery.core.resources import APPROVE_ANNOTATION
from chandlery.operator.planner import Desired, Verdict
from chandlery.operator.planner_types import Waited


def test_a_manual_rollout_waits_for_its_approval_and_is_handed_over_then() -> None:
    manual = {"rollout": "Manual"}
    fleet = running(wanted_of(edited(2, **manual)))
    made = fleet.settle(wanted_of(edited(3, **manual)), 4)
    assert made.verdicts[A].reason == "AwaitingApproval"
    assert modes(fleet) == [("active", None)]
    approved = wanted_of(edited(3, metadata={"annotations": {APPROVE_ANNOTATION: "2"}}, **manual))
    fleet.plan(approved)
    assert modes(fleet) == [("active", None), ("standby", None)]
    fleet.settle(approved, 10)
    assert [spec.parameters["fast"] for _, spec in fleet.entries(A)] == [3]
    sound(fleet)


def _sourced(
    text: str,
    generation: int,
    approved: int = 1,
    config_map: str = "code",
    rollout: str = "Manual",
    *,
    allowed: bool = True,
) -> Desired:
    """A Trader whose strategy a ConfigMap holds, in a pool that allows that or doesn't."""
    source = {"configMapRef": {"name": config_map, "key": "mine.py"}}
    metadata = {"generation": generation, "annotations": {APPROVE_ANNOTATION: str(approved)}}
    strategy = {"name": "Mine", "source": source}
    own = trader("a", symbols=TWO, strategy=strategy, rollout=rollout, metadata=metadata)
    held = {("default", config_map): {"mine.py": text}}
    return wanted_of(own, in_pool=pool(allowConfigMapStrategies=allowed), configmaps=held)


def test_a_source_that_is_changed_in_place_runs_under_no_approval_of_the_generation_that_runs() -> None:
    fleet = running(_sourced("one", 1))
    assert [(spec.source, spec.generation) for _, spec in fleet.entries(A)] == [("one", 1)]
    verdict = fleet.settle(_sourced("two", 1), 4).verdicts[A]
    assert (verdict.reason, verdict.generation, verdict.keeps) == ("AwaitingApproval", 1, True)
    for words in ("ConfigMap default/code was changed in place", "a new name", "(generation 1 stays)"):
        assert words in verdict.message
    assert APPROVE_ANNOTATION not in verdict.message, "approving would change nothing"
    assert [(spec.source, spec.incarnation) for _, spec in fleet.entries(A)] == [("one", 1)]
    # Put back, it is as it was.
    assert fleet.settle(_sourced("one", 1), 2).verdicts[A].reason == ""
    # Under a new name it is a generation, which waits for its approval, and runs once it has that.
    waiting = fleet.settle(_sourced("two", 2, config_map="code-2"), 4).verdicts[A]
    assert (waiting.reason, f'{APPROVE_ANNOTATION}: "2"' in waiting.message) == ("AwaitingApproval", True)
    fleet.settle(_sourced("two", 2, approved=2, config_map="code-2"), 10)
    assert [(spec.source, spec.generation) for _, spec in fleet.entries(A)] == [("two", 2)]
    sound(fleet)


def test_a_source_that_is_changed_in_place_while_the_approved_one_stands_by_leaves_that_one_there() -> None:
    fleet = running(_sourced("one", 1))
    fleet.plan(_sourced("two", 2, approved=2))
    assert [spec.source for _, spec in fleet.entries(A)] == ["one", "two"]
    made = fleet.settle(_sourced("three", 2, approved=2), 12)
    assert made.verdicts[A].reason == "AwaitingApproval"
    assert [spec.source for _, spec in fleet.entries(A)] == ["two"]
    sound(fleet)


def test_a_source_that_is_changed_in_place_while_its_trader_runs_nowhere_waits_too() -> None:
    fleet = running(_sourced("one", 1))
    fleet.settle(_sourced("one", 1, allowed=False), 4)
    assert fleet.entries(A) == []
    verdict = fleet.settle(_sourced("two", 1), 4).verdicts[A]
    assert (verdict.reason, verdict.keeps, fleet.entries(A)) == ("AwaitingApproval", False, [])
    for words in ("ConfigMap default/code was changed in place", "; no version of it runs until then"):
        assert words in verdict.message
    assert fleet.settle(_sourced("one", 1), 6).verdicts[A].reason == ""
    assert [spec.source for _, spec in fleet.entries(A)] == ["one"]
    assert list(fleet.doubled()) == []


def test_a_generation_that_nobody_approved_does_not_start_where_its_trader_runs_nowhere() -> None:
    fleet = running(_sourced("one", 1))
    fleet.settle(_sourced("one", 1, allowed=False), 4)
    verdict = fleet.settle(_sourced("two", 2, config_map="code-2"), 4).verdicts[A]
    assert (verdict.reason, fleet.entries(A)) == ("AwaitingApproval", [])
    assert verdict.message.endswith(f'{APPROVE_ANNOTATION}: "2"; no version of it runs until then')
    assert fleet.settle(_sourced("two", 2, approved=2, config_map="code-2"), 6).verdicts[A].reason == ""
    assert [(spec.source, spec.generation) for _, spec in fleet.entries(A)] == [("two", 2)]
    assert list(fleet.doubled()) == []


def test_a_source_that_is_changed_in_place_is_handed_over_to_at_once_where_nobody_need_approve() -> None:
    fleet = running(_sourced("one", 1, rollout="Auto"))
    assert fleet.settle(_sourced("two", 1, rollout="Auto"), 10).verdicts[A].reason == ""
    assert [spec.source for _, spec in fleet.entries(A)] == ["two"]
    sound(fleet)


def _after_restart(fleet: Fleet, wanted: Desired, last: Verdict) -> Verdict:
    """The verdict of another operator, which finds the status that was written of the last one."""
    fleet.forget()
    key, generation = ("default", "a"), wanted.traders["default", "a"].metadata.generation or 1
    return fleet.settle(replace(wanted, waited={key: Waited(generation, last.message)}), 4).verdicts[A]


def test_a_generation_that_waits_while_its_trader_runs_nowhere_waits_on_after_a_restart_of_the_operator() -> None:
    fleet = running(_sourced("one", 1))
    fleet.settle(_sourced("one", 1, allowed=False), 4)
    wanted = _sourced("two", 2, config_map="code-2")
    verdict = fleet.settle(wanted, 4).verdicts[A]
    after = _after_restart(fleet, wanted, verdict)
    assert (after.reason, after.message, fleet.entries(A)) == ("AwaitingApproval", verdict.message, [])
    assert _after_restart(fleet, _sourced("two", 2, approved=2, config_map="code-2"), verdict).reason == ""
    assert [(spec.source, spec.generation) for _, spec in fleet.entries(A)] == [("two", 2)]


def test_a_source_that_was_changed_in_place_runs_under_no_approval_after_a_restart_of_the_operator_either() -> None:
    fleet = running(_sourced("one", 1))
    fleet.settle(_sourced("one", 1, allowed=False), 4)
    verdict = fleet.settle(_sourced("two", 1), 4).verdicts[A]
    after = _after_restart(fleet, _sourced("two", 1), verdict)
    assert (after.reason, fleet.entries(A)) == ("AwaitingApproval", [])
    assert "ConfigMap default/code was changed in place" in after.message
    assert "put back" not in after.message, "nobody knows any more what it held"
    assert _after_restart(fleet, _sourced("two", 1, rollout="Auto"), verdict).reason == ""


def test_one_that_awaits_its_approval_and_loses_its_place_says_so_from_the_first() -> None:
    world = World()
    asleep = trader("b", symbols=TWO, suspend=True, rollout="Manual")
    world.step(desired(feed(), pool(), trader("a"), asleep))
    changed = desired(feed(), pool(most=1, per_worker=1), trader("a"), trader("b", rollout="Manual"))
    said = [world.step(changed).verdicts["default/b"] for _ in range(2)]
    assert (said[0].worker, said[0].reason) == (None, "AwaitingApproval")
    assert said[0].message.endswith("; no version of it runs until then")
    assert said[1] == said[0]
