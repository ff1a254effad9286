"""What keeps a pod from running is said in the cluster's words."""

from __future__ import annotations

from typing import Any

import pytest
from tests.operator_parts.operator_bodies import pool_body, trader_body

from chandlery.operator.cache import hold
from chandlery.operator.conditions import WorkerView, pool_state, trader_state
from chandlery.operator.planner import PoolPlan, Verdict
from chandlery.operator.planner_types import Lack
from chandlery.operator.podstate import address_of, is_ready, trouble_of


def pod(status: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": "quants-0-0", **metadata}, "status": status}


READY = {"podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}


def test_a_pod_that_ends_is_not_ready_whatever_its_conditions_say() -> None:
    assert is_ready(pod(READY))
    assert not is_ready(pod(READY, deletionTimestamp="2026-01-01T00:00:00Z"))
    assert not is_ready(pod({}))
    assert not is_ready(None)
    assert (address_of(pod(READY)), address_of(None), address_of(pod({}))) == ("10.0.0.1", "", "")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (READY, ""),
        ({"containerStatuses": [{"name": "traders", "state": {"waiting": {"reason": "PodInitializing"}}}]}, ""),
        (
            {"initContainerStatuses": [{"name": "feed", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]},
            "container feed: ImagePullBackOff",
        ),
        (
            {"containerStatuses": [{"name": "feed", "state": {"waiting": {"reason": "ErrImagePull"}}}]},
            "container feed: ImagePullBackOff",
        ),
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3"}]},
            "Unschedulable: 0/3",
        ),
    ],
)
def test_the_trouble_of_a_pod_is_named(status: dict[str, Any], words: str) -> None:
    assert trouble_of(pod(status)) == words


@pytest.mark.parametrize(
    ("reason", "message", "words"),
    [
        ("CreateContainerConfigError", 'secret "lic" not found', 'CreateContainerConfigError: secret "lic" not found'),
        (
            "CreateContainerConfigError",
            "couldn't find key KEY in Secret default/lic",
            "CreateContainerConfigError: couldn't find key KEY in Secret default/lic",
        ),
        ("InvalidImageName", "couldn't parse image name", "InvalidImageName: couldn't parse image name"),
    ],
)
def test_what_a_container_lacks_is_named_in_the_kubelets_words(reason: str, message: str, words: str) -> None:
    container = {"name": "traders", "state": {"waiting": {"reason": reason, "message": message}}}
    assert trouble_of(pod({"containerStatuses": [container]})) == f"container traders: {words}"
    lacking = WorkerView("quants-0", "quants-0-0", trouble=trouble_of(pod({"containerStatuses": [container]})))
    verdict = Verdict("default/one", "quants-0", ("default", "quants"), generation=1)
    assert message in trader_state(hold("Trader", trader_body()), verdict, lacking).message


@pytest.mark.parametrize(
    "said",
    [
        [
            ("CrashLoopBackOff", "back-off 10s restarting failed container=traders"),
            ("CrashLoopBackOff", "back-off 20s restarting failed container=traders"),
        ],
        [
            ("ErrImagePull", "rpc error: code = NotFound desc = failed to pull and unpack image"),
            ("ImagePullBackOff", 'Back-off pulling image "mine:2"'),
        ],
        [
            ("CreateContainerError", 'failed to reserve container name: is reserved for "0a1b"'),
            ("CreateContainerError", 'failed to reserve container name: is reserved for "2c3d"'),
        ],
    ],
)
def test_words_that_are_others_each_time_are_not_told(said: list[tuple[str, str]]) -> None:
    told = {
        trouble_of(
            pod(
                {"containerStatuses": [{"name": "traders", "state": {"waiting": {"reason": reason, "message": words}}}]}
            )
        )
        for reason, words in said
    }
    assert len(told) == 1


def started(restarts: int, ran: str = "00:00:09", *, ready: bool = False, **state: Any) -> dict[str, Any]:
    """A container that was started again so often, and ran for so long before."""
    ended = {"exitCode": 1, "startedAt": "2026-01-01T00:00:00Z", "finishedAt": f"2026-01-01T{ran}Z"}
    last = {"terminated": ended} if restarts else {}
    now = state or {"running": {"startedAt": "2026-01-01T00:20:00Z"}}
    return {"name": "ingest", "ready": ready, "restartCount": restarts, "state": now, "lastState": last}


@pytest.mark.parametrize(
    ("container", "loops"),
    [
        (started(0), False),
        (started(1), False),  # the first time at once, without any back-off
        (started(1, waiting={"reason": "CrashLoopBackOff"}), True),
        (started(2), True),
        (started(2, terminated={"exitCode": 1}), True),  # until the kubelet has looked at it
        (started(2) | {"lastState": {"terminated": {"exitCode": 128, "startedAt": None}}}, True),
        (started(2) | {"lastState": {}}, False),
        (started(2, ready=True), False),
        (started(7, "00:10:00"), False),  # ran well, and long enough for the kubelet to begin anew
    ],
)
def test_a_container_is_in_its_crash_loop_also_while_it_runs_between_two_ends(
    container: dict[str, Any], loops: bool
) -> None:
    words = "container ingest: CrashLoopBackOff" if loops else ""
    assert trouble_of(pod({"containerStatuses": [container]})) == words
    assert trouble_of(pod({"initContainerStatuses": [container]})) == words


def test_a_pool_says_which_workers_are_not_ready_and_why() -> None:
    held = hold("TraderPool", pool_body())
    plan = PoolPlan(held.resource, ("default", "market"), {}, 20, 0, 0)  # type: ignore[arg-type]
    absent = pool_state(held, plan, [WorkerView("quants-0")], 0, "")
    assert absent.reason == "WorkersStarting"
    assert "kubectl describe statefulset quants-0" in absent.message
    stuck = WorkerView("quants-0", "quants-0-0", trouble="container feed: ImagePullBackOff")
    assert "ImagePullBackOff" in pool_state(held, plan, [stuck], 0, "").message
    lost = WorkerView("quants-0", "quants-0-0", was_ready=True)
    assert pool_state(held, plan, [lost], 0, "").reason == "WorkersUnready"


@pytest.mark.parametrize("pending", [0, 2])
def test_a_suspended_pool_says_all_the_same_that_traders_find_no_room(pending: int) -> None:
    body = pool_body()
    held = hold("TraderPool", {**body, "spec": {**body["spec"], "suspend": True}})
    lacks: frozenset[Lack] = frozenset({"room"} if pending else ())
    plan = PoolPlan(held.resource, ("default", "market"), {}, 20, 20, pending, lacks=lacks)  # type: ignore[arg-type]
    state = pool_state(held, plan, [WorkerView("quants-0", "quants-0-0", ready=True)], 0, "")
    assert (state.reason, state.ready, state.stalled, state.settled) == ("Suspended", False, False, True)
    assert state.message.startswith("spec.suspend is true: its workers stay")
    words = "; some of its traders find no room: raise spec.workers.max, spec.tradersPerWorker or spec.segment.series"
    assert state.message.endswith(words) == bool(pending)
