"""Children: what an operator before us applied is believed as far as it still stands there, and what others do is seen."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from tests.operator_parts.operator_bodies import pool_body

from chandlery.core.quantities import parse_quantity
from chandlery.core.resources import TraderPool
from chandlery.core.settings import KafkaSettings
from chandlery.operator.applied import Children
from chandlery.operator.cache import Dirty
from chandlery.operator.children.naming import Defaults, Object
from chandlery.operator.children.pools import disruption_budget
from chandlery.operator.children.workers import settings_map, worker_set
from chandlery.operator.covering import covers
from chandlery.operator.kubernetes.api import Kind, Page, RefusedError
from chandlery.operator.kubernetes.follow import Followed
from chandlery.operator.kubernetes.kinds import CONFIG_MAP, POD_DISRUPTION_BUDGET, STATEFUL_SET

POOL = TraderPool.model_validate(pool_body())
DEFAULTS = Defaults("workers:1", "stream:1")
KAFKA = KafkaSettings("kafka.example:9093", "market")
WORKLOAD = worker_set(POOL, "quants-0", KAFKA, DEFAULTS)
SETTINGS = settings_map(POOL, "quants-0", KAFKA, DEFAULTS)
BUDGET = disruption_budget(POOL)
KINDS = {STATEFUL_SET: WORKLOAD, CONFIG_MAP: SETTINGS}


class Server:
    """An API server that takes everything."""

    def __init__(self) -> None:
        self.applied: list[str] = []
        self.looked_for: list[str] = []
        self.there: list[Object] = []

    async def list(self, kind: Kind, namespace: str = "", *, fields: str = "", **_: Any) -> Page:
        self.looked_for.append(f"{kind.name}/{fields.removeprefix('metadata.name=')}")
        return Page("1", [item for item in self.there if fields == f"metadata.name={item['metadata']['name']}"])

    async def apply(self, kind: Kind, body: Object, *, subresource: str = "") -> Object:
        self.applied.append(f"{kind.name}/{body['metadata']['name']}")
        return as_served(body, generation=7)

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str = "") -> None:
        raise AssertionError("nothing is deleted here")


def as_served(body: Object, generation: int = 1) -> Object:
    """The object as an API server gives it: more fields, amounts in its own spelling."""
    made: Object = copy.deepcopy(body)
    made["metadata"] |= {"uid": "u", "resourceVersion": str(100 + generation), "generation": generation}
    if "template" in made.get("spec", {}):
        pod = made["spec"]["template"]["spec"]
        pod["dnsPolicy"] = "ClusterFirst"
        pod["containers"][0]["terminationMessagePath"] = "/dev/termination-log"
        requests = pod["containers"][0]["resources"]["requests"]
        requests["memory"] = f"{parse_quantity(requests['memory']) // 1024}Ki"
        made["spec"]["revisionHistoryLimit"] = 10
    return made


@pytest.fixture
def server() -> Server:
    return Server()


def children_of(server: Server, marked: list[Dirty]) -> tuple[Children, dict[Kind, Followed]]:
    children = Children(server, marked.append)
    there: dict[Kind, Followed] = {}
    for kind in (STATEFUL_SET, CONFIG_MAP, POD_DISRUPTION_BUDGET):
        is_budget = kind == POD_DISRUPTION_BUDGET
        there[kind] = Followed(None, kind, "", lambda *_: None, metadata_only=is_budget)  # type: ignore[arg-type]
        children.follow(there[kind])
    return children, there


@pytest.mark.parametrize("kind", KINDS)
async def test_what_an_operator_before_applied_is_not_written_again(server: Server, kind: Kind) -> None:
    children, there = children_of(server, [])
    there[kind].objects["default", KINDS[kind]["metadata"]["name"]] = as_served(KINDS[kind])
    assert not await children.ensure(kind, KINDS[kind])
    assert server.applied == []


def edited(body: Object, *path: str | int, value: Any) -> Object:
    made: Any = as_served(body)
    at = made
    for step in path[:-1]:
        at = at[step]
    if value is None:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return dict(made)


async def test_what_has_a_childs_name_and_is_somebody_elses_is_left_as_it_is(server: Server) -> None:
    children, _ = children_of(server, [])
    theirs = {"name": "quants-0-settings", "namespace": "default", "labels": {"app": "desk"}}
    server.there = [{"metadata": theirs}]
    with pytest.raises(RefusedError, match="ConfigMap default/quants-0-settings is there and isn't the operator's"):
        await children.ensure(CONFIG_MAP, SETTINGS)
    assert server.applied == []
    server.there = []
    assert await children.ensure(CONFIG_MAP, SETTINGS)
    assert server.applied == ["ConfigMap/quants-0-settings"]


async def test_what_somebody_else_put_where_only_ours_may_be_is_applied_over(server: Server) -> None:
    children, _ = children_of(server, [])
    server.there = [{"metadata": {"name": "quants-0-settings", "namespace": "default"}}]
    await children.apply(CONFIG_MAP, SETTINGS, over_anothers=True)
    assert server.applied == ["ConfigMap/quants-0-settings"]


@pytest.mark.parametrize("lost", ["labels", "ownerReferences"])
async def test_a_child_that_is_known_by_its_label_or_its_owner_is_ours(server: Server, lost: str) -> None:
    children, _ = children_of(server, [])
    server.there = [as_served(SETTINGS)]
    del server.there[0]["metadata"][lost]
    assert await children.ensure(CONFIG_MAP, SETTINGS)


async def test_what_has_a_childs_name_is_looked_for_once_and_again_only_when_the_child_is_gone(server: Server) -> None:
    children, there = children_of(server, [])
    newer = {**SETTINGS, "metadata": {**SETTINGS["metadata"], "annotations": {}}}
    await children.ensure(CONFIG_MAP, SETTINGS)
    await children.ensure(CONFIG_MAP, newer)
    there[STATEFUL_SET].objects["default", "quants-0"] = edited(WORKLOAD, "spec", "replicas", value=0)
    await children.ensure(STATEFUL_SET, WORKLOAD)
    assert server.looked_for == ["ConfigMap/quants-0-settings"]
    children.changed(CONFIG_MAP)(("default", "quants-0-settings"), as_served(newer), None)
    await children.ensure(CONFIG_MAP, newer)
    assert server.looked_for == ["ConfigMap/quants-0-settings"] * 2
    assert len(server.applied) == 4


_POD = ("spec", "template", "spec")


@pytest.mark.parametrize(
    ("kind", "there"),
    [
        (CONFIG_MAP, edited(SETTINGS, "data", "feed.json", value="{}")),
        (CONFIG_MAP, edited(SETTINGS, "data", "feed.json", value=None)),
        (STATEFUL_SET, edited(WORKLOAD, "spec", "replicas", value=0)),
        (STATEFUL_SET, edited(WORKLOAD, *_POD, "containers", 0, "image", value="other:1")),
        (STATEFUL_SET, edited(WORKLOAD, *_POD, "containers", 0, "resources", "limits", "memory", value="1Gi")),
        (STATEFUL_SET, edited(WORKLOAD, *_POD, "automountServiceAccountToken", value=True)),
        (STATEFUL_SET, edited(WORKLOAD, *_POD, "initContainers", value=None)),
        (STATEFUL_SET, edited(WORKLOAD, "metadata", "labels", "chandlery.dev/pool", value="another")),
    ],
)
async def test_what_somebody_edited_while_no_operator_ran_is_put_right(
    server: Server, kind: Kind, there: Object
) -> None:
    children, followed = children_of(server, [])
    followed[kind].objects["default", KINDS[kind]["metadata"]["name"]] = there
    assert await children.ensure(kind, KINDS[kind])
    assert not await children.ensure(kind, KINDS[kind]), "once"


async def test_of_what_only_metadata_is_known_is_applied_once_at_the_start(server: Server) -> None:
    children, there = children_of(server, [])
    there[POD_DISRUPTION_BUDGET].objects["default", "quants-workers"] = {"metadata": as_served(BUDGET)["metadata"]}
    assert await children.ensure(POD_DISRUPTION_BUDGET, BUDGET)
    assert not await children.ensure(POD_DISRUPTION_BUDGET, BUDGET)


@pytest.mark.parametrize("now", ["gone", "edited", "labels"])
async def test_a_child_that_somebody_deletes_or_edits_is_applied_again(server: Server, now: str) -> None:
    marked: list[Dirty] = []
    children, _ = children_of(server, marked)
    await children.ensure(POD_DISRUPTION_BUDGET, BUDGET)
    changed = children.changed(POD_DISRUPTION_BUDGET)
    before = as_served(BUDGET, generation=7)
    after: Any = {"gone": None, "edited": as_served(BUDGET, generation=8), "labels": as_served(BUDGET, generation=7)}[
        now
    ]
    if now == "labels":
        after["metadata"]["annotations"] = {}
    changed(("default", "quants-workers"), before, after)
    assert marked == [("pool", "default", "quants")]
    assert await children.ensure(POD_DISRUPTION_BUDGET, BUDGET)


async def test_a_status_that_moves_has_nothing_written(server: Server) -> None:
    children, _ = children_of(server, [])
    await children.ensure(POD_DISRUPTION_BUDGET, BUDGET)
    moved = as_served(BUDGET, generation=7)
    moved["metadata"]["resourceVersion"] = "999"
    children.changed(POD_DISRUPTION_BUDGET)(("default", "quants-workers"), as_served(BUDGET, generation=7), moved)
    assert not await children.ensure(POD_DISRUPTION_BUDGET, BUDGET)


def test_what_others_put_beside_ours_is_no_difference() -> None:
    there = as_served(WORKLOAD)
    there["spec"]["template"]["spec"]["containers"].append({"name": "sidecar"})
    there["metadata"]["labels"]["team"] = "quants"
    assert covers(there, WORKLOAD)
