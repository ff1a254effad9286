"""The tests' build of the extension: a process can be killed at any of its accesses to shared memory.

And at any of Python's own steps: every call of a C function (each system call is one, each packing of a header, each
call into the extension) is a step, counted by a profile hook that the production code knows nothing of.
"""

from __future__ import annotations

import ctypes
import importlib.machinery
import importlib.util
import os
import shlex
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple

#: Another module than production's: who imports ``_native`` from its file finds no such entry.
NAME: Final = "segment_fault_points"
_PRODUCTION: Final = "chandlery.workers.segment._native"
HERE: Final = Path(__file__).parent
SOURCES: Final = Path(__file__).parents[2] / "workers/chandlery/workers/segment"


class NoCompiler(Exception):
    """There is no C compiler, or no Python headers, to build it with."""


def build(folder: Path) -> Path:
    """Compile the extension's own sources with fault points; returns the file.

    Raises:
        NoCompiler: of which the tests tell.
    """
    library = folder / f"{NAME}.so"
    compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")[0]
    include = Path(sysconfig.get_path("include"))
    if not (include / "Python.h").exists():
        raise NoCompiler(f"needs Python's headers ({include}/Python.h)")
    flags = ["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden", "-D_GNU_SOURCE", "-fPIC"]
    objects = []
    try:
        for source in [*sorted(SOURCES.glob("*.c")), HERE / "fault_points.c"]:
            own = source.parent == HERE
            renamed = [] if own else [f"-DPyInit__native=PyInit_{NAME}", "-include", str(HERE / "fault_points.h")]
            objects.append(folder / f"{source.stem}.o")
            command = [compiler, *flags, *renamed, f"-I{include}", "-c", str(source), "-o", str(objects[-1])]
            _run(command)
        _run([compiler, "-shared", *map(str, objects), "-o", str(library)])
    except FileNotFoundError as error:
        raise NoCompiler(f"needs a C compiler ({compiler})") from error
    return library


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


class Cost(NamedTuple):
    """How many steps of each kind an operation has."""

    stores: int
    loads: int
    calls: int


class Point(NamedTuple):
    """Where a process dies: right after its n-th store, or right before its n-th load or call of a C function."""

    kind: str
    number: int

    def __str__(self) -> str:
        return f"{self.kind} {self.number}"


class FaultPoints:
    """The loaded build, in a process of its own."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        library.fault_point_arm.argtypes = [ctypes.c_long, ctypes.c_long]
        library.fault_point_stores.restype = library.fault_point_loads.restype = ctypes.c_long

    @classmethod
    def load(cls, path: str) -> FaultPoints:
        """Load it in place of production's; to be called before anything of ``chandlery.workers`` is imported."""
        assert _PRODUCTION not in sys.modules, "the production module is loaded already"
        loader = importlib.machinery.ExtensionFileLoader(NAME, path)
        found = importlib.util.spec_from_file_location(NAME, path, loader=loader)
        assert found is not None
        module = importlib.util.module_from_spec(found)
        loader.exec_module(module)
        sys.modules[_PRODUCTION] = module
        return cls(ctypes.CDLL(path))

    def measure(self, operation: Callable[[], object]) -> Cost:
        """Run an operation to its end and count its steps."""
        calls = 0

        def count(_frame: FrameType, event: str, _argument: Any) -> None:
            nonlocal calls
            calls += event == "c_call"

        self._library.fault_point_arm(0, 0)
        sys.setprofile(count)
        try:
            operation()
        finally:
            sys.setprofile(None)
        # The hook's own end is a call too.
        return Cost(self._library.fault_point_stores(), self._library.fault_point_loads(), calls - 1)

    def die_in(self, operation: Callable[[], object], point: Point) -> None:
        """Run an operation, in which this process is killed by SIGKILL; returns only if it has no such step."""
        left = point.number

        def count(_frame: FrameType, event: str, _argument: Any) -> None:
            nonlocal left
            if event == "c_call":
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        number = point.number
        self._library.fault_point_arm(number if point.kind == "store" else 0, number if point.kind == "load" else 0)
        if point.kind == "call":
            sys.setprofile(count)
        operation()


def points_of(cost: Cost, *kinds: str) -> list[Point]:
    """Every point of the given kinds: of an operation's stores, loads or calls."""
    many = {"store": cost.stores, "load": cost.loads, "call": cost.calls}
    return [Point(kind, number) for kind in kinds for number in range(1, many[kind] + 1)]
