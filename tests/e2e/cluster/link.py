"""The network link between this machine and a node; its name claims the node's addresses."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.e2e.cluster.commands import ClusterError, run
from tests.e2e.cluster.plan import Plan, link_name

_INDEXES: Final = range(16)


def claim_index() -> int:
    """Make the link of the first free index and return the index: of several callers the kernel lets one win."""
    refusal: ClusterError | None = None
    for index in _INDEXES:
        try:
            run("ip", "link", "add", link_name(index), "type", "veth", "peer", "name", _peer_name(index))
        except ClusterError as error:
            refusal = error
        else:
            return index
    raise ClusterError(f"no network link can be made, or {len(_INDEXES)} clusters are running: {refusal}")


def connect(plan: Plan, pid: int) -> None:
    """Give the other end to the network namespace of a process, as ``eth0``, and route pods and services there."""
    for line in (
        f"link set {_peer_name(plan.index)} netns {pid} name eth0",
        f"addr add {plan.host_address}/30 dev {plan.host_link}",
        f"link set {plan.host_link} up",
        f"route add {plan.pod_range} via {plan.address}",
        f"route add {plan.service_range} via {plan.address}",
    ):
        run("ip", *line.split())


def is_there(index: int) -> bool:
    """Whether the link of an index exists."""
    return Path("/sys/class/net", link_name(index)).exists()


def remove(index: int) -> None:
    """Remove the link, wherever its other end is."""
    if is_there(index):
        try:
            run("ip", "link", "del", link_name(index))
        except ClusterError:
            if is_there(index):  # else it went with its namespace in this very moment
                raise


def _peer_name(index: int) -> str:
    return f"chandlery-e2p{index}"
