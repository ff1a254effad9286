"""Delivery in a cluster: kept before it is pushed, above whatever somebody else kept, whatever is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.operator_parts.under_way import under_way, until

from chandlery.core.assignment import Assignment, TraderAssignment, content_hash, decode_assignment
from chandlery.core.errors import ChandleryError, UnavailableError
from chandlery.operator.delivery import Delivery, Reply
from chandlery.operator.kubernetes.api import RefusedError, StaleError
from chandlery.operator.workerlink import ClusterDelivery, PodEndpoint, WorkerLink


class Pod:
    """A worker's API and the ConfigMap beside it; fails as told."""

    def __init__(self, faults: list[str] | None = None) -> None:
        self.faults = faults or []
        self.kept: Assignment | None = None
        self.taken: Assignment | None = None
        self.order: list[tuple[str, int]] = []

    async def keep(self, assignment: Assignment) -> None:
        await asyncio.sleep(0)
        fault = self.faults.pop(0) if self.faults else ""
        errors: dict[str, ChandleryError] = {"stale": StaleError("409"), "refused": RefusedError("413 too long")}
        if fault in errors:
            raise errors[fault]
        self.kept = assignment
        self.order.append(("kept", assignment.sequence))

    def lose(self) -> None:
        self.kept = None

    async def call(self, method: str, path: str, body: bytes | None = None, *, timeout_s: float | None = None) -> Reply:
        await asyncio.sleep(0)
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "lost":
            raise UnavailableError("no answer")
        if fault == "strange":
            return Reply(409, b"<html>conflict</html>")
        assignment = decode_assignment(body or b"")
        self.order.append(("pushed", assignment.sequence))
        current = self.taken.sequence if self.taken else 0
        if assignment.sequence < current:
            return Reply(409, msgspec.json.encode({"sequence": current}))
        self.taken = assignment
        if fault == "answer lost":
            raise UnavailableError("cut")
        return Reply(200, b"{}")


class Keep:
    """Writes as the pod keeps, and answers only when told to."""

    def __init__(self, pod: Pod) -> None:
        self.written, self.answered = asyncio.Event(), asyncio.Event()
        self._pod = pod

    async def __call__(self, assignment: Assignment) -> None:
        await self._pod.keep(assignment)
        self.written.set()
        await self.answered.wait()


def traders(*names: str) -> list[TraderAssignment]:
    return [TraderAssignment(name, "u", "sma-cross", ["BTC/USDT"], "1s") for name in names]


def wanting(*names: str, sequence: int = 1) -> Assignment:
    return Assignment("w", sequence, content_hash(traders(*names)), traders(*names))


NOTHING = Assignment("w", 0, content_hash([]), [])


@asynccontextmanager
async def running(pod: Pod, before: Assignment = NOTHING) -> AsyncIterator[ClusterDelivery]:
    delivery = ClusterDelivery(before, pod, pod.keep)
    delivery._chance = lambda: 0.0  # no waiting in tests but the least
    async with under_way(delivery.run()):
        yield delivery


def delivered(delivery: Delivery) -> bool:
    return delivery.delivered_sequence == delivery.assignment.sequence


async def test_what_is_pushed_was_kept_before() -> None:
    pod = Pod(["stale", "", "lost", "refused"])
    async with running(pod) as delivery:
        delivery.want(wanting("default/a"))
        await until(lambda: delivered(delivery))
        delivery.want(wanting("default/b"))
        await until(lambda: delivered(delivery))
    for at, (what, sequence) in enumerate(pod.order):
        assert what == "kept" or ("kept", sequence) in pod.order[:at]
    assert pod.kept == pod.taken == delivery.assignment


async def test_an_adopted_assignment_is_pushed_but_not_kept_again() -> None:
    pod = Pod()
    async with running(pod, wanting("default/a", sequence=5)) as delivery:
        assert not delivery.want(wanting("default/a", sequence=6))
        await until(lambda: delivered(delivery))
    assert pod.order == [("pushed", 5)]


async def test_what_somebody_else_kept_is_gone_above() -> None:
    pod = Pod()
    async with running(pod) as delivery:
        delivery.want(wanting("default/a"))
        await until(lambda: delivered(delivery))
        delivery.above(9)
        delivery.keep_again()
        await until(lambda: delivered(delivery) and delivery.assignment.sequence == 10)
    assert pod.kept is not None
    assert pod.kept.sequence == 10


async def test_what_goes_while_it_is_being_kept_is_kept_again() -> None:
    pod = Pod()
    delivery = ClusterDelivery(NOTHING, pod, keep := Keep(pod))
    async with under_way(delivery.run()):
        delivery.want(wanting("default/a"))
        await keep.written.wait()
        pod.lose()  # somebody deletes it, and that is heard of before the answer to the write comes
        delivery.keep_again()
        keep.answered.set()
        await until(lambda: delivered(delivery) and pod.kept is not None)
        await asyncio.wait_for(delivery.kept(), 10)
    assert pod.kept == delivery.assignment
    assert pod.order == [("kept", 1), ("pushed", 1), ("kept", 1), ("pushed", 1)]


async def test_a_refusal_to_keep_is_told_and_ends_with_a_state_that_can_be_kept() -> None:
    pod = Pod(["refused"] * 3)
    async with running(pod) as delivery:
        delivery.want(wanting("default/much-too-long"))
        await until(lambda: "413" in delivery.problem)
        delivery.want(wanting("default/a"))
        await until(lambda: delivered(delivery))
        assert delivery.problem == ""


@settings(max_examples=60, deadline=None)
@given(
    faults=st.lists(st.sampled_from(["", "lost", "stale", "answer lost"]), max_size=6),
    wants=st.lists(st.sets(st.sampled_from("abc"), max_size=3), min_size=1, max_size=5),
)
def test_whatever_is_lost_pod_and_configmap_end_with_the_newest(faults: list[str], wants: list[set[str]]) -> None:
    async def play() -> None:
        pod = Pod(list(faults))
        async with running(pod) as delivery:
            for names in wants:
                delivery.want(wanting(*(f"default/{name}" for name in sorted(names))))
                await asyncio.sleep(0)
            await until(lambda: delivered(delivery))
            assert pod.taken == pod.kept == delivery.assignment
            assert pod.taken.hash == wanting(*(f"default/{name}" for name in sorted(wants[-1]))).hash

    asyncio.run(play())


async def test_a_409_that_is_not_the_workers_own_is_repeated_until_it_answers() -> None:
    pod = Pod(["", "strange", "strange"])
    async with running(pod) as delivery:
        delivery.want(wanting("default/a"))
        await until(lambda: "409" in delivery.problem or delivered(delivery))
        assert "409" in delivery.problem
        await until(lambda: delivered(delivery))
    assert pod.taken is not None
    assert pod.taken.sequence == 1


async def test_what_a_restarted_worker_is_pushed_again_is_tried_until_it_answers() -> None:
    pod = Pod()
    async with running(pod) as delivery:
        delivery.want(wanting("default/a"))
        await until(lambda: delivered(delivery))
        pod.taken, pod.faults = None, ["lost", "lost", "lost"]
        delivery.nudge()
        await until(lambda: pod.taken is not None)
        await until(lambda: not delivery.problem)
    assert not pod.faults


async def test_each_push_is_a_line_in_the_log_with_its_revision_attempt_and_outcome(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "chandlery.delivery")
    pod = Pod(["", "strange", "lost"])  # kept; an answer that isn't the worker's, and none
    async with running(pod) as delivery:
        delivery.want(wanting("default/a"))
        await until(lambda: delivered(delivery))
        pod.taken = wanting("default/somebody-else", sequence=7)
        delivery.want(wanting("default/b"))
        await until(lambda: delivered(delivery))
    lines = [
        (record.levelname, record.getMessage(), *(vars(record).get(name) for name in ("sequence", "attempt", "above")))
        for record in caplog.records
    ]
    # Going above sets the link going once more: what is already there may be pushed again.
    assert lines[:5] == [
        ("ERROR", "assignment refused", 1, 1, None),
        ("WARNING", "assignment not delivered", 1, 2, None),
        ("INFO", "assignment delivered", 1, 3, None),
        ("WARNING", "assignment refused as old; going above", 2, 1, 8),
        ("INFO", "assignment delivered", 8, 2, None),
    ]
    assert "409" in vars(caplog.records[0])["problem"]


async def test_attempts_without_an_answer_are_a_line_for_each_sequence_and_problem(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "chandlery.delivery")
    pod = Pod(["", "lost", "lost", "answer lost", "answer lost", "lost"])
    async with running(pod) as delivery:
        delivery.want(wanting("default/a"))
        await until(lambda: delivered(delivery))
        pod.faults = ["", "lost", "lost"]
        delivery.want(wanting("default/b"))
        await until(lambda: delivered(delivery))
        pod.faults = ["lost"]
        delivery.nudge()
        await until(lambda: delivery.problem == "no answer")
    assert {(one.levelname, one.getMessage()) for one in caplog.records} == {("WARNING", "assignment not delivered")}
    told = [vars(record) for record in caplog.records]
    assert [tuple(line[name] for name in ("worker", "sequence", "attempt", "problem")) for line in told] == [
        ("w", 1, 1, "no answer"),
        ("w", 1, 3, "cut"),
        ("w", 1, 5, "no answer"),
        ("w", 2, 1, "no answer"),
        ("w", 2, 1, "no answer"),
    ], "what had been delivered, and is pushed once more, fails anew"


async def test_a_links_task_that_fails_is_told() -> None:
    ended: list[asyncio.Task[None]] = []

    async def keep(_assignment: Assignment) -> None:
        raise RuntimeError("a defect")

    async with aiohttp.ClientSession() as session:
        endpoint = PodEndpoint(session, lambda: "", 1)
        link = WorkerLink(NOTHING, endpoint, keep, lambda: None, ended.append)
        link.start()
        link.want(wanting("default/a"))
        await until(lambda: bool(ended))
        assert isinstance(ended[0].exception(), RuntimeError)
        await link.stop()


async def test_an_adopted_worker_with_traders_is_no_worker_in_the_making() -> None:
    async with aiohttp.ClientSession() as session:
        adopted, new = (
            WorkerLink(one, PodEndpoint(session, lambda: "", 1), Pod().keep, lambda: None, lambda _task: None)
            for one in (wanting("default/a", sequence=5), NOTHING)
        )
    assert (adopted.now().ready, adopted.now().was_ready) == (False, True)
    assert (new.now().ready, new.now().was_ready) == (False, False)
