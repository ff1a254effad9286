"""Lives of views, each in a process of its own: one that touches memory no longer mapped ends that process.

``python -X faulthandler -m tests.segment.segment_lifetimes NAME PATH``; a wrong value is an AssertionError.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from tests.segment.segment_processes import DEADLINE_S
from tests.segment.segment_rows import append, flaw, row, stamps

from chandlery.workers.segment import (
    FormingRow,
    SegmentError,
    SegmentReader,
    SegmentWriter,
    SeriesReader,
    Window,
    _native,
)

ROWS, GUARD, COUNT = 16, 4, 30
NAMES: Final = ("open_time", "open", "high", "low", "close", "volume", "trades")


def writer_at(path: str) -> tuple[SegmentWriter, int]:
    """A writer with one series of COUNT rows."""
    writer = SegmentWriter.create(path, rows=ROWS, series=1, guard_rows=GUARD, bells=1, stamp_rows=ROWS)
    index = writer.add_series("BTC/USDT", "1s")
    for ordinal in range(COUNT):
        append(writer, index, 0, ordinal)
    writer.set_forming(index, *row(0, COUNT), stamps(0, COUNT))
    return writer, index


def series_of(reader: SegmentReader) -> SeriesReader:
    series = reader.series("BTC/USDT", "1s")
    assert series is not None
    return series


def window_at(path: str) -> Window:
    """A window of which the reader and the series are let go at once."""
    with SegmentReader.open(path) as reader:
        return series_of(reader).window(COUNT, ROWS - GUARD)


def mapped(path: str) -> bool:
    """Whether this process maps the file, be it unlinked or not."""
    return any(line.split()[5:6] == [path] for line in Path("/proc/self/maps").read_text().splitlines())


def views_after_close(path: str) -> None:
    """Arrays, slices of them, and buffers of these go on after their reader and series."""
    writer, _ = writer_at(path)
    window = window_at(path)
    gc.collect()
    assert flaw(window) == ""
    part = window.close[2:5][::-1]
    raw = window.close.data
    expected = part.tolist()
    del window
    gc.collect()
    assert part.tolist() == expected
    assert raw.tolist()[2:5] == expected[::-1]
    assert part.base is not None, "a view, not a copy"
    writer.close()
    assert part.tolist() == expected


def last_view_unmaps(path: str) -> None:
    """A mapping lives as long as its last view, and no longer."""
    writer, _ = writer_at(path)
    writer.close(unlink=False)
    gc.collect()
    assert not mapped(path), "the writer's own mapping goes with its close"
    reader = SegmentReader.open(path)
    arrays = [getattr(series_of(reader).window(COUNT, 3), name) for name in NAMES]
    reader.close()
    del reader
    while arrays:
        gc.collect()
        assert mapped(path)
        assert len(arrays.pop()) == 3
    gc.collect()
    assert not mapped(path)


def unlinked_and_superseded(path: str) -> None:
    """Views of a file that is gone, or that another has replaced, show what it held."""
    writer, _ = writer_at(path)
    window, held = window_at(path), SegmentReader.open(path)
    series = series_of(held)
    writer.close()
    assert not os.path.exists(path)
    assert flaw(window) == ""
    successor = SegmentWriter.create(path, rows=4 * ROWS, series=5, guard_rows=GUARD)
    index = successor.add_series("BTC/USDT", "1s")
    for ordinal in range(3):
        append(successor, index, 7, ordinal)
    assert held.superseded
    assert flaw(window) == flaw(series.window(COUNT, 5)) == ""
    assert series.alive
    assert series.session == 0
    successor.close()


def across_fork(path: str) -> None:
    """A child reads what its parent mapped, whatever the parent lets go of, and the other way round."""
    writer, index = writer_at(path)
    reader = SegmentReader.open(path)
    series = series_of(reader)
    window = series.window(COUNT, ROWS - GUARD)
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        reader.close()
        os.read(told, 1)  # the parent has let go of all of it, and written on
        fine = flaw(window) == "" and series.valid(window) and series.count == COUNT + 1
        os._exit(0 if fine else 1)
    append(writer, index, 0, COUNT)
    del window, series
    reader.close()
    gc.collect()
    os.write(tell, b"x")
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert flaw(window_at(path)) == ""
    writer.close()


def held_by_threads(path: str) -> None:
    """Threads read their views while the main thread opens, closes and collects."""
    writer, _ = writer_at(path)
    wrong: list[str] = []
    stop = threading.Event()

    def read(window: Window) -> None:
        while not stop.is_set():
            if trouble := flaw(window):
                wrong.append(trouble)
                return

    threads = [threading.Thread(target=read, args=(window_at(path),)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        window_at(path)
    gc.collect()
    writer.close()
    stop.set()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert wrong == []


def closed_while_waiting(path: str) -> None:
    """A thread that sleeps at a bell keeps the mapping until it wakes."""

    def wait(reader: SegmentReader, seen: int, values: list[int]) -> None:
        with contextlib.suppress(SegmentError):  # it came after the close
            values.append(reader.wait(0, seen, DEADLINE_S))

    writer, _ = writer_at(path)
    for _ in range(20):
        reader = SegmentReader.open(path)
        seen = reader.bell(0)
        values: list[int] = []
        thread = threading.Thread(target=wait, args=(reader, seen, values))
        thread.start()
        reader.close()
        writer.ring(0)
        thread.join(DEADLINE_S)
        assert not thread.is_alive()
        assert values in ([seen + 1], [])
    writer.close()


def copies_and_views(path: str) -> None:
    """What is a view changes with the writer; what is a copy doesn't, and may be kept and pickled."""
    writer, index = writer_at(path)
    series = series_of(SegmentReader.open(path))
    forming, stamped = series.forming(), series.stamps(COUNT - 1)
    window = series.window(COUNT, ROWS - GUARD)
    copy = np.array(window.close)
    pickled = pickle.loads(pickle.dumps(window.close))
    first = copy.tolist()
    for ordinal in range(COUNT, COUNT + 2 * ROWS):
        append(writer, index, 0, ordinal)
    assert not series.valid(window)
    assert window.close.tolist() != first, "a view shows what the writer has done since"
    assert copy.tolist() == pickled.tolist() == first
    assert isinstance(forming, FormingRow)
    assert forming[:7] == row(0, COUNT)
    assert stamped == stamps(0, COUNT - 1)
    writer.close()


def bare_mapping(path: str) -> None:
    """The extension's own objects: buffers outlive the mapping, and a second __init__ lets go of the first."""
    writer, _ = writer_at(path)
    writer.close(unlink=False)
    size = os.path.getsize(path)
    fd = os.open(path, os.O_RDONLY)
    first, second = (_native.Mapping(fd, size, False) for _ in range(2))
    os.close(fd)
    numbers = (ROWS, GUARD, 1, 1, ROWS)
    series = _native.Series(first, numbers, 0, 1)
    view = memoryview(first)
    del first
    gc.collect()
    assert bytes(view[:8]) == b"CHNDLSEG"
    series.__init__(second, numbers, 0, 1)  # type: ignore[misc]
    del second, view
    gc.collect()
    assert series.count == COUNT
    with contextlib.suppress(TypeError):
        series.__init__(None, numbers, 0, 1)  # type: ignore[misc]
    try:
        raise AssertionError(f"an attachment that failed must leave nothing to be read, not {series.count}")
    except SegmentError:
        return


_KEPT: list[object] = []


def until_the_interpreter_ends(path: str) -> None:
    """Views that are still there when the interpreter takes itself down."""
    writer, _ = writer_at(path)
    window = window_at(path)
    _KEPT.extend([window, window.close[1:], window.low.data, SegmentReader.open(path), writer])


CASES: Final[dict[str, Callable[[str], None]]] = {
    case.__name__: case
    for case in (
        views_after_close,
        last_view_unmaps,
        unlinked_and_superseded,
        across_fork,
        held_by_threads,
        closed_while_waiting,
        copies_and_views,
        bare_mapping,
        until_the_interpreter_ends,
    )
}

if __name__ == "__main__":
    CASES[sys.argv[1]](sys.argv[2])
