"""A cluster's life: up, load, down. What was up is down without a trace, however it ended."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from images.archive import ImageSettings, write_image, write_layer
from tests.e2e.cluster import link, node
from tests.e2e.cluster.api import Api
from tests.e2e.cluster.binaries import build
from tests.e2e.cluster.certificates import make_certificates
from tests.e2e.cluster.commands import ClusterError, run
from tests.e2e.cluster.plan import NODE_NAME, STATE_FILE, Plan, Tier, load_plan
from tests.e2e.cluster.processes import Process, end_group, look_up
from tests.e2e.cluster.supervision import NETWORK_READY, die_with_parent

Progress = Callable[[str], None]

ROOT: Final = Path(__file__).resolve().parents[3]
# Debian's packages of a node; .ci/run installs them.
NODE_PROGRAMS: Final = ("containerd", "ctr", "runc", "ip", "iptables", "nft", "conntrack", "mount", "unshare")
_PROCESS_FILE: Final = "supervisor.json"
_API_PORT: Final = 6443
# What a cluster keeps in its folder, but logs.
_OWN_FOLDERS: Final = ("certificates", "settings", "run", "containerd", "pod-logs")
# Unix sockets have names of at most 107 bytes; the longest below the folder is run/containerd.sock.ttrpc.
_LONGEST_FOLDER: Final = 80
# The kernel tears a namespace down in the background, within a second where nothing else is to do.
_RELEASE_DEADLINE_S: Final = 30.0
_IMPORT_DEADLINE_S: Final = 120.0
_POLL_S: Final = 0.02


@dataclass(frozen=True)
class Wanted:
    """What a cluster shall have.

    Attributes:
        tier: see :class:`~tests.e2e.cluster.plan.Plan`.
        fake_nodes: simulated nodes, each with 32 CPUs, 256 GiB and room for 500 pods.
        dns: CoreDNS; of use in a node tier only.
        proxy_mode: ``nftables`` or ``iptables``.
        tied: end with the process that called :func:`up`.
    """

    tier: Tier = "control-plane"
    fake_nodes: int = 0
    dns: bool = False
    proxy_mode: str = "nftables"
    tied: bool = False


def up(folder: Path, wanted: Wanted, progress: Progress = print) -> Plan:
    """Start a cluster and return when its nodes are Ready. What was up in that folder ends first.

    Raises:
        ClusterError: it doesn't come up; nothing is left of it but its logs.
    """
    _check(folder, wanted)
    binaries = build(progress)
    down(folder)
    begin = time.monotonic()
    plan = _plan(folder, wanted, binaries)
    try:
        _start(plan, tied=wanted.tied)
        if plan.has_node:
            _load_sandbox_image(plan)
        _wait_until_ready(plan)
    except BaseException:
        down(folder)
        raise
    shutil.copyfile(plan.certificates / "admin.kubeconfig", plan.kubeconfig)
    plan.kubeconfig.chmod(0o600)
    progress(f"{wanted.tier} tier ready in {time.monotonic() - begin:.1f} s")
    return plan


def _check(folder: Path, wanted: Wanted) -> None:
    if len(str(folder)) > _LONGEST_FOLDER:
        raise ClusterError(f"{folder}: longer than {_LONGEST_FOLDER} characters, too long for the sockets in it")
    if wanted.tier != "node":
        return
    if folder.is_relative_to("/var/lib") or folder.is_relative_to("/var/log") or folder.is_relative_to("/run"):
        raise ClusterError(f"{folder}: the node covers /var/lib, /var/log and /run; take a folder elsewhere")
    if os.geteuid() != 0:
        raise ClusterError("a node tier needs root: it makes namespaces, mounts and a network link")
    if missing := [name for name in NODE_PROGRAMS if shutil.which(name) is None]:
        raise ClusterError(
            f"a node tier needs {', '.join(missing)}. On Debian: apt-get install --no-install-recommends"
            " containerd runc containernetworking-plugins iptables nftables conntrack iproute2 mount util-linux"
        )


def _plan(folder: Path, wanted: Wanted, binaries: Path) -> Plan:
    folder.mkdir(parents=True, exist_ok=True)
    is_node = wanted.tier == "node"
    index = link.claim_index() if is_node else 0
    api, etcd, etcd_peer, kwok = _free_ports(4)
    plan = Plan(
        folder=folder,
        binaries=binaries,
        tier=wanted.tier,
        index=index,
        api_port=_API_PORT if is_node else api,
        etcd_port=etcd,
        etcd_peer_port=etcd_peer,
        kwok_port=kwok,
        fake_nodes=wanted.fake_nodes,
        dns=wanted.dns and is_node,
        proxy_mode=wanted.proxy_mode,
    )
    plan.save()
    return plan


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _start(plan: Plan, *, tied: bool) -> None:
    for folder in (plan.logs, plan.run, plan.etcd_folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    make_certificates(
        plan.certificates,
        server_names=(
            *dict.fromkeys((plan.address, "127.0.0.1", plan.api_service_address)),
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ),
        node=NODE_NAME,
        server=plan.server,
    )
    plan.settings.mkdir()
    command = [sys.executable, "-m", "tests.e2e.cluster", "--folder", str(plan.folder), "supervise"]
    if plan.has_node:
        node.write_settings(plan)
        namespaces = ("--mount", "--net", "--pid", "--ipc", "--uts")
        isolated = ["unshare", *namespaces, "--fork", "--kill-child", "--mount-proc", "--propagation", "private"]
        command = [*isolated, *command]
    with (plan.logs / "supervisor.log").open("ab") as log:
        started = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=die_with_parent if tied else None,
        )
    supervisor = look_up(started.pid)
    if supervisor is None:
        raise ClusterError(f"the supervisor ended at once; see {plan.logs}/supervisor.log")
    (plan.folder / _PROCESS_FILE).write_text(json.dumps(asdict(supervisor)), encoding="utf-8")
    if plan.has_node:
        _poll("the node's network namespace", lambda: _has_own_network(started.pid))
        link.connect(plan, started.pid)
        (plan.run / NETWORK_READY).touch()


def _has_own_network(pid: int) -> bool:
    return os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")


def _poll(what: str, holds: Callable[[], bool], deadline_s: float = _RELEASE_DEADLINE_S) -> None:
    deadline = time.monotonic() + deadline_s
    while not holds():
        if time.monotonic() > deadline:
            raise ClusterError(f"{what}: not within {deadline_s:.0f} s")
        time.sleep(_POLL_S)


def _load_sandbox_image(plan: Plan) -> None:
    layer = write_layer(plan.run / "pause.layer", {plan.binaries / "pause": "pause"})
    archive = plan.run / "pause.tar"
    write_image(archive, node.SANDBOX_IMAGE, [layer], ImageSettings(entrypoint=("/pause",), user="65535:65535"))
    load(plan, [archive])


def load(plan: Plan, archives: Iterable[Path]) -> None:
    """Import image archives (``python -m images`` makes them) into the node; the same again costs little."""
    if not plan.has_node:
        raise ClusterError("a control-plane tier runs no containers: it can't load images")
    client = ("ctr", "--address", str(plan.containerd_socket))
    _poll("containerd's answer", lambda: _succeeds(*client, "version"), _IMPORT_DEADLINE_S)
    for archive in archives:
        run(*client, "--namespace", "k8s.io", "images", "import", archive, timeout_s=_IMPORT_DEADLINE_S)


def tag(plan: Plan, name: str, other: str) -> None:
    """Give an image that the node has another name too."""
    client = ("ctr", "--address", str(plan.containerd_socket), "--namespace", "k8s.io")
    run(*client, "images", "tag", "--force", name, other)


def signal_container(plan: Plan, container_id: str, name: str) -> None:
    """Send a signal, ``SIGKILL`` say, to the first process of a container: as from outside, so that it can't refuse."""
    client = ("ctr", "--address", str(plan.containerd_socket), "--namespace", "k8s.io")
    run(*client, "tasks", "kill", "--signal", name, container_id)


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0


def _wait_until_ready(plan: Plan) -> None:
    api = Api(plan)
    api.wait("API server ready", "/readyz", lambda answer: answer == b"ok")
    for number in range(plan.fake_nodes):
        api.request("/api/v1/nodes", _fake_node(number, beside_real_one=plan.has_node))
    api.wait("default service account", "/api/v1/namespaces/default/serviceaccounts/default")
    wanted = plan.fake_nodes + plan.has_node
    api.wait(f"{wanted} nodes Ready", "/api/v1/nodes", lambda answer: _ready_nodes(json.loads(answer)) == wanted)


def _fake_node(number: int, *, beside_real_one: bool) -> dict[str, Any]:
    name = f"fake-{number}"
    # Beside a real node only what asks for a simulated one shall come to one.
    taints = [{"key": "kwok", "effect": "NoSchedule"}] if beside_real_one else []
    return {
        "metadata": {
            "name": name,
            "annotations": {"kwok.x-k8s.io/node": "fake"},
            "labels": {"type": "kwok", "kubernetes.io/hostname": name},
        },
        "spec": {"taints": taints},
        "status": {"allocatable": {"cpu": "32", "memory": "256Gi", "pods": "500"}},
    }


def _ready_nodes(nodes: dict[str, Any]) -> int:
    return sum(
        any(
            condition["type"] == "Ready" and condition["status"] == "True"
            for condition in each["status"].get("conditions", [])
        )
        for each in nodes["items"]
    )


def down(folder: Path) -> None:
    """End the cluster of a folder, if there is one: no process, mount, link, cgroup or file of it stays but its logs.

    Raises:
        ClusterError: something can't be removed; calling again goes on from there.
    """
    plan = load_plan(folder)
    if plan is None:
        return
    if supervisor := _supervisor(folder):
        end_group(supervisor)
    if plan.has_node:
        # A namespace that lives no longer takes its end of the link along; one that never lived doesn't.
        link.remove(plan.index)
        _poll("removal of the node's cgroups", lambda: _cgroups_removed(plan))
    shutil.rmtree(plan.etcd_folder, ignore_errors=True)
    for name in _OWN_FOLDERS:
        if (folder / name).exists():
            shutil.rmtree(folder / name)
    for name in ("kubeconfig", _PROCESS_FILE, STATE_FILE):
        (folder / name).unlink(missing_ok=True)


def _supervisor(folder: Path) -> Process | None:
    try:
        return Process(**json.loads((folder / _PROCESS_FILE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def _cgroups_removed(plan: Plan) -> bool:
    node.remove_cgroups(plan)
    return not node.cgroups_left(plan)
