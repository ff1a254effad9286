"""kill -9 of a writer at every step of taking a path, of making room there, and of leaving it."""

from __future__ import annotations

import contextlib
import functools
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from unittest import mock

from tests.segment_crash.fault_points import Cost, FaultPoints, Point, points_of
from tests.segment_crash.forked import fork
from tests.segment_crash.readers import Finding, flaws
from tests.segment_crash.scene import AT_REST, NAMES, Report, Scene, rest
from tests.segment_crash.truth import OTHER, SMALL, Told, Writing

from chandlery.workers.segment import SegmentError, SegmentWriter, placement
from chandlery.workers.segment import writer as writer_module

#: What a writer killed half-way may leave beside that, until the next one comes.
IN_BETWEEN = AT_REST | NAMES | {"segment.new"}


def run(fault_points: FaultPoints, folder: Path, what: str) -> Report:
    """``what``: ``create``, ``make room`` or ``close``."""
    scene = Scene(folder)
    cost = _measure(fault_points, folder.parent, what)
    for point in points_of(cost, "store", "call"):
        if what == "close":
            _die_closing(fault_points, scene, point)
        else:
            _die_creating(fault_points, scene, point, what)
    return scene.end(SMALL)


def _measure(fault_points: FaultPoints, folder: Path, what: str) -> Cost:
    path = str(folder / "measured")
    SMALL.create(path).close(unlink=False)
    made: list[SegmentWriter] = []

    def create() -> None:
        made.append(OTHER.create(path))

    with _no_room_at_first() if what == "make room" else contextlib.nullcontext():
        cost = fault_points.measure(create)
    made.pop().close()
    return fault_points.measure(SMALL.create(path).close) if what == "close" else cost


def _no_room_at_first() -> contextlib.AbstractContextManager[object]:
    """What a file system says that can't hold two segments, until the first one is gone."""
    asked: list[str] = []

    def full_at_first(path: str, size_bytes: int, mode: int) -> int:
        asked.append(path)
        if len(asked) == 1:
            raise placement.NoRoom
        return placement.reserve(path, size_bytes, mode)

    return mock.patch.object(writer_module, "reserve", full_at_first)


def _die_creating(fault_points: FaultPoints, scene: Scene, point: Point, what: str) -> None:
    where = f"{what}, {point}"
    before = scene.writer(SMALL, rest)
    scene.judge.ask("hold")
    before.kill()

    def create(_line: Connection) -> None:
        with _no_room_at_first() if what == "make room" else contextlib.nullcontext():
            fault_points.die_in(functools.partial(OTHER.create, scene.path), point)

    _expect_death(scene, where, fork("a successor", create).ended_by)
    scene.died(what)
    told = Told.of(scene.session)
    scene.wrong(f"{where}, who was there", *flaws(told, SMALL, scene.judge.ask("held")))
    found = _look(scene, where, missing=what == "make room")
    if found:  # else it is the successor's, in which no series is yet
        scene.wrong(f"{where}, who came", *flaws(told, SMALL, found))


def _die_closing(fault_points: FaultPoints, scene: Scene, point: Point) -> None:
    def close(_line: Connection, writing: Writing, _session: int) -> None:
        fault_points.die_in(writing.writer.close, point)

    where = f"close, {point}"
    victim = scene.writer(SMALL, close)
    scene.judge.ask("hold")
    victim.line.send("close")
    _expect_death(scene, where, victim.ended_by)
    scene.died("close")
    told = Told.of(scene.session)
    scene.wrong(f"{where}, who was there", *flaws(told, SMALL, scene.judge.ask("held")))
    found = _look(scene, where, missing=True)
    if found:
        scene.wrong(f"{where}, who came", *flaws(told, SMALL, found))


def _expect_death(scene: Scene, where: str, ended_by: Callable[[], int]) -> None:
    if ended_by() != signal.SIGKILL:
        scene.wrong(where, "it survived")
    scene.holds(where, IN_BETWEEN)


def _look(scene: Scene, where: str, *, missing: bool) -> dict[str, Finding]:
    """What one finds that comes now: a whole segment, or none at all."""
    found = scene.judge.ask("fresh")
    if isinstance(found, SegmentError):
        if not (missing and "No such file" in str(found)):
            scene.wrong(where, f"who came was told {found}")
        return {}
    answer: dict[str, Finding] = found
    return answer
