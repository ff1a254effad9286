"""kill -9 of the writer after every store of every publish, and a successor of the same or another layout."""

from __future__ import annotations

import functools
import signal
from multiprocessing.connection import Connection
from pathlib import Path

from tests.segment_crash.fault_points import FaultPoints, Point, points_of
from tests.segment_crash.readers import flaws
from tests.segment_crash.scene import AT_REST, Report, Scene
from tests.segment_crash.truth import OPERATIONS, OTHER, SMALL, Layout, Operation, Told, Writing, tell_history


def run(fault_points: FaultPoints, folder: Path, way: str) -> Report:
    """``way``: ``same`` or ``changed``, of the successor's layout."""
    scene = Scene(folder)
    layouts = (SMALL, SMALL) if way == "same" else (SMALL, OTHER)
    for operation in OPERATIONS:
        for point in points_of_operation(fault_points, folder.parent, layouts[0], operation):
            _die_at(fault_points, scene, layouts[scene.session % 2], operation, point)
    return scene.end(SMALL)


def points_of_operation(fault_points: FaultPoints, folder: Path, layout: Layout, operation: Operation) -> list[Point]:
    """After each of its stores; found by doing it to its end."""
    with layout.create(str(folder / "measured")) as writer:
        writing = Writing(writer)
        tell_history(writing, 1)
        return points_of(fault_points.measure(functools.partial(operation.act, writing, 1)), "store")


def _die_at(fault_points: FaultPoints, scene: Scene, layout: Layout, operation: Operation, point: Point) -> None:
    def publish(line: Connection, writing: Writing, session: int) -> None:
        fault_points.die_in(lambda: operation.act(writing, session), point)
        line.send("survived")

    where = f"{operation.name}, {point}"
    victim = scene.writer(layout, publish)
    told = Told.of(scene.session, operation)
    scene.judge.ask("hold")
    victim.line.send("go on")
    if victim.ended_by() != signal.SIGKILL:
        scene.wrong(where, "it survived")
    scene.died(operation.name)
    scene.wrong(f"{where}, who was there", *flaws(told, layout, scene.judge.ask("held")))
    scene.wrong(f"{where}, who came", *flaws(told, layout, scene.judge.ask("fresh")))
    scene.holds(where, AT_REST)
