"""What is watched in the cluster has what depends on it looked at, whatever of it changes."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import kopf
import pytest
from tests.operator_parts.operator_bodies import feed_body, pool_body, trader_body

from chandlery.core.errors import UnavailableError
from chandlery.core.kube_credentials import Credentials
from chandlery.operator.app import Operator
from chandlery.operator.cache import Cache, Dirty
from chandlery.operator.children.naming import FEED_LABEL, POOL_LABEL, Object
from chandlery.operator.kubernetes.api import Kind
from chandlery.operator.kubernetes.follow import Followed
from chandlery.operator.kubernetes.kinds import (
    CONFIG_MAP,
    NAMESPACE,
    NETWORK_POLICY,
    POD,
    POD_DISRUPTION_BUDGET,
    RESOURCES,
    SERVICE,
    STATEFUL_SET,
)
from chandlery.operator.options import read_options
from chandlery.operator.watching import Sweeper, handlers, settings
from chandlery.operator.workers import Workers

POOL, FEED = ("pool", "default", "quants"), ("feed", "default", "market")


class Queue:
    """Remembers what was marked."""

    def __init__(self) -> None:
        self.marked: list[Dirty] = []

    def mark(self, dirty: Dirty, _delay_s: float) -> None:
        self.marked.append(dirty)


class NoWorkers:
    """Links to no worker."""

    def all(self) -> dict[Any, Any]:
        return {}

    def pod_changed(self, *_: Any) -> None:
        """It is of none."""

    def assignment_changed(self, *_: Any) -> None:
        """It is of none."""


class Watching:
    """An operator that has listed everything, and what it follows."""

    def __init__(self) -> None:
        self.operator = Operator(read_options(["--worker-image", "workers:1"]), Credentials("http://none", None))
        self.queue = Queue()
        self.operator._queue = cast(Any, self.queue)
        self.operator._workers = cast(Workers, NoWorkers())
        self.operator._follow()
        self.operator._primed = True
        for kind, body in (("MarketFeed", feed_body()), ("TraderPool", pool_body()), ("Trader", TRADER)):
            self.operator._cache.put(kind, body)

    def marks(self, kind: Kind, item: Object, *, gone: bool = False, whole: bool = True) -> set[Dirty]:
        """What is to be looked at when a watch brings this."""
        self.queue.marked.clear()
        (followed,) = (one for one in self._followed(kind) if kind != CONFIG_MAP or one.metadata_only != whole)
        meta = item["metadata"]
        followed._set((meta.get("namespace", ""), meta["name"]), None if gone else item)
        return set(self.queue.marked)

    def _followed(self, kind: Kind) -> list[Followed]:
        return [one for one in self.operator._followed if one.kind == kind]


TRADER = trader_body(strategy={"name": "mine", "source": {"configMapRef": {"name": "strategies", "key": "s.py"}}})


def item(name: str, version: int, namespace: str = "default", **more: Any) -> Object:
    meta = {"name": name, "namespace": namespace, "resourceVersion": str(version), "uid": name, "labels": {}}
    return {"metadata": {**meta, **more.pop("metadata", {})}, **more}


def watched() -> list[tuple[Kind, Object]]:
    """Each change of a child of a pool and of a feed, one after the other."""
    states: list[dict[str, Any]] = [
        {"status": {}},
        {"status": {"readyReplicas": 1}},
        {"status": {"conditions": [{"type": "Ready", "status": "True"}]}},
        {"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "ContainersNotReady"}]}},
    ]
    kinds = (STATEFUL_SET, POD, CONFIG_MAP, SERVICE, POD_DISRUPTION_BUDGET, NETWORK_POLICY)
    return [(kind, item("child", number, **state)) for kind in kinds for number, state in enumerate(states, 1)]


@pytest.mark.parametrize(("label", "dirty"), [((POOL_LABEL, "quants"), POOL), ((FEED_LABEL, "market"), FEED)])
async def test_each_change_of_a_child_has_its_owner_looked_at_and_so_has_its_end(
    label: tuple[str, str], dirty: Dirty
) -> None:
    watching = Watching()
    for kind, child in watched():
        child["metadata"]["labels"] = dict([label])
        assert watching.marks(kind, child) == {dirty}, f"{kind.name} {child}"
        assert watching.marks(kind, child) == set(), "nothing of it has changed"
    for kind in {kind for kind, _ in watched()}:
        assert watching.marks(kind, item("child", 9), gone=True) == {dirty}


async def test_each_change_of_a_strategys_configmap_has_the_pool_of_whoever_names_it_looked_at() -> None:
    watching = Watching()
    for version in (1, 2):
        assert watching.marks(CONFIG_MAP, item("strategies", version), whole=False) == {POOL}
    assert watching.marks(CONFIG_MAP, item("strategies", 3), gone=True, whole=False) == {POOL}
    assert watching.marks(CONFIG_MAP, item("of-somebody-else", 4), whole=False) == set()
    assert watching.marks(CONFIG_MAP, item("strategies", 5, namespace="other"), whole=False) == set()


async def test_each_change_of_a_namespace_has_everything_looked_at() -> None:
    """Its labels say who may use a pool or a feed."""
    watching = Watching()
    for version, labels in enumerate(({}, {"team": "a"}, {"team": "b"}), 1):
        changed = item("desk", version, namespace="", metadata={"labels": labels})
        assert watching.marks(NAMESPACE, changed) == {POOL, FEED}
    assert watching.marks(NAMESPACE, item("desk", 9, namespace=""), gone=True) == {POOL, FEED}


def test_kopf_neither_copies_what_is_watched_nor_calls_a_thread_for_it() -> None:
    assert settings().persistence.diffbase_storage.build(body=kopf.Body(cast(Any, TRADER))) == {}
    gates = handlers(Cache(), lambda _: None, lambda: None)._indexing.get_all_handlers()
    assert len(gates) == len(RESOURCES), "without one, changes are told before everything has been listed"
    assert not any(cast(Any, gate.when)() for gate in gates)


@pytest.mark.parametrize("how", ["it fails", "it finds a watch dead"])
async def test_a_sweep_that_can_not_go_on_ends_the_operators_run_with_what_is_wrong(
    how: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The API server is left out: lists bring nothing, and kopf only waits to be told to stop."""
    options = read_options(["--worker-image", "workers:1", "--listen", "127.0.0.1:0"])
    operator = Operator(options, Credentials("http://none", None))

    async def nothing_there() -> None:
        """Of any kind."""

    async def key() -> bytes:
        return b"k" * 32

    async def kopf_runs(*, stop_flag: asyncio.Event, **_: Any) -> None:
        await stop_flag.wait()

    async def sweep(sweeper: Sweeper) -> None:
        if how == "it fails":
            raise LookupError("no such number")
        sweeper._dead("the watch of traders brings nothing")
        await asyncio.Event().wait()

    monkeypatch.setattr(operator, "_follow", lambda: None)
    monkeypatch.setattr(operator, "_list_all", nothing_there)
    monkeypatch.setattr(operator, "_token_key", key)
    monkeypatch.setattr("chandlery.operator.app.kopf.operator", kopf_runs)
    monkeypatch.setattr(Sweeper, "run", sweep)
    wrong = "sweep failed: LookupError" if how == "it fails" else "the watch of traders brings nothing"
    with pytest.raises(UnavailableError, match=wrong):
        async with asyncio.timeout(30):
            await operator.run()
    assert not operator._tasks, "the other parts have ended with it"
    assert ("no such number" in caplog.text) == (how == "it fails"), "a defect is in the log whole"
