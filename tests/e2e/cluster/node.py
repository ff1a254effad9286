"""The node tier's own files, and the namespaces that its processes live in.

A node is a process tree with its own mount, network, PID, IPC and UTS namespaces. One link leads to this machine,
which reaches the API server, pods and services through it. What the kubelet changes for the whole machine elsewhere
(six sysctls) it changes here in files that lie over the real ones.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

from tests.e2e.cluster.commands import run
from tests.e2e.cluster.plan import Plan

SANDBOX_IMAGE: Final = "localhost/pause:1"

# The kubelet sets these, and they have no namespace: without a cover the whole machine would have them.
MACHINE_SYSCTLS: Final = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)

_CGROUPS: Final = Path("/sys/fs/cgroup")


def write_settings(plan: Plan) -> None:
    """Write the configuration files of containerd, CNI, kubelet, kube-proxy and CoreDNS."""
    (plan.settings / "cni").mkdir(parents=True)
    (plan.settings / "containerd.toml").write_text(_containerd(plan), encoding="utf-8")
    _write_json(plan.settings / "cni" / "10-e2e.conflist", _network(plan))
    _write_json(plan.settings / "kubelet.json", _kubelet(plan))
    _write_json(plan.settings / "kube-proxy.json", _proxy(plan))
    (plan.settings / "resolv.conf").write_text("", encoding="utf-8")
    (plan.settings / "Corefile").write_text(_corefile(plan), encoding="utf-8")


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _containerd(plan: Plan) -> str:
    plugin = "io.containerd.grpc.v1.cri"
    return f"""\
version = 2
root = "{plan.folder}/containerd"
state = "/run/containerd"
disabled_plugins = [{", ".join(f'"io.containerd.snapshotter.v1.{name}"' for name in ("aufs", "btrfs", "devmapper", "zfs"))}]
[grpc]
address = "{plan.containerd_socket}"
[plugins."{plugin}"]
sandbox_image = "{SANDBOX_IMAGE}"
disable_apparmor = true
restrict_oom_score_adj = true
[plugins."{plugin}".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{plan.settings}/cni"
[plugins."{plugin}".containerd]
snapshotter = "overlayfs"
[plugins."{plugin}".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."{plugin}".containerd.runtimes.runc.options]
SystemdCgroup = false
"""


def _network(plan: Plan) -> dict[str, Any]:
    """Point-to-point links instead of a bridge: every packet is routed, so that services need no br_netfilter."""
    addresses = {
        "type": "host-local",
        "subnet": plan.pod_range,
        "dataDir": "/run/cni-ipam",
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    plugins = [
        {"type": "ptp", "ipMasq": False, "mtu": 1500, "ipam": addresses},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    return {"cniVersion": "0.4.0", "name": "e2e", "plugins": plugins}


def _kubelet(plan: Plan) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "x509": {"clientCAFile": f"{plan.certificates}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": plan.cgroup,
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "containerRuntimeEndpoint": f"unix://{plan.containerd_socket}",
        "volumePluginDir": f"{plan.run}/flex-volumes",
        "clusterDomain": "cluster.local",
        "clusterDNS": [plan.address] if plan.dns else [],
        "resolvConf": f"{plan.settings}/resolv.conf",
        # A changed ConfigMap or Secret reaches its pods within seconds, not a minute.
        "syncFrequency": "5s",
        "nodeStatusUpdateFrequency": "5s",
        # A full disk of the machine that tests run on must not evict the tests' pods.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
    }


def _proxy(plan: Plan) -> dict[str, Any]:
    unchanged = {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"}
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": f"{plan.certificates}/proxy.kubeconfig"},
        "mode": plan.proxy_mode,
        "clusterCIDR": plan.pod_range,
        "conntrack": unchanged,
    }


def _corefile(plan: Plan) -> str:
    return f"""\
.:53 {{
 bind {plan.address}
 errors
 kubernetes cluster.local in-addr.arpa {{
  kubeconfig {plan.certificates}/admin.kubeconfig
  pods insecure
  ttl 5
 }}
 cache 5
}}
"""


def enter(plan: Plan) -> None:
    """Make the namespaces that this process is already in fit for a node: mounts, cgroup, network.

    Nothing of it outlives the namespaces but the cgroup, which :func:`remove_cgroup` removes.
    """
    run("mount", "--make-rshared", "/")  # pods' volumes are mounted here and seen in containers
    for folder in ("/var/lib", "/var/log", "/run"):
        run("mount", "-t", "tmpfs", "-o", "mode=755", "chandlery-e2e", folder)
    # Pods' logs stay readable from outside.
    for logs in (plan.folder / "pod-logs", Path("/var/log/pods")):
        logs.mkdir(exist_ok=True)
    run("mount", "--bind", plan.folder / "pod-logs", "/var/log/pods")
    Path("/run/lock").mkdir()
    _cover_sysctls(plan)
    _make_cgroup(plan)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1", encoding="ascii")
    for line in (
        "link set lo up",
        f"addr add {plan.address}/30 dev eth0",
        "link set eth0 up",
        f"route add default via {plan.host_address}",
    ):
        run("ip", *line.split())


def _cover_sysctls(plan: Plan) -> None:
    for name in MACHINE_SYSCTLS:
        real = Path("/proc/sys") / name
        cover = plan.run / name.replace("/", ".")
        cover.write_text(real.read_text(encoding="ascii"), encoding="ascii")
        run("mount", "--bind", cover, real)


def _make_cgroup(plan: Plan) -> None:
    for folder in _cgroup_folders(plan):
        folder.mkdir(exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems"):  # version 1: without them no process may enter
            parent = folder.parent / setting
            if parent.exists():
                (folder / setting).write_text(parent.read_text(encoding="ascii"), encoding="ascii")


def _cgroup_folders(plan: Plan) -> list[Path]:
    """The node's cgroup: one folder with version 2, one in each controller's tree with version 1."""
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS / plan.cgroup.strip("/")]
    trees = {path.resolve() for path in _CGROUPS.iterdir() if path.is_dir()}
    return [tree / plan.cgroup.strip("/") for tree in sorted(trees)]


def cgroups_left(plan: Plan) -> list[Path]:
    """Folders of the node's cgroup that exist."""
    return [folder for folder in _cgroup_folders(plan) if folder.exists()]


def remove_cgroups(plan: Plan) -> None:
    """Remove the node's cgroup with all below it, as far as no process is left in them."""
    for top in cgroups_left(plan):
        for folder, _, _ in os.walk(top, topdown=False):
            try:
                os.rmdir(folder)
            except OSError:  # still has a process that is about to end: the caller looks again
                break
