"""What the tests run in processes of their own: writers, readers, and how they are started and ended."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import NamedTuple, TypedDict

from tests.segment.segment_rows import append, flaw, forming_flaw, row, stamps

from chandlery.workers.segment import SegmentError, SegmentReader, SegmentWriter, SignalRing
from chandlery.workers.segment import writer as writer_module

#: Generous: two busy cores may keep a process from running for seconds.
DEADLINE_S = 60.0

SPAWN = multiprocessing.get_context("spawn")

STRESS = [("A/USDT", "1s"), ("B/USDT", "1s")]
STRESS_ROWS, STRESS_GUARD = 48, 8


class Seen(TypedDict):
    """What a stress reader counted; ``flaws`` are those of windows or forming rows that passed as whole."""

    valid: int
    invalid: int
    torn_but_refused: int
    forming: int
    flaws: list[str]


class Looked(NamedTuple):
    """What a reader that looks up lasting series counted."""

    times: int
    missed: list[str]


@contextlib.contextmanager
def process(target: Callable[..., None], *args: object) -> Iterator[tuple[BaseProcess, Connection]]:
    """Run ``target(connection, *args)`` in a process; it is gone afterwards."""
    ours, theirs = SPAWN.Pipe()
    child = SPAWN.Process(target=target, args=(theirs, *args))
    child.start()
    theirs.close()
    try:
        yield child, ours
    finally:
        if child.is_alive():
            os.kill(child.pid or 0, signal.SIGKILL)
        child.join(DEADLINE_S)
        ours.close()


def receive(connection: Connection) -> object:
    """The next message of a process, within the deadline."""
    assert connection.poll(DEADLINE_S), "the other process said nothing"
    message: object = connection.recv()
    return message


def hold_segment(connection: Connection, path: str, rows: int) -> None:
    """Make a segment with one series and hold it until told or killed."""
    writer = SegmentWriter.create(path, rows=rows, series=4, guard_rows=1, bells=4)
    series = writer.add_series("BTC/USDT", "1s")
    for ordinal in range(rows):
        append(writer, series, 0, ordinal)
    connection.send(writer.generation)
    connection.recv()
    writer.close()
    connection.send("closed")


def be_killed_behind(_: Connection, path: str, step: str) -> None:
    """Make a segment and die of kill -9 right behind a step of making it."""
    taken = getattr(writer_module, step)

    def take_and_die(*args: object) -> None:
        taken(*args)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(writer_module, step, take_and_die)
    SegmentWriter.create(path, rows=8, series=1, guard_rows=1)


def wait_for_bell(connection: Connection, path: str, bell: int) -> None:
    """Wait on a bell from another process and tell value and what the writer had stored before ringing."""
    reader = SegmentReader.open(path)
    series = reader.series("BTC/USDT", "1s")
    assert series is not None
    seen = reader.bell(bell)
    connection.send(seen)
    value = reader.wait(bell, seen, DEADLINE_S)
    connection.send((value, series.count, reader.superseded))


def write_under_stress(connection: Connection, path: str, seed: int, steps: int) -> None:
    """Append, revise, set forming rows, reset and remove, as fast as it goes."""
    draw = random.Random(seed)
    writer = SegmentWriter.create(
        path, rows=STRESS_ROWS, series=4, guard_rows=STRESS_GUARD, bells=4, stamp_rows=STRESS_ROWS
    )
    indices = [writer.add_series(*name) for name in STRESS]
    counts, sessions = [0, 0], [0, 0]
    connection.send("ready")
    connection.recv()
    for step in range(steps):
        which = draw.randrange(2)
        series, session = indices[which], sessions[which]
        kind = draw.random()
        if kind < 0.55:
            append(writer, series, session, counts[which])
            counts[which] += 1
        elif kind < 0.80:
            ahead = counts[which] + draw.randrange(2)
            writer.set_forming(series, *row(session, ahead, draw.randrange(900)), stamps(session, ahead))
        elif kind < 0.99 and counts[which]:
            ordinal = max(0, counts[which] - 1 - draw.randrange(STRESS_ROWS - STRESS_GUARD))
            writer.revise(series, *row(session, ordinal, draw.randrange(1, 900)))
        elif kind < 0.995:
            sessions[which] += 1
            counts[which] = 0
            writer.reset(series, sessions[which])
        else:
            # Gone and back, in the other's record: stale readers must not take its rows for theirs.
            for name in STRESS:
                writer.remove_series(*name)
            indices = [writer.add_series(*name) for name in reversed(STRESS)][::-1]
            for place, index in enumerate(indices):
                sessions[place] += 1
                counts[place] = 0
                writer.reset(index, sessions[place])
        if step % 64 == 0:
            os.sched_yield()
    writer.close()


def read_under_stress(connection: Connection, path: str, name: tuple[str, str]) -> None:
    """Take windows and forming rows until the writer is gone; tell what was seen."""
    reader = SegmentReader.open(path)
    seen: Seen = {"valid": 0, "invalid": 0, "torn_but_refused": 0, "forming": 0, "flaws": []}
    connection.send("ready")
    series = None
    deadline = time.monotonic() + DEADLINE_S / 2
    while not reader.superseded and time.monotonic() < deadline:
        if series is None or not series.alive:
            series = reader.series(*name)
            continue
        forming = series.forming()
        if forming is not None:
            seen["forming"] += 1
            if trouble := forming_flaw(forming):
                seen["flaws"].append(trouble)
        window = series.window(series.count, STRESS_ROWS - STRESS_GUARD)
        trouble = flaw(window)
        stamped = series.stamps(window.end - 1) if window.end else None
        if not series.valid(window):
            seen["invalid"] += 1
            seen["torn_but_refused"] += trouble != ""
            continue
        seen["valid"] += 1
        if trouble:
            seen["flaws"].append(trouble)
        if stamped is not None and stamped != stamps(window.session, window.end - 1):
            seen["flaws"].append(f"stamps {stamped} of row {window.end - 1}, session {window.session}")
    connection.send(seen)


def find_under_churn(connection: Connection, path: str, lasting: list[tuple[str, str]]) -> None:
    """Look up series that are always there, while others come and go, until told to stop."""
    reader = SegmentReader.open(path)
    connection.send("ready")
    looked = 0
    missed: list[str] = []
    while not connection.poll():
        for name in lasting:
            looked += 1
            series = reader.series(*name)
            if series is None:
                missed.append(f"{name} not found")
            elif (series.session, series.alive) != (lasting.index(name), True):
                missed.append(f"{name} is session {series.session}, alive {series.alive}")
    connection.send(Looked(looked, missed))


def push_until_killed(connection: Connection, path: str) -> None:
    """Push numbered signals as fast as the ring takes them, storing a position after each."""
    ring = SignalRing.create(path, trader="ns/killed", slots=8)
    connection.send("ready")
    number = ring.info()["head"]
    while True:
        try:
            if ring.push(b"%d" % number):
                number += 1
                ring.set_position("BTC/USDT", number, number * 2)
        except SegmentError as error:
            connection.send(str(error))
            return
