"""A worker's pod that ends: what is in its rings then, and how its containers ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.e2e.cluster.commands import ClusterError
from tests.e2e.desk import START_S, WORKER, Desk
from tests.e2e.kubectl import Resource, versions_in

from chandlery.core.signals import Signal, decode_record


@contextmanager
def signals_left_in_ring(desk: Desk, name: str) -> Iterator[list[Signal]]:
    """Signals of a Trader that are in its ring and nowhere else; the feed stands still meanwhile."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with desk.namespace.stopped(WORKER, "feed"):
            # Between two candles none comes, and without the feed no candle either.
            if found := _in_ring(desk, name):
                yield found
                return
    raise ClusterError(f"no signal of {name} was left in its ring within {START_S:.0f} s")


def _in_ring(desk: Desk, name: str) -> list[Signal]:
    """What is in a Trader's ring, as soon as there is anything; nothing if that takes longer than a decision."""
    program = """
import glob, sys, time
from chandlery.workers.segment import SignalRing

(path,) = glob.glob(f"/run/chandlery/rings/{sys.argv[1]}@*.ring")
deadline = time.monotonic() + 1.5
while not (found := SignalRing.attach(path).pending(64)) and time.monotonic() < deadline:
    time.sleep(0.05)
for item in found:
    print(item.payload.decode())
"""
    ring = f"{desk.namespace.name}__{name}"
    text = desk.namespace.execute(WORKER, "python", "-c", program, ring, container="traders")
    records = [decode_record(line) for line in text.splitlines()]
    return [record for record in records if isinstance(record, Signal)]


def ends_of(uid: str, watched: str) -> dict[str, Resource]:
    """How the containers of one pod ended, of all that a watch has printed of pods of its name."""
    found: dict[str, Resource] = {}
    for pod in versions_in(watched):
        if pod["metadata"]["uid"] == uid:
            status = pod["status"]
            every = (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ()))
            found |= {each["name"]: each["state"]["terminated"] for each in every if "terminated" in each["state"]}
    return found


def wait_for_another_worker(desk: Desk, than: str) -> None:
    """Wait until the worker's pod is Ready and isn't the one with this uid."""

    def is_another(found: Resource) -> bool:
        ready = [each for each in found["status"].get("conditions", ()) if each["type"] == "Ready"]
        return found["metadata"]["uid"] != than and bool(ready) and ready[0]["status"] == "True"

    desk.namespace.until("another worker pod", ("pod", WORKER), is_another, START_S)
