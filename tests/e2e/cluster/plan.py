"""What a cluster consists of: its addresses, ports and folders, as plain values kept in ``state.json``."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

Tier = Literal["control-plane", "node"]

NODE_NAME: Final = "e2e-node"
STATE_FILE: Final = "state.json"


@dataclass(frozen=True)
class Plan:
    """One cluster. Everything that its processes are told follows from this.

    Attributes:
        folder: configuration, certificates, logs and the node's containers. Short: Unix sockets lie in it.
        binaries: folder of the programs.
        tier: ``control-plane``: API server, controllers and scheduler on loopback, nodes simulated by kwok, no root
            needed; ``node``: the same and a real kubelet with containerd, in namespaces of their own.
        index: picks the addresses of a node tier, so that several fit on one machine; 0 for a control plane.
        api_port, etcd_port, etcd_peer_port, kwok_port: TCP ports; those but the API server's are on loopback.
        fake_nodes: number of nodes that kwok simulates.
        dns: whether CoreDNS answers for services (node tier).
        proxy_mode: how kube-proxy makes services: ``nftables`` or ``iptables``.
    """

    folder: Path
    binaries: Path
    tier: Tier
    index: int
    api_port: int
    etcd_port: int
    etcd_peer_port: int
    kwok_port: int
    fake_nodes: int
    dns: bool
    proxy_mode: str

    @property
    def has_node(self) -> bool:
        """Whether a real kubelet runs."""
        return self.tier == "node"

    @property
    def address(self) -> str:
        """Where the API server listens: the node's address, or loopback."""
        return f"10.200.{self.index}.2" if self.has_node else "127.0.0.1"

    @property
    def host_address(self) -> str:
        """This machine, as the node sees it."""
        return f"10.200.{self.index}.1"

    @property
    def server(self) -> str:
        """The API server's URL."""
        return f"https://{self.address}:{self.api_port}"

    @property
    def service_range(self) -> str:
        """Addresses of services."""
        return f"10.{100 + self.index}.0.0/16"

    @property
    def api_service_address(self) -> str:
        """Address of the service ``kubernetes``: the first of the range."""
        return f"10.{100 + self.index}.0.1"

    @property
    def pod_range(self) -> str:
        """Addresses of pods."""
        return f"10.244.{self.index}.0/24"

    @property
    def host_link(self) -> str:
        """This machine's end of the link to the node. Its name is the claim on the index."""
        return link_name(self.index)

    @property
    def cgroup(self) -> str:
        """The cgroup below which all pods run."""
        return f"/{link_name(self.index)}"

    @property
    def etcd_folder(self) -> Path:
        """etcd's data, in memory: nothing of a test's cluster is worth a disk's fsync."""
        return Path("/dev/shm") / f"chandlery-e2e-{os.getuid()}-{self.etcd_port}"

    @property
    def certificates(self) -> Path:
        """Keys, certificates and kubeconfigs of the components."""
        return self.folder / "certificates"

    @property
    def settings(self) -> Path:
        """Configuration files of the components."""
        return self.folder / "settings"

    @property
    def logs(self) -> Path:
        """One log file a component."""
        return self.folder / "logs"

    @property
    def run(self) -> Path:
        """Sockets, and what else means nothing after the end."""
        return self.folder / "run"

    @property
    def containerd_socket(self) -> Path:
        """Where containerd is told to import images."""
        return self.run / "containerd.sock"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.folder / "kubeconfig"

    def save(self) -> None:
        """Write the plan where :func:`load_plan` finds it."""
        values = asdict(self) | {"folder": str(self.folder), "binaries": str(self.binaries)}
        (self.folder / STATE_FILE).write_text(json.dumps(values, indent=1), encoding="utf-8")


def link_name(index: int) -> str:
    """Name of the network link that claims the addresses of ``index``. At most 15 bytes."""
    return f"chandlery-e2e{index}"


def load_plan(folder: Path) -> Plan | None:
    """The plan of the cluster whose folder this is, or None when none was started or it was ended."""
    try:
        values = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return Plan(**values | {"folder": Path(values["folder"]), "binaries": Path(values["binaries"])})
