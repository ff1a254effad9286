"""The C reader as a process, and an oracle that says in plain Python what it must tell."""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.segment.segment_processes import DEADLINE_S
from tests.segment.segment_rows import Row, row, stamps

from chandlery.workers.segment import SegmentWriter

SOURCE = Path(__file__).with_name("reader.c")
NOTHING = -1


def build(folder: Path) -> Path:
    """Compile; skips where there is no compiler."""
    program = folder / "reader"
    compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")[0]
    flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror"]
    try:
        done = subprocess.run([compiler, *flags, str(SOURCE), "-o", str(program)], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip(f"needs a C compiler ({compiler})")
    assert done.returncode == 0, done.stderr
    return program


class ForeignReader:
    """A running reader and what it says."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._rest = b""

    def line(self) -> str:
        """The next line, within the deadline."""
        assert self.process.stdout is not None
        while b"\n" not in self._rest:
            readable, _, _ = select.select([self.process.stdout], [], [], DEADLINE_S)
            assert readable, "the reader said nothing"
            chunk = os.read(self.process.stdout.fileno(), 1 << 16)
            assert chunk, f"the reader ended with {self.process.wait(DEADLINE_S)}"
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    def lines_until(self, word: str) -> tuple[list[str], str]:
        """The lines before the one that begins with a word, and that one."""
        lines = []
        while not (line := self.line()).startswith(word):
            lines.append(line)
        return lines, line

    def wait_asleep(self) -> None:
        """Until it sleeps at a futex that processes share."""
        call = Path(f"/proc/{self.process.pid}/syscall")
        deadline = time.monotonic() + DEADLINE_S
        while (found := call.read_text(encoding="ascii").split())[2:3] != ["0x0"] or found[0] == "running":
            assert time.monotonic() < deadline, "it doesn't wait on its bell"
            time.sleep(0.0005)


@contextlib.contextmanager
def running(program: Path, path: str, *arguments: str) -> Iterator[ForeignReader]:
    """A reader process; gone afterwards."""
    process = subprocess.Popen([str(program), path, *arguments], stdout=subprocess.PIPE, bufsize=0)
    try:
        yield ForeignReader(process)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


class _Series(NamedTuple):
    place: int
    rows: list[Row]
    stamps: list[tuple[int, ...]]


class Oracle:
    """Writes a series and knows what a reader must find of it, from the words of docs/segment.md."""

    def __init__(self, writer: SegmentWriter, symbol: str, interval: str, *, rows: int, guard_rows: int) -> None:
        self._writer = writer
        self._readable = rows - guard_rows
        self._name = (symbol, interval)
        self._series: _Series | None = None
        self._forming: tuple[Row, tuple[int, ...]] | None = None
        self._session = 0
        self._live_from = self._traded_from = NOTHING

    def add(self) -> None:
        self._series = _Series(self._writer.add_series(*self._name), [], [])
        self._start(0)

    def remove(self) -> None:
        self._writer.remove_series(*self._name)
        self._series = None

    def reset(self, session: int) -> None:
        self._writer.reset(self._there.place, session)
        self._start(session)

    def append(self, *, backfill: bool = False, live: bool = True) -> None:
        ordinal = len(self._there.rows)
        added = row(self._session, ordinal)
        self._writer.append(self._there.place, *added, stamps(self._session, ordinal), backfill, live)
        self._there.rows.append(added)
        self._there.stamps.append(stamps(self._session, ordinal))
        if self._forming and self._forming[0][0] <= added[0]:
            self._forming = None
        if not backfill and self._traded_from == NOTHING:
            self._traded_from = added[0]
        if not backfill and live and self._live_from == NOTHING:
            self._live_from = added[0]

    def revise(self, ordinal: int, version: int) -> None:
        changed = row(self._session, ordinal, version)
        assert self._writer.revise(self._there.place, *changed)
        self._there.rows[ordinal] = changed

    def form(self, ordinal: int, version: int) -> None:
        self._forming = (row(self._session, ordinal, version), stamps(self._session, ordinal))
        self._writer.set_forming(self._there.place, *self._forming[0], self._forming[1])

    def expected(self) -> list[tuple[object, ...]]:
        """What a reader tells of it, told() of each line."""
        name = "@".join(self._name)
        if self._series is None:
            return [("absent", name)]
        told: list[tuple[object, ...]] = []
        rows = self._series.rows
        if self._forming:
            told.append(("forming", name, *self._forming[0], *self._forming[1]))
        if rows:
            told.append(("stamps", name, len(rows) - 1, *self._series.stamps[-1]))
        told.append(("from", name, self._live_from, self._traded_from, rows[-1][0] if rows else NOTHING))
        begin = max(0, len(rows) - self._readable)
        values = [value for one in rows[begin:] for value in one]
        told.append(("window", name, self._session, begin, len(rows), *values))
        return told

    @property
    def _there(self) -> _Series:
        assert self._series is not None
        return self._series

    def _start(self, session: int) -> None:
        assert self._series is not None
        self._series.rows.clear()
        self._series.stamps.clear()
        self._forming = None
        self._session = session
        self._live_from = self._traded_from = NOTHING


def told(line: str) -> tuple[object, ...]:
    """A line as values; a window's revision, which the oracle doesn't count, left out."""
    kind, name, *rest = line.split()
    values = [float(word) for word in rest]
    if kind == "window":
        assert values[1] % 2 == 0, "an odd revision passed as whole"
        del values[1]
    return (kind, name, *values)
