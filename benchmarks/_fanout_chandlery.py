"""The fan-out by Chandlery's segment, as the feed writes it and a trader reads it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from benchmarks._fanout_stage import Reader, Writer
from benchmarks._fanout_work import CASES, HISTORY, LOOK_AGAIN_S, WINDOW, Case, Leg, Log, candles, pace, strategy_input
from chandlery.core.clocks import now_ns
from chandlery.workers.segment import SegmentReader, SegmentWriter

_NO_STAMPS: Final = (0,) * 8


class _SegmentWriter:
    def __init__(self, writer: SegmentWriter, series: dict[Case, int], readers: int) -> None:
        self._writer = writer
        self._series = series
        self._bells: dict[Case, Sequence[int]] = {"one": [0], "all": list(range(readers))}

    def publish(self, leg: Leg) -> list[int]:
        append, ring_many = self._writer.append, self._writer.ring_many
        series, bells = self._series[leg.case], self._bells[leg.case]
        made = candles(leg.first, leg.candles)
        stamps: list[int] = []
        for stamp_ns, row in zip(pace(leg.candles, leg.period_ns), made, strict=True):
            append(series, row[0], row[1], row[2], row[3], row[4], row[5], row[6], _NO_STAMPS)
            ring_many(bells)
            stamps.append(stamp_ns)
        return stamps


class _SegmentReader:
    def __init__(self, path: str, index: int) -> None:
        self._reader = SegmentReader.open(path)
        self._bell = index
        self._next: dict[Case, int] = dict.fromkeys(CASES, HISTORY)
        self._series = {}
        for case in CASES:
            series = self._reader.series(case, "1m")
            assert series is not None
            self._series[case] = series

    def read(self, case: Case, last_open_ms: int, log: Log) -> None:
        reader, bell, series, ordinal = self._reader, self._bell, self._series[case], self._next[case]
        opened = 0
        token = reader.bell(bell)
        while opened < last_open_ms:
            if ordinal == series.count:
                series.prepare(ordinal + 1, WINDOW)
                token = reader.wait(bell, token, LOOK_AGAIN_S)
                continue
            window = series.window(ordinal + 1, WINDOW)
            in_hand_ns = now_ns()
            strategy_input(window.close)
            opened = window.open_time[-1]
            if not series.valid(window):
                continue
            log.read_ns.append(now_ns())
            log.in_hand_ns.append(in_hand_ns)
            log.open_ms.append(opened)
            ordinal += 1
        self._next[case] = ordinal


class Chandlery:
    """SegmentWriter and SegmentReader: append and ring_many; wait, window, and valid after the reading."""

    name = "chandlery"
    daemons: Sequence[int] = ()

    @contextmanager
    def prepare(self, folder: str, readers: int) -> Iterator[None]:
        """Make the segment with its history."""
        self._path = f"{folder}/segment"
        self._readers = readers
        with SegmentWriter.create(self._path, rows=1_000, series=len(CASES)) as writer:
            self._writer = writer
            self._series: dict[Case, int] = {case: writer.add_series(case, "1m") for case in CASES}
            for series in self._series.values():
                writer.reset(series, 1)
                for candle in candles(0, HISTORY):
                    writer.append(series, *candle, _NO_STAMPS)
            yield

    def writer(self) -> Writer:
        """The feed's side."""
        return _SegmentWriter(self._writer, self._series, self._readers)

    def reader(self, index: int) -> Reader:
        """A trader's side."""
        return _SegmentReader(self._path, index)
