"""Where Chandlery's time from writer to reader goes, step by step: the fan-out once more, with a clock between steps."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np

from benchmarks._fanout_stage import BEHIND_S, CONTEXT, READY_S, Plan, Unmeasured
from benchmarks._fanout_work import HISTORY, LOOK_AGAIN_S, WINDOW, Case, candles, pace, strategy_input
from benchmarks._fleet import memory_folder
from chandlery.core.clocks import now_ns
from chandlery.workers.segment import SegmentReader, SegmentWriter

#: In their order; each ends when the next begins.
STEPS: Final = ("append", "wake", "window", "read", "valid")
_NO_STAMPS: Final = (0,) * 8


class Steps(NamedTuple):
    """Medians over readers and candles, µs; ``ring`` is the writer's call, which goes on while readers run."""

    steps_us: dict[str, float]
    ring_us: float


def _read(path: str, bell: int, count: int, control: Any) -> None:
    with SegmentReader.open(path) as reader:
        series = reader.series("A/B", "1m")
        assert series is not None
        noted: list[tuple[int, int, int, int]] = []
        ordinal, woken_ns = HISTORY, 0
        token = reader.bell(bell)
        gc.freeze()
        control.send("ready")
        while ordinal < HISTORY + count:
            if ordinal == series.count:
                series.prepare(ordinal + 1, WINDOW)
                token = reader.wait(bell, token, LOOK_AGAIN_S)
                woken_ns = now_ns()
                continue
            window = series.window(ordinal + 1, WINDOW)
            in_hand_ns = now_ns()
            strategy_input(window.close)
            read_ns = now_ns()
            if series.valid(window):
                noted.append((woken_ns, in_hand_ns, read_ns, now_ns()))
                ordinal += 1
        control.send(np.array(noted, np.int64).tobytes())


def _receive(control: Any, wait_s: float, what: str) -> Any:
    if not control.poll(wait_s):
        raise Unmeasured(f"{what} not within its time")
    return control.recv()


def steps(case: Case, readers: int, plan: Plan) -> Steps:
    """One run of a case. A candle that came before its reader slept counts with the others.

    Raises:
        Unmeasured: a reader didn't keep up.
    """
    warm, measured = plan.legs(case)
    count = warm.candles + measured.candles
    bells: Sequence[int] = [0] if case == "one" else range(readers)
    with (
        tempfile.TemporaryDirectory(prefix="chandlery-bench-", dir=memory_folder()) as folder,
        SegmentWriter.create(f"{folder}/segment", rows=1_000, series=1) as writer,
        ExitStack() as stack,
    ):
        index = writer.add_series("A/B", "1m")
        for row in candles(0, HISTORY):
            writer.append(index, *row, _NO_STAMPS)
        controls = []
        for bell in range(readers):
            ours, theirs = CONTEXT.Pipe()
            process = CONTEXT.Process(target=_read, args=(writer.path, bell, count, theirs), daemon=True)
            process.start()
            stack.callback(process.join)
            stack.callback(process.kill)
            _receive(ours, READY_S, "a reader ready")
            controls.append(ours)
        wrote: list[tuple[int, int, int]] = []
        for stamp_ns, row in zip(pace(count, measured.period_ns), candles(HISTORY, count), strict=True):
            writer.append(index, row[0], row[1], row[2], row[3], row[4], row[5], row[6], _NO_STAMPS)
            appended_ns = now_ns()
            writer.ring_many(bells)
            wrote.append((stamp_ns, appended_ns, now_ns()))
        logs = [_receive(controls[bell], BEHIND_S, "the last candle read") for bell in bells]
    at = np.array(wrote, np.int64)[warm.candles :]
    read = np.stack([np.frombuffer(log, np.int64).reshape(count, 4) for log in logs])[:, warm.candles :]
    moments = [at[:, 0], at[:, 1], *(read[:, :, column] for column in range(4))]
    medians = [float(np.median(later - earlier)) / 1_000 for earlier, later in pairwise(moments)]
    return Steps(dict(zip(STEPS, medians, strict=True)), float(np.median(at[:, 2] - at[:, 1])) / 1_000)
