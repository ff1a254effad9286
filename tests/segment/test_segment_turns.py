"""Readers that find a change half-made give its writer a turn, and don't stay with one that was killed.

A turn that is given where others want the core takes as long as theirs: 64 of them took seconds, in which a trader
could not follow the killed writer's successor.
"""

from __future__ import annotations

import ctypes
import shlex
import subprocess
import sysconfig
from pathlib import Path
from typing import Final

import pytest

from chandlery.workers.segment import layout

OPERATIONS: Final = ("window", "forming row", "stamps", "look-up")
MICROSECOND, MILLISECOND = 1_000, 1_000_000
NEVER: Final = 0


class Turns:
    """Python's face of turns.c."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._read = library.read_beside
        self._read.argtypes = (ctypes.c_int, ctypes.c_uint64, ctypes.c_int, ctypes.POINTER(ctypes.c_int))

    def read(self, operation: str, turn_ns: int, finished: int) -> tuple[bool, int]:
        """Read beside a writer in the middle of a change, which it finishes in a turn or never.

        Returns:
            Whether something whole was found, and the number of turns given.
        """
        turns = ctypes.c_int()
        found = self._read(OPERATIONS.index(operation), turn_ns, finished, ctypes.byref(turns))
        assert found >= 0, "no memory"
        return bool(found), turns.value


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Turns:
    library = tmp_path_factory.mktemp("turns") / "turns.so"
    compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")[0]
    flags = [
        "-std=c11",
        "-O2",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Wno-unused-function",
        "-D_GNU_SOURCE",
        "-shared",
        "-fPIC",
    ]
    source, headers = Path(__file__).with_name("turns.c"), Path(layout.__file__).parent
    try:
        done = subprocess.run(
            [compiler, *flags, f"-I{headers}", str(source), "-o", str(library)], capture_output=True, text=True
        )
    except FileNotFoundError:
        pytest.skip(f"needs a C compiler ({compiler})")
    assert done.returncode == 0, done.stderr
    return Turns(ctypes.CDLL(str(library)))


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    ("turn_ns", "turns"),
    [(MICROSECOND, 64), (MILLISECOND // 2, 5), (3 * MILLISECOND, 1), (30 * MILLISECOND, 1)],
)
def test_a_killed_writer_is_given_few_turns_where_they_take_long(
    beside: Turns, operation: str, turn_ns: int, turns: int
) -> None:
    assert beside.read(operation, turn_ns, NEVER) == (False, turns)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(("turn_ns", "finished"), [(MICROSECOND, 64), (MILLISECOND // 2, 5), (30 * MILLISECOND, 1)])
def test_what_a_writer_finishes_in_the_last_turn_it_is_given_is_seen(
    beside: Turns, operation: str, turn_ns: int, finished: int
) -> None:
    assert beside.read(operation, turn_ns, finished) == (True, finished)
