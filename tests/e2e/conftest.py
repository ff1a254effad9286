"""Fixtures of the tests on a real Kubernetes: a cluster of each tier a session, a namespace a test.

A cluster lies in a folder that this run holds a lock on. A run that was killed leaves a folder that the next one takes
over, ending first what was left in it.
"""

from __future__ import annotations

import fcntl
import os
import re
import uuid
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO

import pytest
from images.making import make_images
from images.roles import ROOT
from tests.e2e.cluster.binaries import build
from tests.e2e.cluster.lifecycle import Wanted, down, load, signal_container, tag, up
from tests.e2e.kubectl import Cluster, Namespace, ends_of_logs

_FOREIGN_VARIABLES = ("CHANDLERY_E2E_KUBECONFIG", "KUBECONFIG")
# Images for a foreign cluster, pulled from a registry: "registry.example/chandlery-{role}:1.2".
_IMAGES_VARIABLE = "CHANDLERY_E2E_IMAGES"
_MOST_RUNS = 16
_FAKE_NODES = 3


def foreign_kubeconfig() -> Path | None:
    """The kubeconfig of a cluster that is there already and is to be used; None where one is to be started."""
    for variable in _FOREIGN_VARIABLES:
        if path := os.environ.get(variable):
            return Path(path)
    return None


def pytest_report_header() -> str | None:
    """Say whose cluster is used: tests make and delete things there."""
    foreign = foreign_kubeconfig()
    return f"e2e: on the cluster of {foreign}" if foreign else "e2e: on clusters of this run's own"


@contextmanager
def _own_folder(tier: str) -> Iterator[Path]:
    """A folder for one cluster that no other run uses while this one lives."""
    for number in range(_MOST_RUNS):
        folder = Path(f"/tmp/chandlery-e2e-{os.getuid()}-{tier}-{number}")
        folder.mkdir(mode=0o700, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            if _locked(lock):
                yield folder
                return
    raise RuntimeError(f"{_MOST_RUNS} runs hold a {tier} tier; is one of them hanging?")


def _locked(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _cluster(wanted: Wanted) -> Iterator[Cluster]:
    if foreign := foreign_kubeconfig():
        yield Cluster(foreign)
        return
    with _own_folder(wanted.tier) as folder:
        plan = up(folder, wanted)

        own = Cluster(plan.kubeconfig, plan.binaries, logs=plan.logs)
        if plan.has_node:
            own = replace(
                own,
                load=partial(load, plan),
                tag=partial(tag, plan),
                signal=partial(signal_container, plan),
                tests_address=plan.host_address,
            )
        try:
            yield own
        finally:
            down(folder)


@pytest.fixture(scope="session")
def helm() -> str:
    """The program: as built for the tests, or that of ``PATH`` where the cluster isn't this run's own."""
    return "helm" if foreign_kubeconfig() else str(build() / "helm")


@pytest.fixture(scope="session")
def control_plane() -> Iterator[Cluster]:
    """API server, controllers, scheduler and three simulated nodes, whose pods run in name only. Needs no root."""
    with _cluster(Wanted("control-plane", fake_nodes=_FAKE_NODES, tied=True)) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def node() -> Iterator[Cluster]:
    """The same with one real node, on which pods run, and DNS. Needs root."""
    with _cluster(Wanted("node", dns=True, tied=True)) as cluster:
        yield cluster


class Images:
    """Images of the checkout, made and loaded when a test first asks for one."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._names: dict[str, str] = {}

    def __getitem__(self, role: str) -> str:
        """The name of a role's image (``images/roles.py``), which the cluster's nodes know from now on."""
        if role not in self._names:
            self._names[role] = self._made(role)
        return self._names[role]

    def again(self, role: str) -> str:
        """Another name of the same image: a version that differs from the one before in its tag alone."""
        name = self[role]
        if self._cluster.tag is None:
            pytest.skip("images of a cluster that isn't this run's own have the names that its registry gives them")
        other = f"{name}-again"
        self._cluster.tag(name, other)
        return other

    def _made(self, role: str) -> str:
        if pattern := os.environ.get(_IMAGES_VARIABLE):
            return pattern.format(role=role)
        if self._cluster.load is None:
            raise RuntimeError(f"images can't be loaded into this cluster: set {_IMAGES_VARIABLE}=REGISTRY/…{{role}}…")
        (made,) = make_images([role], ROOT / "build" / "images", print)
        self._cluster.load([made.archive])
        return made.name


@pytest.fixture(scope="session")
def images(node: Cluster) -> Images:
    """Images by role, as ``images["workers"]``, for pods of the node tier."""
    return Images(node)


@contextmanager
def _namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Namespace]:
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower()).strip("-")
    namespace = cluster.namespace(f"{words[:40].strip('-')}-{uuid.uuid4().hex[:6]}")
    try:
        yield namespace
    finally:
        namespace.remove()


@pytest.fixture
def on_control_plane(control_plane: Cluster, request: pytest.FixtureRequest) -> Iterator[Namespace]:
    """A namespace of the test's own in the control-plane tier."""
    with _namespace(control_plane, request) as namespace:
        yield namespace


@pytest.fixture
def on_node(node: Cluster, request: pytest.FixtureRequest) -> Iterator[Namespace]:
    """A namespace of the test's own in the node tier."""
    with _namespace(node, request) as namespace:
        yield namespace


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Function) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to a failure's report what stands in the test's namespaces, while they are still there."""
    report = yield
    if report.when == "call" and report.failed:
        for name, argument in item.funcargs.items():
            value = getattr(argument, "namespace", argument)
            if isinstance(value, Namespace):
                report.sections.append((f"namespace of {name}", value.diagnosis()))
                if value.cluster.logs:
                    report.sections.append((f"cluster of {name}", ends_of_logs(value.cluster.logs)))
    return report
