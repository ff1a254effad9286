"""kill -9 of a reader before every load and every call of what a reader does, beside a writer that lives."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from tests.segment_crash.fault_points import FaultPoints, Point, points_of
from tests.segment_crash.forked import Child, fork
from tests.segment_crash.readers import FOLLOWERS_BELL, FOREVER_S, Trace, flaws, judge
from tests.segment_crash.scene import AT_REST, Report
from tests.segment_crash.truth import INTERVAL, LONG, SHORT, SMALL, Told, Truth, Writing, tell_history

from chandlery.workers.segment import SegmentReader, SeriesReader

SESSION: Final = 1


class Reading:
    """A reader with everything that its operations need."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.reader = SegmentReader.open(path)
        found = self.reader.series(LONG, INTERVAL)
        assert found is not None
        self.series: SeriesReader = found
        self.window = self.series.window(self.series.count, 6)
        self.seen = self.reader.bell(FOLLOWERS_BELL)


#: What a reader does, and before which of its steps it is killed.
OPERATIONS: Final[tuple[tuple[str, tuple[str, ...], Callable[[Reading], object]], ...]] = (
    ("open", ("load", "call"), lambda reading: SegmentReader.open(reading.path)),
    ("look-up", ("load", "call"), lambda reading: reading.reader.series(SHORT, INTERVAL)),
    ("look-up in vain", ("load",), lambda reading: reading.reader.series("NOBODY/USDT", INTERVAL)),
    ("window", ("load", "call"), lambda reading: reading.series.window(reading.series.count, 6)),
    ("preparing", ("load", "call"), lambda reading: reading.series.prepare(reading.series.count + 1, 6)),
    ("validation", ("load",), lambda reading: reading.series.valid(reading.window)),
    ("forming", ("load",), lambda reading: reading.series.forming()),
    ("stamps", ("load",), lambda reading: reading.series.stamps(reading.series.count - 1)),
    ("find_after", ("load",), lambda reading: reading.series.find_after(reading.series.last_open_time_ms - 1)),
    ("state", ("load",), lambda reading: (reading.series.alive, reading.reader.superseded)),
    ("wait, rung", ("load",), lambda reading: reading.reader.wait(FOLLOWERS_BELL, reading.seen + 1, FOREVER_S)),
    ("wait, before the sleep", ("load",), lambda reading: reading.reader.wait(FOLLOWERS_BELL, reading.seen, 1e-6)),
    ("info", ("load", "call"), lambda reading: reading.reader.info()),
    ("close", ("call",), lambda reading: reading.reader.close()),
)


class Beside:
    """The writer, what is true of its segment, and another reader."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = str(folder / "segment")
        # Forked before there is a writer: a child holds its lock as well.
        self.judge = fork("the judge", functools.partial(judge, path=self.path))
        self.writing = Writing(SMALL.create(self.path))
        self.truth = Truth()
        for acts in (self.writing, self.truth):
            tell_history(acts, SESSION)
        self.report: Report = {
            "points": {},
            "flaws": [],
            "follow_us": [],
            "woken_us": [],
            "looked_in_vain": 0,
            "left": [],
        }

    def told(self) -> Told:
        return Told(None, self.truth, self.truth)

    def goes_on(self, where: str, before: bytes) -> None:
        """Nothing has changed by a reader's death; then the writer publishes, and the other reader sees it."""
        if Path(self.path).read_bytes() != before:
            self.wrong(where, "the segment has changed")
        if others := set(os.listdir(self.folder)) - AT_REST:
            self.wrong(where, f"left {sorted(others)}")
        self.wrong(where, *flaws(self.told(), SMALL, self.judge.ask("held")))
        for acts in (self.writing, self.truth):
            acts.append(SHORT)
            acts.ring(FOLLOWERS_BELL)
        self.wrong(where, *flaws(self.told(), SMALL, self.judge.ask("fresh")))

    def wrong(self, where: str, *found: str) -> None:
        self.report["flaws"] += [f"{where}: {flaw}" for flaw in found]

    def died(self, what: str) -> None:
        self.report["points"][what] = self.report["points"].get(what, 0) + 1


def run(fault_points: FaultPoints, folder: Path) -> Report:
    """Every operation, then readers that are killed in their sleep."""
    beside = Beside(folder)
    reading = Reading(beside.path)
    for name, kinds, operate in OPERATIONS:
        if name == "close":
            reading = Reading(beside.path)
        # A bell's own value is read once more, outside the sleep, while this process tries it out.
        for point in points_of(fault_points.measure(functools.partial(operate, reading)), *kinds):
            _die_at(fault_points, beside, name, operate, point)
    for _ in range(3):
        _die_asleep(beside)
    if (trace := beside.judge.ask("trace")) != Trace([], ["r--s"]):
        beside.wrong("a reader at work", f"has the segment open or mapped as {trace}")
    beside.writing.writer.close()
    beside.judge.kill()
    beside.report["left"] = sorted(os.listdir(folder))
    return beside.report


def _die_at(
    fault_points: FaultPoints, beside: Beside, name: str, operate: Callable[[Reading], object], point: Point
) -> None:
    def read(_line: Connection) -> None:
        reading = Reading(beside.path)
        fault_points.die_in(functools.partial(operate, reading), point)

    where = f"{name}, {point}"
    beside.judge.ask("hold")
    before = Path(beside.path).read_bytes()
    if fork("a reader", read).ended_by() != signal.SIGKILL:
        beside.wrong(where, "it survived")
    beside.died(name)
    beside.goes_on(where, before)


def _die_asleep(beside: Beside) -> None:
    def sleep(line: Connection) -> None:
        reading = Reading(beside.path)
        line.send("about to sleep")
        reading.reader.wait(FOLLOWERS_BELL, reading.seen, FOREVER_S)
        line.send("woken")

    where = "wait, asleep"
    beside.judge.ask("hold")
    sleepers: list[Child] = [fork(f"sleeper {number}", sleep) for number in range(2)]
    for sleeper in sleepers:
        sleeper.hear()
        sleeper.falls_asleep()
    before = Path(beside.path).read_bytes()
    sleepers[0].kill()
    beside.died(where)
    beside.goes_on(where, before)
    sleepers[1].hear()  # it was at the same bell, and was woken
    sleepers[1].ended_by()
