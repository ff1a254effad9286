"""A cluster comes up, outlives its parts' deaths, and goes without a trace. Each test has clusters of its own."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.e2e.cluster.api import Api
from tests.e2e.cluster.commands import ClusterError, run
from tests.e2e.cluster.lifecycle import Wanted, down, up
from tests.e2e.cluster.node import MACHINE_SYSCTLS
from tests.e2e.cluster.plan import Plan, Tier
from tests.e2e.cluster.processes import look_up
from tests.e2e.conftest import foreign_kubeconfig

pytestmark = pytest.mark.skipif(foreign_kubeconfig() is not None, reason="has clusters of its own")

TIERS = ["control-plane", pytest.param("node", marks=pytest.mark.node)]
_DEADLINE_S = 30.0


@pytest.fixture
def folder() -> Iterator[Path]:
    """A cluster's folder, short enough for sockets; what a failed test leaves up is ended."""
    with tempfile.TemporaryDirectory(prefix="e2e-", dir="/tmp") as name:
        yield Path(name)
        down(Path(name))


def _traces(plan: Plan) -> list[str]:
    """What of a cluster is on this machine: processes, mounts, links, cgroups, files in memory."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                words = Path("/proc", entry, "cmdline").read_bytes().decode(errors="replace")
                mounts = Path("/proc", entry, "mountinfo").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            if str(plan.folder) in words:
                found.append(f"process {entry}: {words}")
            if str(plan.folder) in mounts:
                found.append(f"mount in process {entry}")
    if plan.has_node:
        if plan.host_link in run("ip", "-o", "link"):
            found.append(f"link {plan.host_link}")
        found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"*{plan.cgroup}")]
    found += [str(plan.etcd_folder)] if plan.etcd_folder.exists() else []
    found += [str(path) for path in plan.folder.iterdir() if path != plan.logs]
    return found


def _kernel_settings() -> dict[str, str]:
    return {name: Path("/proc/sys", name).read_text(encoding="ascii") for name in MACHINE_SYSCTLS}


def _eventually(what: str, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {_DEADLINE_S} s"
        time.sleep(0.05)


def _assert_gone(plan: Plan) -> None:
    """Nothing of it is left. Corpses of processes count as gone, and this machine's init may take a moment for them."""
    deadline = time.monotonic() + _DEADLINE_S
    while (left := _traces(plan)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []


def _supervisor(folder: Path) -> int:
    pid: int = json.loads((folder / "supervisor.json").read_text(encoding="utf-8"))["pid"]
    return pid


def _pid_of(plan: Plan, program: str) -> int:
    """The host's number of a component's process."""
    own = str(plan.binaries / program)
    for entry in os.listdir("/proc"):
        try:
            words = Path("/proc", entry, "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if words[0] == own and any(str(plan.folder) in word or str(plan.etcd_port) in word for word in words):
            return int(entry)
    raise AssertionError(f"no process of {program}")


@pytest.mark.parametrize("tier", TIERS)
def test_down_leaves_nothing_of_a_cluster_but_its_logs(folder: Path, tier: Tier) -> None:
    before = _kernel_settings()
    plan = up(folder, Wanted(tier, fake_nodes=1, dns=True, tied=True))
    assert _traces(plan), "nothing is found of a cluster that is up: this test would find nothing afterwards either"
    assert _kernel_settings() == before
    down(folder)
    _assert_gone(plan)
    assert list(plan.logs.glob("*.log"))
    assert _kernel_settings() == before


@pytest.mark.parametrize("tier", TIERS)
def test_down_clears_up_after_a_cluster_that_was_killed(folder: Path, tier: Tier) -> None:
    plan = up(folder, Wanted(tier, fake_nodes=1, tied=True))
    for component in ("kube-apiserver", "kube-controller-manager"):
        os.kill(_pid_of(plan, component), signal.SIGKILL)
    os.kill(_supervisor(folder), signal.SIGKILL)
    down(folder)
    _assert_gone(plan)


def test_a_killed_api_server_comes_back_with_its_resources(folder: Path) -> None:
    plan = up(folder, Wanted("control-plane", fake_nodes=1, tied=True))
    api = Api(plan)
    api.request("/api/v1/namespaces", {"metadata": {"name": "kept"}})
    killed = _pid_of(plan, "kube-apiserver")
    os.kill(killed, signal.SIGKILL)
    _eventually("another API server", lambda: _pid_of_or_none(plan, "kube-apiserver") not in (None, killed))
    api.wait("the API server's return", "/readyz", lambda answer: answer == b"ok")
    assert b"kept" in api.request("/api/v1/namespaces/kept")


def _pid_of_or_none(plan: Plan, program: str) -> int | None:
    try:
        return _pid_of(plan, program)
    except AssertionError:
        return None


def test_up_ends_what_was_up_in_the_same_folder(folder: Path) -> None:
    first = up(folder, Wanted("control-plane", tied=True))
    supervisor = _supervisor(folder)
    second = up(folder, Wanted("control-plane", tied=True))
    assert _supervisor(folder) != supervisor
    assert look_up(supervisor) is None
    assert not first.etcd_folder.exists() or first.etcd_folder == second.etcd_folder


@pytest.mark.node
def test_two_nodes_fit_on_one_machine(folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="e2e-", dir="/tmp") as name:
        try:
            plans = [up(each, Wanted("node", tied=True)) for each in (folder, Path(name))]
            assert len({plan.server for plan in plans}) == 2
            for plan in plans:
                assert Api(plan).request("/readyz") == b"ok"
        finally:
            down(Path(name))


def test_a_folder_too_long_for_sockets_is_refused_by_name(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 90)
    with pytest.raises(ClusterError, match="too long for the sockets"):
        up(long, Wanted())
