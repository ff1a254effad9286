"""kill -9 of a trader at every step of a push and of a position, and of whoever makes its ring."""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final, TypedDict

from tests.segment_crash.fault_points import FaultPoints, Point, points_of
from tests.segment_crash.forked import fork

from chandlery.workers.segment import Heritage, SignalRing, _native

TRADER, UID, SERIES = "desk/killed", "u-1", "BTC/USDT 1s"
SESSION: Final = 3
#: Few slots, so that pushes go round; the second signal of a candle ends within a word.
SLOTS: Final = 5
OF_A_CANDLE: Final = (b"first", b"the second of its candle, and no multiple of eight bytes")


class RingReport(TypedDict):
    """What a matrix found; ``repeated``: signals that came twice, each time with one id."""

    points: dict[str, int]
    flaws: list[str]
    repeated: int
    left: list[str]


class Rings:
    """A folder of rings and the report."""

    def __init__(self, fault_points: FaultPoints, folder: Path) -> None:
        self.fault_points = fault_points
        self.folder = folder
        self.report: RingReport = {"points": {}, "flaws": [], "repeated": 0, "left": []}

    def wrong(self, where: str, what: str) -> None:
        self.report["flaws"].append(f"{where}: {what}")

    def kill(self, what: str, point: Point, work: Callable[[], Callable[[], object]]) -> None:
        """A process prepares by ``work``, and dies in what that returns."""

        def live(_line: Connection) -> None:
            self.fault_points.die_in(work(), point)

        if fork("a trader", live).ended_by() != signal.SIGKILL:
            self.wrong(f"{what}, {point}", "it survived")
        self.report["points"][what] = self.report["points"].get(what, 0) + 1

    def path(self, name: str) -> str:
        return str(self.folder / f"{name}.ring")


def run(fault_points: FaultPoints, folder: Path) -> RingReport:
    """All of them."""
    rings = Rings(fault_points, folder)
    _decide(rings)
    _first_position(rings)
    _give_way(rings)
    _keep_positions(rings)
    _make(rings)
    rings.report["left"] = sorted(name for name in os.listdir(folder) if not name.endswith(".ring"))
    return rings.report


def open_ring(path: str) -> SignalRing:
    """As a trader's next process finds it."""
    ring = SignalRing.create(path, trader=TRADER, uid=UID, slots=SLOTS)
    assert not ring.replaced_because, ring.replaced_because
    return ring


def _decide(rings: Rings) -> None:
    """One ring through all kills: each process goes on where the positions say, as a trader does."""
    path = rings.path("decide")

    def next_candle() -> Callable[[], object]:
        ring = open_ring(path)
        position = ring.position(SERIES)
        candle = 0 if position is None else position[1] + 1
        return functools.partial(_decide_on, ring, candle)

    SignalRing.create(path, trader=TRADER, uid=UID, slots=SLOTS).close()
    feed = SignalRing.attach(path)
    taken: list[bytes] = []
    for _ in range(2):  # the position's first store is another's matter
        next_candle()()
        _drain(rings, feed, taken, "before")
    cost = rings.fault_points.measure(next_candle())
    _drain(rings, feed, taken, "before")
    for point in points_of(cost, "store", "call"):
        rings.kill("push and position", point, next_candle)
        _drain(rings, feed, taken, f"push and position, {point}")
    next_candle()()
    _drain(rings, feed, taken, "after")
    last = feed.info()["positions"][SERIES][1]
    expected = [signal_of(candle, which) for candle in range(last + 1) for which in range(len(OF_A_CANDLE))]
    if list(dict.fromkeys(taken)) != expected:
        rings.wrong("push and position", "lost, or in another order")
    rings.report["repeated"] = len(taken) - len(expected)


def signal_of(candle: int, which: int) -> bytes:
    """A signal that tells its candle: the same one when it is decided on again."""
    return b"%d %s" % (candle, OF_A_CANDLE[which])


def _decide_on(ring: SignalRing, candle: int) -> None:
    for which in range(len(OF_A_CANDLE)):
        assert ring.push(signal_of(candle, which))
        ring.add("signals")
    ring.set("last_open_time_ms", candle)
    ring.set_position(SERIES, SESSION, candle)


def _drain(rings: Rings, feed: SignalRing, taken: list[bytes], where: str) -> None:
    """The feed's side: what there is is whole, and a position covers no more than what was pushed."""
    items = feed.pending()
    for item in items:
        if item.payload is None:
            rings.wrong(where, item.error)
        else:
            taken.append(item.payload)
    if items:
        feed.acknowledge(items[-1].position + 1)
    position = feed.info()["positions"].get(SERIES)
    if position is not None:
        session, candle = position
        missing = [which for which in range(len(OF_A_CANDLE)) if signal_of(candle, which) not in taken]
        if session != SESSION or missing:
            rings.wrong(where, f"position {position} covers signals that nobody has: {missing}")


def _first_position(rings: Rings) -> None:
    path, made = rings.path("first"), rings.path("made")
    SignalRing.create(made, trader=TRADER, uid=UID, slots=SLOTS).close()

    def store() -> Callable[[], object]:
        return functools.partial(open_ring(path).set_position, SERIES, SESSION, 8)

    shutil.copyfile(made, path)
    for point in points_of(rings.fault_points.measure(store()), "store"):
        shutil.copyfile(made, path)
        rings.kill("first position", point, store)
        with SignalRing.attach(path) as ring:
            if ring.info()["positions"] not in ({}, {SERIES: (SESSION, 8)}):
                rings.wrong(f"first position, {point}", str(ring.info()["positions"]))
        store()()
        with SignalRing.attach(path) as ring:
            if ring.position(SERIES) != (SESSION, 8):
                rings.wrong(f"first position, {point}", f"the next process stored {ring.position(SERIES)}")


def _give_way(rings: Rings) -> None:
    """All entries are an earlier life's: the oldest one gives way, whole or not at all."""
    path, made = rings.path("way"), rings.path("full")
    earlier = {f"OLD{number} 1s": (1, number) for number in range(_native.POSITION_COUNT)}
    with SignalRing.create(made, trader=TRADER, uid=UID, slots=SLOTS) as ring:
        for series, position in earlier.items():
            ring.set_position(series, *position)
    lasting = dict(itertools.islice(earlier.items(), 1, None))

    def store() -> Callable[[], object]:
        return functools.partial(open_ring(path).set_position, SERIES, SESSION, 8)

    shutil.copyfile(made, path)
    for point in points_of(rings.fault_points.measure(store()), "store"):
        shutil.copyfile(made, path)
        rings.kill("position, another gives way", point, store)
        with SignalRing.attach(path) as ring:
            found = ring.info()["positions"]
        if found not in (earlier, lasting, {**lasting, SERIES: (SESSION, 8)}):
            rings.wrong(f"position, another gives way, {point}", str(set(found.items()) ^ set(lasting.items())))


def _keep_positions(rings: Rings) -> None:
    path, made = rings.path("keep"), rings.path("several")
    several = {f"S{number} 1s": (1, number) for number in range(4)}
    with SignalRing.create(made, trader=TRADER, uid=UID, slots=SLOTS) as ring:
        for series, position in several.items():
            ring.set_position(series, *position)
    wanted = {"S2 1s": (1, 2)}

    def keep() -> Callable[[], object]:
        return functools.partial(open_ring(path).keep_positions, set(wanted))

    shutil.copyfile(made, path)
    for point in points_of(rings.fault_points.measure(keep()), "store"):
        shutil.copyfile(made, path)
        rings.kill("positions forgotten", point, keep)
        with SignalRing.attach(path) as ring:
            found = ring.info()["positions"]
        if not wanted.items() <= found.items() <= several.items():
            rings.wrong(f"positions forgotten, {point}", str(found))
        keep()()
        with SignalRing.attach(path) as ring:
            if ring.info()["positions"] != wanted:
                rings.wrong(f"positions forgotten, {point}", "the next process did not forget the rest")


def _make(rings: Rings) -> None:
    """The supervisor's part: a new ring with what earlier ones tell, one of an older layout, an unsound one."""
    heritage = Heritage({SERIES: (SESSION, 8), "ETH/USDT 1s": (SESSION, 9)}, {"calls": 7, "signals": 5})
    made, path = rings.path("sound"), rings.path("make")
    with SignalRing.create(made, trader=TRADER, uid=UID, slots=SLOTS) as ring:
        ring.push(b"waits")
        ring.set_position(SERIES, SESSION, 8)
    sound = Path(made).read_bytes()
    older = bytearray(sound)
    older[_native.RING_UID : _native.RING_UID + _native.RING_UID_BYTES] = bytes(_native.RING_UID_BYTES)
    older[_native.RING_VERSION_AT] = 1
    cases = {"new ring": b"", "ring of an older layout": bytes(older), "unsound ring": b"\0" * len(sound)}
    for name, content in cases.items():

        def put(content: bytes = content) -> None:
            Path(path).unlink(missing_ok=True)
            if content:
                Path(path).write_bytes(content)

        def create() -> SignalRing:
            return SignalRing.create(path, trader=TRADER, uid=UID, slots=SLOTS, heritage=heritage)

        put()
        cost = rings.fault_points.measure(create)
        for point in points_of(cost, "call"):
            put()
            rings.kill(name, point, lambda: create)
            with create() as ring:
                info, waiting = ring.info(), [item.payload for item in ring.pending()]
            found = info["positions"], info["counters"]["calls"], waiting
            kept = name == "ring of an older layout"
            wanted = ({}, 0, [b"waits"]) if kept else (heritage.positions, heritage.counters["calls"], [])
            if found != wanted:
                rings.wrong(f"{name}, {point}", f"the next supervisor finds {found}")
