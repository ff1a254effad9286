"""Containers of a pool's workers that can't run: an event on the pool, one an episode."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.operator_parts.operator_bodies import pool_body
from tests.operator_parts.pools_bench import KEY, Bench

from chandlery.operator.conditions import WorkerView
from chandlery.operator.events import Events
from chandlery.operator.podstate import ContainerTrouble
from chandlery.operator.pools import Pools
from chandlery.operator.troubles import Troubles

PULL = ContainerTrouble("feed", "ImagePullBackOff")


def worker(number: int, ails: ContainerTrouble | None = PULL, uid: str = "") -> WorkerView:
    name = f"quants-{number}"
    return WorkerView(name, f"{name}-0", pod_uid=uid or f"uid-{number}", ails=ails)


def episodes(troubles: Troubles, *workers: WorkerView, says: str = "") -> list[tuple[str, str]]:
    status = {"conditions": [{"type": "Ready", "message": says}]}
    return [(reason, episode) for reason, _, episode in troubles.to_tell(KEY, status, workers)]


def test_an_image_that_no_worker_can_pull_is_one_episode_as_long_as_any_can_not() -> None:
    troubles = Troubles()
    first = [("ImagePullBackOff", "container feed since pod uid-1")]
    assert episodes(troubles, worker(1)) == first
    assert episodes(troubles, worker(0), worker(1)) == first
    assert episodes(troubles, worker(0), worker(1, None)) == first
    assert episodes(troubles, worker(0, None), worker(1, None)) == []
    assert episodes(troubles, worker(0, uid="another")) == [("ImagePullBackOff", "container feed since pod another")]


def test_another_container_and_another_word_are_others() -> None:
    other, crash = ContainerTrouble("traders", "ImagePullBackOff"), ContainerTrouble("feed", "CrashLoopBackOff")
    told = episodes(Troubles(), worker(0), worker(1, other), worker(2, crash))
    assert [reason for reason, _ in told] == ["ImagePullBackOff", "ImagePullBackOff", "CrashLoopBackOff"]
    assert len(set(told)) == 3


def test_a_container_that_runs_between_two_of_its_ends_begins_no_other_episode() -> None:
    crash = ContainerTrouble("feed", "CrashLoopBackOff")
    troubles = Troubles()
    told = [episodes(troubles, worker(0, crash if turn % 2 else None)) for turn in range(6)]
    assert len({episode for each in told for episode in each}) == 1


def test_what_the_status_says_already_was_told_before_by_whichever_operator() -> None:
    troubles = Troubles()
    says = "not Ready: quants-0 (worker quants-0 is starting: container feed: ImagePullBackOff)"
    assert episodes(troubles, worker(0), says=says) == []
    assert episodes(troubles, worker(0)) == [], "nor later, while it lasts"
    assert episodes(troubles, worker(0, None)) == []
    assert len(episodes(troubles, worker(0, uid="another"))) == 1


def pod(reason: str, restarts: int) -> dict[str, Any]:
    waits = {
        "name": "traders",
        "restartCount": restarts,
        "state": {"waiting": {"reason": reason, "message": f"{restarts}"}},
    }
    return {
        "metadata": {"name": "quants-0-0", "namespace": "default", "uid": "pod-1"},
        "status": {"podIP": "127.0.0.1", "containerStatuses": [waits]},
    }


@pytest.mark.parametrize("reasons", [("ErrImagePull", "ImagePullBackOff"), ("CrashLoopBackOff", "CrashLoopBackOff")])
async def test_a_pool_has_one_warning_however_often_its_container_is_tried_and_its_operator_starts_again(
    bench: Bench, reasons: tuple[str, str]
) -> None:
    bench.cache.put("TraderPool", pool_body())
    await bench.pools.reconcile(KEY)
    link = bench.workers.of(KEY)["quants-0"]
    for turn in range(6):
        link.pod_changed(pod(reasons[turn % 2], turn + 2))
        await bench.pools.reconcile(KEY)
    assert bench.server.events == [("quants", reasons[1])]
    log = bench.server.log
    assert log.index(f"Event/{reasons[1]} of TraderPool/quants") < len(log) - 1, "told before the status says so"
    api: Any = bench.server
    bench.cache.put("TraderPool", {**pool_body(version=1000), "status": bench.server.statuses["TraderPool/quants"]})
    bench.pools = Pools(replace(bench.tools, events=Events(api, "another")))
    await bench.pools.reconcile(KEY)
    assert len(bench.server.events) == 1


async def test_an_edit_of_the_pool_makes_no_other_warning_of_what_lasts(bench: Bench) -> None:
    bench.cache.put("TraderPool", pool_body())
    await bench.pools.reconcile(KEY)
    bench.workers.of(KEY)["quants-0"].pod_changed(pod("CrashLoopBackOff", 3))
    for most in (2, 3, 4):
        body = pool_body(version=1000 + most, generation=most, workers={"max": most})
        bench.cache.put("TraderPool", body)
        await bench.pools.reconcile(KEY)
    assert bench.server.events == [("quants", "CrashLoopBackOff")]


def test_what_is_told_names_container_worker_and_where_to_look() -> None:
    missing = ContainerTrouble("feed", "CreateContainerConfigError", 'secret "kafka" not found')
    crash = ContainerTrouble("traders", "CrashLoopBackOff")
    notes = [note for _, note, _ in Troubles().to_tell(KEY, {}, [worker(0, missing), worker(1, crash)])]
    assert notes == [
        'container feed of worker quants-0 can\'t run: CreateContainerConfigError: secret "kafka" not found; '
        "`kubectl describe pod quants-0-0` tells more",
        "container traders of worker quants-1 can't run: CrashLoopBackOff; `kubectl describe pod quants-1-0` and "
        "`kubectl logs quants-1-0 -c traders --previous` tell why",
    ]
