"""Python's face of interleavings.c: write a history, then run readers at every point of it."""

from __future__ import annotations

import ctypes
import random
import shlex
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.segment.segment_rows import Row

from chandlery.workers.segment import layout

COLUMNS = 7
MOST_LOADS = 400


class _Row(ctypes.Structure):
    _fields_ = [
        ("open_time_ms", ctypes.c_int64),
        ("open", ctypes.c_double),
        ("high", ctypes.c_double),
        ("low", ctypes.c_double),
        ("close", ctypes.c_double),
        ("volume", ctypes.c_double),
        ("trades", ctypes.c_int64),
    ]

    def values(self) -> Row:
        return self.open_time_ms, self.open, self.high, self.low, self.close, self.volume, self.trades


class Schedule:
    """From a state on; before load number ``jumps[i][0]`` time goes on to state ``jumps[i][1]``."""

    def __init__(self, state: int, jumps: list[tuple[int, int]]) -> None:
        self.state = state
        self.jumps = jumps

    def state_at(self, load: int) -> int:
        """Which state a load found."""
        return [self.state, *(state for place, state in self.jumps if place <= load)][-1]

    def __repr__(self) -> str:
        return f"from state {self.state}" + "".join(f", at load {load} to {state}" for load, state in self.jumps)


class Interleavings:
    """A small segment whose writer's stores are kept one by one."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        library.epoch_now.restype = ctypes.c_uint64
        library.take_found.restype = ctypes.c_uint64
        library.look_up.restype = ctypes.c_uint64
        library.insert.restype = ctypes.c_int64

    @classmethod
    def build(cls, folder: Path) -> Interleavings:
        """Compile; skips where there is no compiler."""
        source = Path(__file__).with_name("interleavings.c")
        headers = Path(layout.__file__).parent
        library = folder / "interleavings.so"
        compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")[0]
        flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-shared", "-fPIC"]
        try:
            done = subprocess.run(
                [compiler, *flags, "-Wno-unused-function", f"-I{headers}", str(source), "-o", str(library)],
                capture_output=True,
                text=True,
            )
        except FileNotFoundError:
            pytest.skip(f"needs a C compiler ({compiler})")
        assert done.returncode == 0, done.stderr
        return cls(ctypes.CDLL(str(library)))

    # ---- the writer ----

    def begin(self, *, rows: int, guard_rows: int, series: int, stamp_rows: int) -> None:
        """A new, empty segment."""
        numbers = [ctypes.c_uint64(number) for number in (rows, guard_rows, series, stamp_rows)]
        assert self._library.begin(*numbers)

    def mark(self) -> None:
        """Readers are put beside what is written from here on."""
        self._library.mark()

    @property
    def states(self) -> int:
        """How many states there are since the mark, the first included."""
        return int(self._library.count_states())

    def insert(self, symbol: str) -> int:
        return int(self._library.insert(symbol.encode()))

    def discard(self, symbol: str) -> None:
        assert self._library.discard(symbol.encode())

    def append(self, series: int, row: Row, stamps: tuple[int, ...]) -> None:
        self._library.append(ctypes.c_uint64(series), ctypes.byref(_Row(*row)), _stamps(stamps))

    def revise(self, series: int, row: Row) -> None:
        assert self._library.revise(ctypes.c_uint64(series), ctypes.byref(_Row(*row)))

    def reset(self, series: int, session: int) -> None:
        self._library.reset(ctypes.c_uint64(series), ctypes.c_int64(session))

    def form(self, series: int, row: Row, stamps: tuple[int, ...]) -> None:
        self._library.form(ctypes.c_uint64(series), ctypes.byref(_Row(*row)), _stamps(stamps))

    def unform(self, series: int) -> None:
        self._library.unform(ctypes.c_uint64(series))

    # ---- schedules ----

    def schedules(self, loads: int, sample: int, seed: int) -> Iterator[Schedule]:
        """Every schedule without a jump; every one with one jump where there are at most ``sample`` of them; and
        drawn ones with up to four jumps."""
        states = self.states
        single = states * (states + 1) // 2 * loads
        draw = random.Random(seed)
        yield from (Schedule(state, []) for state in range(states))
        if single <= sample:
            for begin in range(states):
                for load in range(loads):
                    for end in range(begin, states):
                        yield Schedule(begin, [(load, end)])
        for _ in range(sample if single > sample else sample // 4):
            count = draw.randrange(1, 5)
            begin, *others = sorted(draw.randrange(states) for _ in range(count + 1))
            places = sorted(draw.randrange(loads) for _ in range(count))
            yield Schedule(begin, list(zip(places, others, strict=True)))

    def play(self, schedule: Schedule) -> None:
        """The next reader's operation follows the schedule."""
        count = len(schedule.jumps)
        loads = (ctypes.c_int * count)(*(load for load, _ in schedule.jumps))
        states = (ctypes.c_int * count)(*(state for _, state in schedule.jumps))
        self._library.play(schedule.state, count, loads, states)

    def loads(self) -> int:
        """How many loads the last operation made."""
        return int(self._library.count_loads())

    # ---- readers ----

    def epoch(self, series: int) -> int:
        return int(self._library.epoch_now(ctypes.c_uint64(series)))

    def window(self, series: int, epoch: int, length: int) -> tuple[bool, int, int, list[Row]]:
        """(valid, session, begin, rows)."""
        begin_end = (ctypes.c_uint64 * 2)()
        session = ctypes.c_int64()
        payload = (ctypes.c_int64 * (COLUMNS * length))()
        valid = self._library.take_window(
            ctypes.c_uint64(series),
            ctypes.c_uint64(epoch),
            ctypes.c_uint64(length),
            begin_end,
            ctypes.byref(session),
            payload,
        )
        begin, end = begin_end
        count = end - begin
        columns = [payload[column * count : (column + 1) * count] for column in range(COLUMNS)]
        rows = [_row(words) for words in zip(*columns, strict=True)]
        return bool(valid), session.value, begin, rows

    def forming(self, series: int) -> tuple[Row, tuple[int, ...]] | None:
        row, stamps = _Row(), _stamps((0,) * 8)
        there = self._library.take_forming(ctypes.c_uint64(series), ctypes.byref(row), stamps)
        return (row.values(), tuple(stamps)) if there else None

    def stamps(self, series: int, ordinal: int) -> tuple[int, ...] | None:
        stamps = _stamps((0,) * 8)
        there = self._library.take_stamps(ctypes.c_uint64(series), ctypes.c_uint64(ordinal), stamps)
        return tuple(stamps) if there else None

    def find_after(self, series: int, open_time_ms: int) -> int:
        return int(self._library.take_found(ctypes.c_uint64(series), ctypes.c_int64(open_time_ms)))

    def look_up(self, symbol: str) -> tuple[int, int] | None:
        """(series, epoch) of the series found, or None."""
        found = int(self._library.look_up(symbol.encode()))
        return (found & (1 << 32) - 1, found >> 32) if found else None

    def state(self, series: int) -> tuple[int, int, int]:
        """(revision, count, session)."""
        words = (ctypes.c_int64 * 3)()
        self._library.take_state(ctypes.c_uint64(series), words)
        return words[0], words[1], words[2]


def _stamps(values: tuple[int, ...]) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * 8)(*values)


def _row(words: tuple[int, ...]) -> Row:
    doubles = (ctypes.c_double * COLUMNS).from_buffer_copy((ctypes.c_int64 * COLUMNS)(*words))
    return words[0], doubles[1], doubles[2], doubles[3], doubles[4], doubles[5], words[6]
