"""How a Trader is told of that can't be read."""

from __future__ import annotations

from dataclasses import replace

from chandlery.core.resources.status import MAX_MESSAGE_CHARS
from chandlery.operator.planner_types import Failed, Rollout, Verdict
from chandlery.operator.standing_in import told_of_unread

RUNS = Verdict("default/one", "quants-0", ("default", "quants"), generation=2, incarnation=4)
FAILED = Failed("digest", 3, "Crashed", "it crashed")


def test_what_failed_before_is_not_told_again_in_the_words_of_what_can_not_be_read() -> None:
    told = told_of_unread(Verdict("default/one", "quants-0", reason="Crashed", generation=2, failed=FAILED), "spec: no")
    assert (told.reason, told.message, told.failed) == ("BadManifest", "spec: no (generation 2 stays)", None)


def test_however_long_a_problem_is_what_goes_on_is_told() -> None:
    told = told_of_unread(RUNS, "x" * 2 * MAX_MESSAGE_CHARS)
    assert len(told.message) == MAX_MESSAGE_CHARS
    assert told.message.endswith("x (generation 2 stays)")
    nowhere = told_of_unread(Verdict("default/one", None, reason="PoolFull", message="full"), "x" * MAX_MESSAGE_CHARS)
    assert nowhere.message.startswith("full; besides, it can't be read: xx")
    assert len(nowhere.message) == MAX_MESSAGE_CHARS


def test_who_suspends_is_told_in_the_same_words_whatever_else_keeps_the_version_before() -> None:
    for reason in ("Suspended", "UnknownTier"):
        told = told_of_unread(replace(RUNS, reason=reason, message="why", suspended="spec.suspend is true"), "spec: no")
        assert told.message == "spec: no (generation 2 stays); meanwhile it decides nothing: spec.suspend is true"


def test_amid_a_change_the_version_that_comes_is_the_one_that_stays() -> None:
    coming = Rollout("Warming", 3, "generation 3 warms", incarnation=5, worker="quants-0")
    assert told_of_unread(replace(RUNS, rollout=coming), "spec: no").message == "spec: no (generation 3 stays)"
    waiting = replace(coming, incarnation=0, worker="")
    assert told_of_unread(replace(RUNS, rollout=waiting), "spec: no").message == "spec: no (generation 2 stays)"
