"""Writers of two layout versions kill and replace each other; readers of both sleep and follow their own."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from tests.segment_crash.fault_points import FaultPoints
from tests.segment_crash.forked import Child, fork
from tests.segment_crash.readers import Followed, follow
from tests.segment_crash.scene import Report
from tests.segment_crash.truth import OTHER, SMALL, Layout, Writing, tell_history

from chandlery.workers.segment import _native

THIS: Final = _native.LAYOUT_VERSION
NEXT: Final = THIS + 1
#: A version's writer comes when its readers sleep at the one's before the last: each of them has to be told.
TURNS: Final = 8


def run(_fault_points: FaultPoints, folder: Path) -> Report:
    """Another version's program is this one with that number: it refuses this one's files, and the other way round."""
    path = str(folder / "segment")
    report: Report = {"points": {}, "flaws": [], "follow_us": [], "woken_us": [], "looked_in_vain": 0, "left": []}
    followers = {version: fork(f"reader of {version}", _as(version, follow, path)) for version in (THIS, NEXT)}
    writer: Child | None = None
    for session in range(1, TURNS + 1):
        version, other = (THIS, NEXT) if session % 2 else (NEXT, THIS)
        if writer is not None:
            writer.kill()
            report["points"]["at rest"] = report["points"].get("at rest", 0) + 1
        write = functools.partial(_write, layout=SMALL if session % 4 < 2 else OTHER, session=session)
        writer = fork(f"writer {session}", _as(version, write, path))
        if (generation := writer.hear()) != session:
            report["flaws"].append(f"writer {session} made generation {generation}")
        followed: Followed = followers[version].hear()
        if followed.session != session or followed.flaw:
            report["flaws"].append(f"reader of {version} followed to {followed}")
        told = f"layout version {other}; this program reads {version}"
        if session > 2 and not any(told in trouble for trouble in followed.troubles):
            report["flaws"].append(f"reader of {version} said {followed.troubles}")
        followers[version].falls_asleep()
    assert writer is not None
    writer.ask("close")
    writer.ended_by()
    for follower in followers.values():
        follower.kill()
    report["left"] = sorted(os.listdir(folder))
    return report


def _as(version: int, work: Callable[..., None], path: str) -> functools.partial[None]:
    return functools.partial(_run_as, version=version, work=work, path=path)


def _run_as(line: Connection, version: int, work: Callable[..., None], path: str) -> None:
    # A module's constant; it is Final for all others.
    vars(_native)["LAYOUT_VERSION"] = version
    work(line, path)


def _write(line: Connection, path: str, layout: Layout, session: int) -> None:
    with layout.create(path) as writer:
        writing = Writing(writer)
        tell_history(writing, session)
        writing.ring(*range(layout.bells))
        line.send(writer.generation)
        line.recv()
    line.send("closed")
