"""A real Kubernetes for tests on one machine, made of Go modules and Debian packages alone.

    python3 -m tests.e2e.cluster up --tier control-plane|node [--fake-nodes N] [--dns]
    python3 -m tests.e2e.cluster load ARCHIVE…     import image archives into the node
    python3 -m tests.e2e.cluster down
    python3 -m tests.e2e.cluster build             only build the programs

``up`` prints what to export for kubectl and helm. Run it in the checkout's root; Python's standard library suffices.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.e2e.cluster.binaries import build
from tests.e2e.cluster.commands import ClusterError
from tests.e2e.cluster.lifecycle import Wanted, down, load, up
from tests.e2e.cluster.plan import Plan, load_plan
from tests.e2e.cluster.supervision import supervise

_FAKE_NODES = 3


def main() -> int:
    """Do what the command line says; 1 and one message if it fails."""
    arguments = _parser().parse_args()
    try:
        _do(arguments)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m tests.e2e.cluster", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("/tmp/chandlery-e2e"), help="one cluster a folder (default: %(default)s)"
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    starting = verbs.add_parser("up", help="start a cluster; one that runs in this folder ends first")
    starting.add_argument("--tier", choices=["control-plane", "node"], default="control-plane")
    starting.add_argument("--fake-nodes", type=int, help=f"simulated nodes (default: control-plane {_FAKE_NODES})")
    starting.add_argument("--dns", action="store_true", help="CoreDNS, in a node tier")
    starting.add_argument("--proxy-mode", choices=["nftables", "iptables"], default="nftables")
    verbs.add_parser("down", help="end it")
    loading = verbs.add_parser("load", help="import image archives into the node")
    loading.add_argument("archives", type=Path, nargs="+")
    verbs.add_parser("build", help="build the programs that aren't in the cache")
    verbs.add_parser("supervise", help="for internal use: run the components")
    return parser


def _do(arguments: argparse.Namespace) -> None:
    folder: Path = arguments.folder.resolve()
    match arguments.verb:
        case "up":
            fake_nodes = arguments.fake_nodes
            if fake_nodes is None:
                fake_nodes = _FAKE_NODES if arguments.tier == "control-plane" else 0
            wanted = Wanted(arguments.tier, fake_nodes, arguments.dns, arguments.proxy_mode)
            plan = up(folder, wanted, _say)
            print(f"export KUBECONFIG={plan.kubeconfig} PATH={plan.binaries}:$PATH")
        case "down":
            down(folder)
        case "load":
            load(_running(folder), arguments.archives)
        case "build":
            print(build(_say))
        case "supervise":
            supervise(_running(folder))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _running(folder: Path) -> Plan:
    if (plan := load_plan(folder)) is None:
        raise ClusterError(f"{folder}: no cluster was started here")
    return plan


if __name__ == "__main__":
    sys.exit(main())
