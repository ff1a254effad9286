"""A window's own cost: ``window()`` and ``valid()`` for 10 to 900 candles, and what memory windows take.

Times are of one process on a segment that nobody writes, caches warm: the lengths take turns, the quickest of many
rounds counts, so they hold on a busy machine. Beside: a window that was prepared before (what a trader does when it goes to
sleep), and the peer, a copy of the same seven columns.

Memory: the file of 100 symbols x 5 intervals, with 1,000 rows a series as ``chandlery up`` reserves them (64 of them for
the writer alone) and with 1,000 rows that readers may take; and what one of 20 processes that read five series each
takes (PSS: of a shared page its share). What a whole trader takes is ``benchmarks/memory.py``'s ``trader_pss``.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks._fanout_stage import CONTEXT
from benchmarks._fanout_work import candles
from benchmarks._fleet import memory_folder
from benchmarks.harness import Row, run, say
from chandlery.workers.segment import COLUMNS, SegmentReader, SegmentWriter, SeriesReader

LENGTHS: Final = (10, 100, 500, 900)
_ROWS: Final = 1_000
_GUARD_ROWS: Final = 64
_CALLS: Final = 2_000
GOAL_RATIO: Final = 1.2
GOAL_SEGMENT_MB: Final = 60.0
GOAL_PSS_MB: Final = 10.0
SERIES: Final = 500
READERS: Final = 20
SERIES_EACH: Final = 5
_STAMPS: Final = (0,) * 8
_MB: Final = 1e6


def _quickest_us(work: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Mean time of a call in the quickest round of each, µs; all take turns."""
    best = dict.fromkeys(work, float("inf"))
    for _ in range(rounds):
        for name, call in work.items():
            begun_ns = time.perf_counter_ns()
            for _ in range(_CALLS):
                call()
            best[name] = min(best[name], (time.perf_counter_ns() - begun_ns) / _CALLS / 1_000)
    return best


def _taking(series: SeriesReader, length: int) -> Callable[[], object]:
    count = series.count
    return lambda: series.valid(series.window(count, length))


def _prepared_us(series: SeriesReader, length: int, calls: int) -> float:
    """Of a window prepared before, which is handed out once: the median of single calls, µs, the clock's own off."""
    count = series.count
    times_ns: list[int] = []
    for _ in range(calls):
        series.prepare(count, length)
        begun_ns = time.perf_counter_ns()
        series.valid(series.window(count, length))
        ended_ns = time.perf_counter_ns()
        times_ns.append(ended_ns - begun_ns - (time.perf_counter_ns() - ended_ns))
    return statistics.median(times_ns) / 1_000


def _copying(series: SeriesReader, length: int) -> Callable[[], object]:
    count = series.count

    def call() -> object:
        window = series.window(count, length)
        copies = [np.array(getattr(window, column)) for column in COLUMNS]
        return series.valid(window), copies

    return call


@contextmanager
def _market(rows: int, guard_rows: int, series: int) -> Iterator[SegmentWriter]:
    with (
        tempfile.TemporaryDirectory(prefix="chandlery-bench-", dir=memory_folder()) as folder,
        SegmentWriter.create(f"{folder}/segment", rows=rows, guard_rows=guard_rows, series=series) as writer,
    ):
        yield writer


def _fill(writer: SegmentWriter, symbol: str, count: int) -> None:
    index = writer.add_series(symbol, "1m")
    for row in candles(0, count):
        writer.append(index, *row, _STAMPS)


def window_times(rounds: int) -> list[Row]:
    """By length; prepared; copied."""
    with _market(_ROWS, _GUARD_ROWS, 1) as writer:
        _fill(writer, "A/B", 2 * _ROWS)
        with SegmentReader.open(writer.path) as reader:
            series = reader.series("A/B", "1m")
            assert series is not None
            work = {f"window_{length}": _taking(series, length) for length in LENGTHS}
            work |= {f"copy_{length}": _copying(series, length) for length in LENGTHS}
            times = _quickest_us(work, rounds)
            prepared_us = _prepared_us(series, 500, _CALLS)
    times_of_windows = [times[f"window_{length}"] for length in LENGTHS]
    rows = [
        Row(
            "window_cost/longest_over_shortest",
            max(times_of_windows) / min(times_of_windows),
            "times",
            goal=GOAL_RATIO,
            note=f"window() and valid(), {LENGTHS[0]} to {LENGTHS[-1]} candles",
        )
    ]
    for length in LENGTHS:
        copied = times[f"copy_{length}"]
        rows.append(Row(f"window_cost/{length}", times[f"window_{length}"], "µs", peer=copied, note="peer: a copy"))
    rows.append(Row("window_cost/prepared_500", prepared_us, "µs", note="made before its last row was there; one call"))
    return rows


def _read_and_wait(path: str, symbols: Sequence[str], control: Any) -> None:
    with SegmentReader.open(path) as reader:
        kept = []
        for symbol in symbols:
            series = reader.series(symbol, "1m")
            assert series is not None
            window = series.window(series.count, 500)
            kept.append((window, float(window.close.sum())))
        control.send("read")
        control.recv()


def _pss_mb(pid: int) -> float:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) * 1_024 / _MB


def memory() -> list[Row]:
    """The file, and what its readers take."""
    rows = []
    for name, kept, guard in (("segment", _ROWS, _GUARD_ROWS), ("segment_1000_readable", _ROWS + 24, 24)):
        with _market(kept, guard, SERIES) as writer:
            size_mb = Path(writer.path).stat().st_blocks * 512 / _MB
        note = f"{SERIES} series of {kept:,} rows, {guard} of them for the writer alone; reserved as a whole"
        rows.append(Row(f"window_cost/{name}", size_mb, "MB", goal=GOAL_SEGMENT_MB, note=note))
    with _market(_ROWS, _GUARD_ROWS, SERIES) as writer, ExitStack() as stack:
        symbols = [f"S{number}/USDT" for number in range(READERS * SERIES_EACH)]
        for symbol in symbols:
            _fill(writer, symbol, _ROWS)
        pids: list[int] = []
        for number in range(READERS):
            ours, theirs = CONTEXT.Pipe()
            own = symbols[number * SERIES_EACH : (number + 1) * SERIES_EACH]
            process = CONTEXT.Process(target=_read_and_wait, args=(writer.path, own, theirs), daemon=True)
            process.start()
            stack.callback(process.join)
            stack.callback(process.kill)
            if not ours.poll(30):
                raise TimeoutError("a reader didn't read within 30 s")
            ours.recv()
            assert process.pid is not None
            pids.append(process.pid)
        pss = [_pss_mb(pid) for pid in pids]
    note = f"mean of {READERS} forks with numpy and {SERIES_EACH} series each, the largest {max(pss):.1f} MB"
    rows.append(Row("window_cost/reader_pss", statistics.fmean(pss), "MB", goal=GOAL_PSS_MB, note=note))
    return rows


def measure(quick: bool) -> list[Row]:
    """Times, then memory."""
    say("windows of 10 to 900 candles")
    rows = window_times(rounds=20 if quick else 200)
    say("a segment of 500 series")
    return rows + memory()


if __name__ == "__main__":
    run(measure, __doc__)
