"""Traders of several kinds on one desk, and that all of them go on as they did, whatever was killed."""

from __future__ import annotations

from typing import Final

from tests.e2e.desk import START_S, WORKER, Desk, reason_of
from tests.e2e.homemade import from_config_map, strategies
from tests.e2e.kubectl import Resource

#: Of the image, of a ConfigMap, waiting for a person's approval with an edit, and suspended: each as its condition says.
_REASONS: Final = {"steady": "Running", "own-code": "Running", "edited": "AwaitingApproval", "resting": "Suspended"}
_DECIDING: Final = ("steady", "own-code", "edited")

# Kills the one process that maps a ring: its trader. Feed and supervisor read rings without mapping them.
_KILLER: Final = """
import glob, os, signal, sys

def maps(process):
    try:
        return open(process + "/maps").read()
    except OSError:
        return ""

(found,) = (one for one in glob.glob("/proc/[0-9]*") if sys.argv[1] in maps(one))
os.kill(int(found.removeprefix("/proc/")), signal.SIGKILL)
"""


def apply_several(desk: Desk) -> None:
    """Have them beside the desk's ``steady``, each as it is to stay."""
    own_code = from_config_map("every-nth", "modest.py")
    resting, edited = desk.trader("resting", suspend=True), desk.trader("edited", rollout="Manual")
    desk.namespace.apply([strategies(), desk.trader("own-code", strategy=own_code), resting, edited])
    for name in _DECIDING:
        desk.wait_ready(name)
    edited["spec"]["strategy"] = {"name": "sma-cross", "parameters": {"fast": 4, "slow": 9}}
    desk.namespace.apply(edited)
    _wait_as_they_were(desk)


def assert_all_go_on(desk: Desk) -> None:
    """Wait until each is what it was, and those that decide have signalled anew."""
    known = {name: desk.all_signals(name)[0] for name in _DECIDING}
    for name in _DECIDING:
        desk.more_signals(name, known[name])
    _wait_as_they_were(desk)


def _wait_as_they_were(desk: Desk) -> None:
    def are_so(traders: Resource) -> bool:
        found = {each["metadata"]["name"]: each for each in traders["items"]}
        reasons = {name: reason_of(found[name]) for name in _REASONS}
        return reasons == _REASONS and found["edited"]["status"].get("runningGeneration") == 1

    desk.namespace.until("all Traders as they were", ("traders",), are_so, START_S)


def kill_process_of(desk: Desk, name: str) -> None:
    """SIGKILL to a Trader's own process, as the kernel sends it to one that it chose."""
    ring = f"/{desk.namespace.name}__{name}@"
    desk.namespace.execute(WORKER, "python", "-c", _KILLER, ring, container="traders")
