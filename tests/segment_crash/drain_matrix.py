"""kill -9 of the feed at every step of draining a ring: nothing lost, and what comes twice has one id."""

from __future__ import annotations

import functools
import os
import signal
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from tests.segment_crash.fault_points import FaultPoints, points_of
from tests.segment_crash.forked import fork
from tests.segment_crash.ring_matrix import RingReport

from chandlery.core.signals import Signal, encode, signal_id
from chandlery.workers.feed.admission import RecentIds
from chandlery.workers.feed.assignments import Fence
from chandlery.workers.feed.forming_signals import FormingSignals
from chandlery.workers.feed.ring_drain import RingDrain, Tally
from chandlery.workers.segment import SignalRing

KEY, TRADER = "desk/steady@1", "desk/steady"
FENCE: Final = Fence(1, "active", frozenset({"BTC/USDT"}), "1m")
PUSHED_EACH_TIME: Final = 3


def run(fault_points: FaultPoints, folder: Path, memory: str) -> RingReport:
    """``memory``: whether the next feed knows the ids that are on the topic (``recalled``) or not (``none``)."""
    path, topic = folder / "steady.ring", folder / "topic"
    report: RingReport = {"points": {}, "flaws": [], "repeated": 0, "left": []}
    trader = SignalRing.create(str(path), trader=TRADER, slots=8)
    pushed: list[str] = []

    def push() -> None:
        for _ in range(PUSHED_EACH_TIME):
            signal_now = _signal(len(pushed))
            if not trader.push(encode(signal_now)):
                report["flaws"].append(f"no room for signal {len(pushed)}")
            pushed.append(signal_now.id)

    def drain_once() -> Callable[[], object]:
        return functools.partial(_drain, path, topic, recalled=memory == "recalled")

    push()
    # One killed before its last step has published, and not acknowledged: each time what it left comes on top.
    for point in points_of(fault_points.measure(drain_once()), "call"):
        push()

        def live(_line: Connection, point: object = point) -> None:
            fault_points.die_in(drain_once(), point)  # type: ignore[arg-type]

        if fork("a feed", live).ended_by() != signal.SIGKILL:
            report["flaws"].append(f"{point}: it survived")
        report["points"]["drain"] = report["points"].get("drain", 0) + 1
        drain_once()()
        if trader.depth:
            report["flaws"].append(f"{point}: {trader.depth} signals are left in the ring")
    found = topic.read_text(encoding="ascii").split()
    if list(dict.fromkeys(found)) != pushed:
        report["flaws"].append(f"{len(pushed)} signals pushed, {len(set(found))} on the topic, or in another order")
    report["repeated"] = len(found) - len(set(found))
    return report


def _drain(path: Path, topic: Path, *, recalled: bool) -> None:
    """A feed that comes up, takes all there is, has each signal acknowledged, and gives its slots back."""
    recent = RecentIds()
    if recalled and topic.exists():
        for identity in topic.read_text(encoding="ascii").split():
            recent.recall(identity)
    drain = RingDrain(KEY, path, path.stat().st_ino, Tally(), Counter())
    broker = os.open(topic, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for entry in drain.take(FENCE, recent, FormingSignals()):
        assert isinstance(entry.record, Signal)
        os.write(broker, f"{entry.record.id}\n".encode("ascii"))
        entry.done = True
        drain.settle()
    os.close(broker)
    drain.close()


def _signal(number: int) -> Signal:
    identity = signal_id(
        trader=TRADER, uid="u", code="c", symbol="BTC/USDT", interval="1m", open_time_ms=number, rule="r", ordinal=0
    )
    return Signal(
        id=identity,
        trader=TRADER,
        strategy="x",
        code="c",
        rule="r",
        ordinal=0,
        action="buy",
        symbol="BTC/USDT",
        interval="1m",
        open_time_ms=number,
        session=0,
        price="100.5",
        strength=0.5,
        reason=str(number),
        incarnation=FENCE.incarnation,
    )
