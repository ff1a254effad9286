"""What the matrices about writers share: one path, writers that come one after the other, and who watches them."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Collection
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final, TypedDict
from unittest import mock

from tests.segment_crash.forked import Child, fork
from tests.segment_crash.readers import Followed, follow, judge
from tests.segment_crash.truth import Layout, Writing, tell_history

from chandlery.workers.segment import SegmentReader, placement
from chandlery.workers.segment import writer as writer_module

#: What a folder holds while a writer lives, or is dead.
AT_REST: Final = {"segment", "segment.lock"}

#: The names under which a next writer finds what was before it. A generation is told by nothing else.
NAMES: Final = {"segment", "segment.old"}


class Report(TypedDict):
    """What a matrix found.

    Attributes:
        points: how often a process was killed, by what it did. flaws: what must not be.
        follow_us: from a successor's publishing to the first good window of a reader that was asleep. woken_us: the part of
            it behind the successor's bell, which is the reader's own; in the part before it the successor writes.
        looked_in_vain: deaths after which a follower found no segment, and went by a timer. left: files at the end.
    """

    points: dict[str, int]
    flaws: list[str]
    follow_us: list[float]
    woken_us: list[float]
    looked_in_vain: int
    left: list[str]


class Scene:
    """One path. Readers: one that judges, one that sleeps and follows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = str(folder / "segment")
        self.aside = str(folder / "segment.old")
        self.session = 0
        self.generation = 0
        self.report: Report = {
            "points": {}, "flaws": [], "follow_us": [], "woken_us": [], "looked_in_vain": 0, "left": []
        }  # fmt: skip
        self.judge = fork("the judge", functools.partial(judge, path=self.path))
        self.follower = fork("the follower", functools.partial(follow, path=self.path))

    def wrong(self, where: str, *flaws: str) -> None:
        """Note flaws."""
        self.report["flaws"] += [f"{where}: {flaw}" for flaw in flaws]

    def died(self, what: str) -> None:
        """Count a kill."""
        self.report["points"][what] = self.report["points"].get(what, 0) + 1

    def writer(self, layout: Layout, then: Callable[[Connection, Writing, int], None]) -> Child:
        """A new writer takes the path, writes its history and waits; the follower has followed, and sleeps again.

        Args:
            then: what it does when it hears something.
        """
        self.session += 1
        leads, begins_anew = self._path_leads_on(), not NAMES & set(os.listdir(self.folder))
        if leads:
            self.follower.falls_asleep()  # whom the last writer has rung may still be at work
        child = fork(f"writer {self.session}", functools.partial(_write, self, layout, then, leads))
        generation, published_ns, rung_ns = child.hear()
        if not (generation == 1 if begins_anew else generation > self.generation):
            self.wrong(child.name, f"generation {generation} after {self.generation}")
        self.generation = generation
        followed: Followed = self.follower.hear()
        if followed.session != self.session:
            self.wrong(child.name, f"the follower came to session {followed.session}")
        if followed.flaw:
            self.wrong(child.name, f"the follower found {followed.flaw}")
        if self.session > 1:  # before the first there is no segment, and nothing rings
            self.report["follow_us"].append((followed.at_ns - published_ns) / 1_000)
            self.report["woken_us"].append(max(0, followed.at_ns - rung_ns) / 1_000)
            self.report["looked_in_vain"] += followed.looked_in_vain > 0  # how often it looks is a matter of load
            if followed.looked_in_vain and leads:
                self.wrong(child.name, f"the follower went by a timer: {followed.troubles}")
        self.holds(child.name, AT_REST)
        self.follower.falls_asleep()
        return child

    def holds(self, where: str, files: Collection[str]) -> None:
        """The folder has no other files than these."""
        if others := set(os.listdir(self.folder)) - set(files):
            self.wrong(where, f"left {sorted(others)}")

    def _path_leads_on(self) -> bool:
        """Whether there is a segment to stay with until the next one is there: no reader needs a timer then."""
        if not os.path.exists(self.path):
            return False
        with SegmentReader.open(self.path) as reader:
            # Killed right after it had set the previous one aside, and before it had taken its path.
            both = os.path.exists(self.aside) and os.path.samefile(self.path, self.aside)
            return not reader.superseded and not both

    def end(self, layout: Layout) -> Report:
        """A last writer ends in order; what is left then is in the report."""
        last = self.writer(layout, lambda _, writing, __: writing.writer.close())
        last.line.send("close")
        last.ended_by()
        self.judge.kill()
        self.follower.kill()
        self.report["left"] = sorted(os.listdir(self.folder))
        return self.report


def _write(
    scene: Scene, layout: Layout, then: Callable[[Connection, Writing, int], None], leads: bool, line: Connection
) -> None:
    published: list[int] = []

    def at_ease(building: str, size_bytes: int, mode: int) -> int:
        # Who sleeps at a file that a dead writer set aside has been woken just now. It may come to the path between the
        # successor's mark and its rename: it then looks again a millisecond later, which is no flaw. What is judged
        # is that no timer is needed by who has come to where the path led.
        if leads:
            scene.follower.falls_asleep()
        return placement.reserve(building, size_bytes, mode)

    def timed(building: str, path: str) -> None:
        published.append(time.monotonic_ns())
        placement.publish(building, path)

    mock.patch.object(writer_module, "reserve", at_ease).start()
    mock.patch.object(writer_module, "publish", timed).start()
    writer = layout.create(scene.path)
    writing = Writing(writer)
    tell_history(writing, scene.session)
    rung_ns = time.monotonic_ns()
    writing.ring(*range(layout.bells))
    line.send((writer.generation, published[0], rung_ns))
    line.recv()
    then(line, writing, scene.session)


def rest(line: Connection, _writing: Writing, _session: int) -> None:
    """A writer that does nothing more."""
    line.recv()
