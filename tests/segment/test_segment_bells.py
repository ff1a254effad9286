"""Doorbells: who waits is woken, nobody else is, and nothing rung in between is missed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.segment.segment_processes import DEADLINE_S, process, receive, wait_for_bell
from tests.segment.segment_rows import append

from chandlery.workers.segment import SegmentError, SegmentReader, SegmentWriter


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "segment")


@pytest.fixture
def writer(path: str) -> Iterator[SegmentWriter]:
    with SegmentWriter.create(path, rows=8, series=2, guard_rows=1, bells=4) as writer:
        yield writer


@pytest.fixture
def reader(writer: SegmentWriter, path: str) -> SegmentReader:
    return SegmentReader.open(path)


def asleep(thread_id: int) -> bool:
    """Whether a thread of this process sleeps at a futex that processes share (the interpreter's own don't)."""
    call = Path(f"/proc/self/task/{thread_id}/syscall").read_text(encoding="ascii").split()
    return len(call) > 2 and call[2] == "0x0"  # the operation: FUTEX_WAIT without FUTEX_PRIVATE_FLAG


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "nothing happened within the deadline"
        os.sched_yield()


def test_ringing_one_bell_changes_it_alone(writer: SegmentWriter, reader: SegmentReader) -> None:
    writer.ring(2)
    writer.ring(2)
    assert [reader.bell(index) for index in range(4)] == [0, 0, 2, 0]
    writer.ring_many([0, 3, 3])
    assert reader.info()["bells"] == [1, 0, 2, 2]


def test_a_bell_rung_before_the_wait_is_not_missed(writer: SegmentWriter, reader: SegmentReader) -> None:
    seen = reader.bell(1)
    writer.ring(1)
    assert reader.wait(1, seen, DEADLINE_S) == seen + 1


@pytest.mark.parametrize("many", [False, True])
def test_a_sleeping_process_is_woken_and_sees_what_was_written_before(
    writer: SegmentWriter, path: str, many: bool
) -> None:
    series = writer.add_series("BTC/USDT", "1s")
    with process(wait_for_bell, path, 1) as (_, other):
        seen = receive(other)
        append(writer, series, 0, 0)
        if many:
            writer.ring_many([0, 1])
        else:
            writer.ring(1)
        assert receive(other) == (seen + 1, 1, False)  # type: ignore[operator]


def test_waiting_lets_other_threads_run_and_another_bell_does_not_end_it(
    writer: SegmentWriter, reader: SegmentReader
) -> None:
    ended: list[int] = []
    thread = threading.Thread(target=lambda: ended.append(reader.wait(0, 0, DEADLINE_S)))
    thread.start()
    assert thread.native_id is not None
    until(lambda: asleep(thread.native_id or 0))
    writer.ring(1)
    assert ended == []
    assert asleep(thread.native_id), "the wait ended for a bell that is not its own"
    writer.ring(0)
    thread.join(DEADLINE_S)
    assert ended == [1]


def test_a_wait_ends_by_itself_with_the_unchanged_value(reader: SegmentReader) -> None:
    assert reader.wait(0, 0, 0.01) == 0
    assert reader.wait(0, 0, 0.0) == 0
    assert reader.wait(0, 0, -1.0) == 0
    assert reader.wait(0, 99, DEADLINE_S) == 0, "the value differs already"


def test_a_signal_ends_the_wait_and_its_handler_runs(reader: SegmentReader) -> None:
    came: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _frame: came.append(number))
    main = threading.get_native_id()

    def interrupt() -> None:
        until(lambda: asleep(main))
        os.kill(os.getpid(), signal.SIGUSR1)

    thread = threading.Thread(target=interrupt)
    try:
        thread.start()
        assert reader.wait(0, 0, DEADLINE_S) == 0
        thread.join(DEADLINE_S)
        assert came == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_handler_that_raises_is_heard_through_the_wait(reader: SegmentReader) -> None:
    def stop(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, stop)
    main = threading.get_native_id()

    def interrupt() -> None:
        until(lambda: asleep(main))
        os.kill(os.getpid(), signal.SIGUSR1)

    thread = threading.Thread(target=interrupt)
    try:
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            reader.wait(0, 0, DEADLINE_S)
    finally:
        thread.join(DEADLINE_S)
        signal.signal(signal.SIGUSR1, before)


def test_closing_the_reader_under_a_waiting_thread_is_safe(writer: SegmentWriter, reader: SegmentReader) -> None:
    ended: list[int] = []
    thread = threading.Thread(target=lambda: ended.append(reader.wait(0, 0, DEADLINE_S)))
    thread.start()
    assert thread.native_id is not None
    until(lambda: asleep(thread.native_id or 0))
    reader.close()
    writer.ring(0)
    thread.join(DEADLINE_S)
    assert ended == [1]


@pytest.mark.parametrize("bell", [-1, 4, 1 << 40])
def test_a_bell_that_is_not_there_is_refused(writer: SegmentWriter, reader: SegmentReader, bell: int) -> None:
    for use in (
        lambda: writer.ring(bell),
        lambda: writer.ring_many([0, bell]),
        lambda: reader.bell(bell),
        lambda: reader.wait(bell, 0, 0.0),
    ):
        with pytest.raises(SegmentError, match="bells 0 to 3"):
            use()
    assert reader.bell(0) == 0, "ring_many rings none when one is wrong"


def test_a_wait_without_an_end_is_refused_as_a_number(reader: SegmentReader) -> None:
    with pytest.raises(SegmentError, match="not a number"):
        reader.wait(0, 0, float("nan"))
    assert reader.wait(0, 1, float("inf")) == 0


def test_heartbeats_are_the_monotonic_clock(writer: SegmentWriter, reader: SegmentReader) -> None:
    before = time.monotonic_ns()
    writer.heartbeat()
    assert before <= reader.writer_heartbeat_ns() <= time.monotonic_ns()
