"""What kills a process for a test is in the tests' build alone."""

from __future__ import annotations

import ctypes
import importlib.util
import subprocess
import sys
from importlib.machinery import ExtensionFileLoader
from pathlib import Path

import pytest
from tests.segment_crash.fault_points import NAME, SOURCES
from tests.segment_crash.stage import ROOT, environment

from chandlery.workers.segment import _native

WORD = b"fault_point"


def test_the_production_build_has_no_fault_points(library: Path) -> None:
    assert _native.__file__ is not None
    production = Path(_native.__file__)
    assert WORD in library.read_bytes()
    assert WORD not in production.read_bytes()
    with pytest.raises(AttributeError, match="fault_point_arm"):
        ctypes.CDLL(str(production)).fault_point_arm  # noqa: B018 - looks the symbol up


def test_nothing_that_is_shipped_names_them() -> None:
    sources = [path for path in SOURCES.rglob("*") if path.suffix in (".c", ".h", ".py", ".pyi")]
    assert len(sources) > 15
    assert [path.name for path in sources if WORD in path.read_bytes()] == []
    assert WORD not in (ROOT / "setup.py").read_bytes()
    assert WORD not in (ROOT / "pyproject.toml").read_bytes()


def test_the_build_with_them_cannot_be_taken_for_the_production_module(library: Path, tmp_path: Path) -> None:
    assert library.name == f"{NAME}.so"
    taken = tmp_path / "_native.so"
    taken.write_bytes(library.read_bytes())
    loader = ExtensionFileLoader("_native", str(taken))
    spec = importlib.util.spec_from_file_location("_native", taken, loader=loader)
    assert spec is not None
    with pytest.raises(ImportError, match="PyInit__native"):
        importlib.util.module_from_spec(spec)


def test_an_armed_process_dies_by_sigkill_at_its_point_and_an_unarmed_one_goes_on(
    library: Path, tmp_path: Path
) -> None:
    code = (
        "import sys\n"
        "from tests.segment_crash.fault_points import FaultPoints, Point\n"
        "points = FaultPoints.load(sys.argv[1])\n"
        "from chandlery.workers.segment import SegmentWriter\n"
        "writer = SegmentWriter.create(sys.argv[2], rows=4, series=1, guard_rows=1, bells=1)\n"
        "print(points.measure(lambda: writer.ring(0)).stores, flush=True)\n"
        "points.die_in(lambda: writer.ring(0), Point('store', int(sys.argv[3])))\n"
        "print('went on')\n"
    )
    for store, code_of_end, says in ((2, -9, "2\n"), (3, 0, "2\nwent on\n")):
        done = subprocess.run(
            [sys.executable, "-c", code, str(library), str(tmp_path / "segment"), str(store)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=environment(),
        )
        assert (done.returncode, done.stdout) == (code_of_end, says), done.stderr
