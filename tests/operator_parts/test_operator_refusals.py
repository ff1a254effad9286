"""Why a worker has no pod, as the cluster says it and as a Trader and a pool tell it."""

from __future__ import annotations

from typing import Any

import pytest
from tests.operator_parts.operator_bodies import pool_body, trader_body

from chandlery.operator.cache import hold
from chandlery.operator.conditions import WorkerView, pool_state, trader_state
from chandlery.operator.planner import PoolPlan, Verdict
from chandlery.operator.refusals import is_of_quota, refusal_of

_SAID = 'create Pod quants-0-0 in StatefulSet quants-0 failed error: pods "quants-0-0" is forbidden: '
EXCEEDED = _SAID + (
    "exceeded quota: small, requested: limits.memory=5912Mi,pods=1, used: limits.memory=0,pods=2, "
    "limited: limits.memory=1Gi,pods=2"
)
UNSAID = _SAID + "failed quota: cores: must specify limits.cpu for: feed,traders"
POLICY = _SAID + 'violates PodSecurity "restricted:latest": host namespaces (hostNetwork=true)'


@pytest.mark.parametrize(
    ("said", "reason", "words"),
    [
        (
            EXCEEDED,
            "QuotaExceeded",
            ["small", "limits.memory=5912Mi", "limits.memory=1Gi", "spec.hard", "tradersPer", "quants-0"],
        ),
        (UNSAID, "QuotaExceeded", ["cores", "limits.cpu", "feed,traders", "spec.podTemplate"]),
        (POLICY, "PodRefused", ["quants-0", "PodSecurity", "hostNetwork"]),
    ],
)
def test_a_refusal_names_what_refuses_and_what_to_change(said: str, reason: str, words: list[str]) -> None:
    refusal = refusal_of(said, "quants-0")
    assert refusal.reason == reason
    assert [word for word in words if word not in refusal.message] == []
    assert is_of_quota(said) == (reason == "QuotaExceeded")


def test_what_is_used_already_is_not_told_for_it_moves_by_itself() -> None:
    more = EXCEEDED.replace("used: limits.memory=0,pods=2", "used: limits.memory=512Mi,pods=2")
    assert refusal_of(EXCEEDED, "quants-0") == refusal_of(more, "quants-0")


def test_pool_and_traders_of_a_worker_without_a_pod_say_why() -> None:
    refusal = refusal_of(EXCEEDED, "quants-0")
    worker = WorkerView("quants-0", refused=refusal)
    held, pool = hold("Trader", trader_body()), hold("TraderPool", pool_body())
    resource: Any = pool.resource
    plan = PoolPlan(resource, ("default", "market"), {}, 20, 1, 0)
    for state in (
        trader_state(held, Verdict("default/one", "quants-0", ("default", "quants"), generation=1), worker),
        pool_state(pool, plan, [worker], 0, ""),
    ):
        assert (state.reason, state.message, state.stalled) == ("QuotaExceeded", refusal.message, True)


def test_a_worker_that_is_ready_speaks_for_its_traders_whatever_its_next_pod_will_meet() -> None:
    worker = WorkerView("quants-0", pod="quants-0-0", ready=True, refused=refusal_of(EXCEEDED, "quants-0"))
    verdict = Verdict("default/one", "quants-0", ("default", "quants"), generation=1)
    assert trader_state(hold("Trader", trader_body()), verdict, worker).reason != "QuotaExceeded"
