"""Whose a worker's objects are: what only wears our labels is neither adopted nor a reason to delete anything."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio
from tests.operator_parts.operator_bodies import pool_body

from chandlery.core.assignment import Assignment, TraderAssignment, content_hash
from chandlery.core.resources import TraderPool
from chandlery.core.settings import KafkaSettings
from chandlery.operator.applied import Children
from chandlery.operator.cache import Cache
from chandlery.operator.children.naming import POOL_LABEL, WORKER_LABEL, Defaults, Object
from chandlery.operator.children.workers import assignment_map, settings_map, worker_set
from chandlery.operator.kubernetes.api import Kind, Page, RefusedError
from chandlery.operator.kubernetes.follow import Followed
from chandlery.operator.kubernetes.kinds import CONFIG_MAP, POD, SECRET, STATEFUL_SET
from chandlery.operator.workers import Workers
from chandlery.operator.workersets import WorkerSets

POOL = TraderPool.model_validate(pool_body())
DEFAULTS = Defaults("workers:1", "stream:1")
KAFKA = KafkaSettings("kafka.example:9093", "market")


class Deletions:
    """An API server that is only asked to delete, and whose a Secret is."""

    def __init__(self) -> None:
        self.deleted: list[str] = []
        self.uids: dict[str, str] = {}
        self.foreign: set[str] = set()

    async def apply(self, kind: Kind, body: Object, *, subresource: str = "") -> Object:
        name = body["metadata"]["name"]
        assert kind == SECRET, f"{kind.name} {name} applied"
        if name in self.foreign:
            raise RefusedError(f'422 Secret "{name}" is invalid: type: field is immutable')
        return {"metadata": {**body["metadata"], "resourceVersion": "7", "uid": f"uid-of-{name}"}}

    async def list(self, kind: Kind, namespace: str = "", *, fields: str = "", **_: Any) -> Page:
        raise AssertionError(f"{kind.name} {fields} looked for")

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str = "") -> None:
        self.deleted.append(f"{kind.name}/{name}")
        self.uids[f"{kind.name}/{name}"] = uid


class Cluster:
    """What is there, and the parts that look at it."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.api = Deletions()
        self.children = Children(self.api, lambda _dirty: None)
        self.there: dict[Kind, Followed] = {}
        for kind in (STATEFUL_SET, CONFIG_MAP, POD):
            self.there[kind] = Followed(None, kind, "", lambda *_: None)  # type: ignore[arg-type]
            self.children.follow(self.there[kind])
        cache = Cache()
        cache.put("TraderPool", pool_body())
        self.workers = Workers(
            None,  # type: ignore[arg-type]
            cache, self.children, session, b"key", 1, lambda _dirty: None, lambda _task: None,
        )  # fmt: skip
        self.sets = WorkerSets(self.children, self.workers, DEFAULTS, lambda *_: None)

    def put(self, kind: Kind, *bodies: Object) -> None:
        for body in bodies:
            body["metadata"].update(resourceVersion="1", generation=1, uid=f"{kind.name}-{body['metadata']['name']}")
            self.there[kind].objects["default", body["metadata"]["name"]] = body

    def put_worker(self, name: str) -> None:
        self.put(STATEFUL_SET, worker_set(POOL, name, KAFKA, DEFAULTS))
        self.put(CONFIG_MAP, assignment_map(POOL, assigned(name)), settings_map(POOL, name, KAFKA, DEFAULTS))


@pytest_asyncio.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with aiohttp.ClientSession() as session:
        made = Cluster(session)
        yield made
        await made.workers.close()


def assigned(worker: str) -> Assignment:
    traders = [TraderAssignment("default/one", "u", "sma-cross", ["BTC/USDT"], "1s")]
    return Assignment(worker, 3, content_hash(traders), traders)


def labelled(name: str, worker: str, owner_uid: str = "", data: dict[str, str] | None = None) -> Object:
    """A ConfigMap in our labels."""
    owners: list[dict[str, Any]] = [{"uid": owner_uid}] if owner_uid else []
    labels = {POOL_LABEL: POOL.name, WORKER_LABEL: worker}
    meta = {"name": name, "namespace": "default", "labels": labels, "ownerReferences": owners}
    return {"metadata": meta, "data": data or {}}


async def test_a_workers_own_objects_are_removed(cluster: Cluster) -> None:
    cluster.put_worker("quants-0")
    cluster.put_worker("quants-1")
    await cluster.sets.remove_others(POOL, ["quants-0"])
    assert cluster.api.deleted == [
        "StatefulSet/quants-1",
        "ConfigMap/quants-1-assignment",
        "ConfigMap/quants-1-settings",
        "Secret/quants-1-worker-token",
    ]
    assert cluster.api.uids["Secret/quants-1-worker-token"] == "uid-of-quants-1-worker-token", (
        "nothing made since of that name"
    )
    assert cluster.api.uids["StatefulSet/quants-1"] == "StatefulSet-quants-1"


async def test_a_secret_in_the_name_of_a_workers_that_is_anothers_stays(cluster: Cluster) -> None:
    cluster.put_worker("quants-1")
    cluster.api.foreign.add("quants-1-worker-token")
    await cluster.sets.remove_others(POOL, [])
    assert cluster.api.deleted[0] == "StatefulSet/quants-1"
    assert "Secret/quants-1-worker-token" not in cluster.api.deleted


async def test_a_kept_assignment_that_does_not_match_its_hash_is_not_adopted(cluster: Cluster) -> None:
    sound = assigned("quants-0")
    forged = msgspec.structs.replace(sound, traders=[msgspec.structs.replace(sound.traders[0], strategy="mine")])
    cluster.put(CONFIG_MAP, assignment_map(POOL, forged))
    cluster.workers.adopt()
    link = cluster.workers.of(POOL.key)["quants-0"]
    assert link.delivery.assignment.sequence == 0, "the worker is told nothing before its Traders are planned"
    link.want(sound)
    assert link.delivery.assignment.traders == sound.traders
    assert link.delivery.assignment.sequence > forged.sequence, "what replaces it is above it"
    (said,) = cluster.workers.unsound(POOL.key).values()
    assert forged.hash in said
    assert cluster.workers.unsound(POOL.key) == {}, "told once"


async def test_a_sequence_that_nobody_can_go_above_is_not_gone_by(cluster: Cluster) -> None:
    cluster.put(CONFIG_MAP, assignment_map(POOL, msgspec.structs.replace(assigned("quants-0"), sequence=2**64 - 1)))
    cluster.workers.adopt()
    link = cluster.workers.of(POOL.key)["quants-0"]
    link.want(assigned("quants-0"))
    assert 0 < link.delivery.assignment.sequence < 2**32


async def test_labels_alone_have_nothing_deleted(cluster: Cluster) -> None:
    foreign = worker_set(POOL, "database", KAFKA, DEFAULTS)
    foreign["metadata"]["ownerReferences"] = []
    cluster.put(STATEFUL_SET, foreign)
    cluster.put(
        CONFIG_MAP,
        labelled("bait", "database"),
        labelled("bait-of-an-earlier-pool", "quants-5", owner_uid="earlier"),
        labelled("bait-that-names-the-pool", "database", owner_uid=POOL.identity),
    )
    await cluster.sets.remove_others(POOL, [])
    assert cluster.api.deleted == []


async def test_what_only_has_a_workers_name_stays_when_the_worker_goes(cluster: Cluster) -> None:
    foreign = worker_set(POOL, "quants-1", KAFKA, DEFAULTS)
    foreign["metadata"]["ownerReferences"] = []
    cluster.put(STATEFUL_SET, foreign)
    cluster.put(CONFIG_MAP, assignment_map(POOL, assigned("quants-1")))
    await cluster.sets.remove_others(POOL, [])
    assert "StatefulSet/quants-1" not in cluster.api.deleted


async def test_only_the_pools_own_workers_are_adopted(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    cluster.put(CONFIG_MAP, assignment_map(POOL, assigned("quants-2")))
    cluster.put(CONFIG_MAP, assignment_map(POOL, assigned("foo")), labelled("quants-3-assignment", "quants-3"))
    with caplog.at_level(logging.WARNING):
        cluster.workers.adopt()
    assert set(cluster.workers.of(POOL.key)) == {"quants-2"}
    assert {getattr(record, "worker", "") for record in caplog.records} == {"foo", "quants-3"}


async def test_a_pod_in_a_workers_labels_is_not_taken_for_the_workers_pod(cluster: Cluster) -> None:
    link = cluster.workers.link(POOL, "quants-0")
    pod = labelled("bait", "quants-0")
    pod["metadata"]["uid"] = "bait"
    pod["status"] = {"podIP": "10.0.0.9"}
    cluster.workers.pod_changed(("default", "bait"), None, pod)
    assert link.view().pod == ""
