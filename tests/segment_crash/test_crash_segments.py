"""kill -9 of writers and readers of a segment at each of their steps: who is left goes on with what is true."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.segment_crash.scene import Report
from tests.segment_crash.stage import play
from tests.segment_crash.truth import OPERATIONS


def judge(report: Report) -> None:
    """Nothing is wrong, and nothing is left when the last writer has closed."""
    assert report["flaws"] == [], f"{len(report['flaws'])} flaws, such as {report['flaws'][:3]}"
    assert report["left"] == []


def tell_times(report: Report) -> None:
    """How long following took, for who runs the tests with ``-s``. What is judged is that nobody needed a timer."""
    print(f"followed {len(report['follow_us'])} times, {_spread(report['follow_us'])}; behind the bell "
          f"{_spread(report['woken_us'])}")  # fmt: skip


def _spread(times_us: list[float]) -> str:
    times_ms = sorted(time_us / 1_000 for time_us in times_us)
    shown = {"p50": len(times_ms) // 2, "p90": len(times_ms) * 9 // 10, "max": len(times_ms) - 1}
    return ", ".join(f"{name} {times_ms[at]:.2f} ms" for name, at in shown.items())


@pytest.mark.parametrize("layout", ["same", "changed"])
def test_a_writer_killed_after_any_store_leaves_what_is_whole_and_its_successor_is_followed(
    library: Path, shared: Path, layout: str
) -> None:
    """Who was there, who comes, and who sleeps: the last is woken by the bell, for it waits without an end."""
    report: Report = play(library, "writer_matrix", shared, layout)
    judge(report)
    tell_times(report)
    assert set(report["points"]) == {operation.name for operation in OPERATIONS}
    assert sum(report["points"].values()) == len(report["follow_us"]) > 150
    assert report["looked_in_vain"] == 0, "no timer was needed"


def test_a_writer_killed_at_any_step_of_taking_the_path_strands_no_reader(library: Path, shared: Path) -> None:
    report: Report = play(library, "file_matrix", shared, "create")
    judge(report)
    tell_times(report)
    assert report["points"]["create"] > 60
    # But for those moments in which the path leads to a segment that says it is superseded; that is in the flaws.
    assert report["looked_in_vain"] < report["points"]["create"] / 10


@pytest.mark.parametrize(("what", "points"), [("make room", 80), ("close", 12)])
def test_a_writer_killed_at_any_step_of_leaving_the_path_strands_no_reader(
    library: Path, shared: Path, what: str, points: int
) -> None:
    """The path leads to nothing for a while: readers look now and then, for nobody is there to wake them."""
    report: Report = play(library, "file_matrix", shared, what)
    judge(report)
    tell_times(report)
    assert report["points"][what] > points


def test_readers_of_each_layout_version_are_told_and_say_what_they_found(library: Path, shared: Path) -> None:
    judge(play(library, "version_matrix", shared))


def test_a_reader_killed_before_any_load_or_asleep_is_missed_by_nobody(library: Path, shared: Path) -> None:
    report: Report = play(library, "reader_matrix", shared)
    judge(report)
    assert sum(report["points"].values()) > 120
