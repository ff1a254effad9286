"""The peers and the floors of a wake-up: the same rounds with other mechanisms, 20 processes each."""

from __future__ import annotations

import gc
import multiprocessing
import multiprocessing.connection
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks._fleet import WINDOW
from chandlery.core.clocks import now_ns
from chandlery.workers.candles import COLUMNS, Candles
from chandlery.workers.segment import SegmentReader, SegmentWriter
from chandlery.workers.strategies.sma_cross import SmaCross
from chandlery.workers.strategy import Context

Channel = Literal["Queue", "Pipe"]
Handed = tuple[int, NDArray[np.float64]]
#: All spawned from here are forks: twenty interpreters would take longer to start than to measure.
_CONTEXT: Final = multiprocessing.get_context("fork")


def pace(rounds: int, period_s: float) -> Iterator[int]:
    """Yield 0 … rounds - 1 at an even pace."""
    due = time.monotonic()
    for number in range(rounds):
        due = max(due + period_s, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))
        yield number


def _decide(receive: Callable[[], Handed | None], results: Any, parameters: dict[str, int]) -> None:
    """A process that gets windows handed over: the same strategy on the same window as a trader's."""
    strategy = SmaCross(parameters)
    taken: list[int] = []
    gc.freeze()
    while (handed := receive()) is not None:
        visible_ns, window = handed
        columns = Candles.__new__(Candles)
        for name, column in zip(COLUMNS, window, strict=True):
            setattr(columns, name, column)
        working = strategy.fork()
        working.on_candle(Context("ALL/USDT", "1s", working.parameters), columns)
        taken.append(now_ns() - visible_ns)
    results.send(taken)


def hand_over(
    channel: Channel, *, processes: int, subscribed: int, rounds: int, warm_rounds: int, period_s: float
) -> list[int]:
    """Hand a 7 × 500 window of float64 to ``subscribed`` of ``processes`` in each round.

    Returns:
        Nanoseconds from the hand-over's begin to the decision, of each of them and each round after the warm ones.
    """
    sends: list[Callable[[Handed | None], None]] = []
    started: list[BaseProcess] = []
    results: list[multiprocessing.connection.Connection] = []
    for index in range(processes):
        receive: Callable[[], Handed | None]
        if channel == "Queue":
            queue: Any = _CONTEXT.Queue()
            receive, send = queue.get, queue.put
        else:
            theirs, ours = _CONTEXT.Pipe(duplex=False)
            receive, send = theirs.recv, ours.send
        sends.append(send)
        result, back = _CONTEXT.Pipe(duplex=False)
        results.append(result)
        parameters = {"fast": 2 + index, "slow": 30}
        process: BaseProcess = _CONTEXT.Process(target=_decide, args=(receive, back, parameters), daemon=True)
        process.start()
        started.append(process)
    window = np.cumsum(np.random.default_rng(7).normal(size=(len(COLUMNS), WINDOW)), axis=1) + 1_000
    for _ in pace(warm_rounds + rounds, period_s):
        window[:, :-1] = window[:, 1:]  # a window that goes on, as the segment's does
        visible_ns = now_ns()
        for send in sends[:subscribed]:
            send((visible_ns, window))
    for send in sends:
        send(None)
    samples = [sample for result in results for sample in result.recv()[warm_rounds:]]
    for process in started:
        process.join()
    return samples


def _wake(path: str, bell: int, rounds: int, results: Any) -> None:
    with SegmentReader.open(path) as reader:
        woken: list[tuple[int, int]] = []
        gc.freeze()
        seen = reader.bell(bell)
        results.send(None)
        while seen < rounds:
            value = reader.wait(bell, seen, 1.0)
            if value != seen:
                woken.append((value, now_ns()))
                seen = value
        results.send(woken)


def bare_wakes(
    folder: str, *, processes: int, subscribed: int, rounds: int, warm_rounds: int, period_s: float
) -> list[int]:
    """The extension's wait and wake without a trader: ns from just before the ring to the waiter's next line."""
    total = warm_rounds + rounds
    with (
        SegmentWriter.create(f"{folder}/bare", rows=128, series=1) as writer,
        _waiters(writer, processes, total) as ups,
    ):
        rung_ns: list[int] = []
        for _ in pace(total, period_s):
            rung_ns.append(now_ns())
            writer.ring_many(range(subscribed))
        samples: list[int] = []
        for result in ups[:subscribed]:
            samples += [at_ns - rung_ns[value - 1] for value, at_ns in result.recv() if value > warm_rounds]
    return samples


@contextmanager
def _waiters(
    writer: SegmentWriter, processes: int, rounds: int
) -> Iterator[Sequence[multiprocessing.connection.Connection]]:
    started: list[BaseProcess] = []
    results: list[multiprocessing.connection.Connection] = []
    for bell in range(processes):
        result, back = _CONTEXT.Pipe(duplex=False)
        process: BaseProcess = _CONTEXT.Process(target=_wake, args=(writer.path, bell, rounds, back), daemon=True)
        process.start()
        started.append(process)
        results.append(result)
    try:
        for result in results:
            result.recv()
        yield results
    finally:
        for process in started:
            process.kill()
            process.join()


def c_wakes(*, processes: int, subscribed: int, rounds: int, period_s: float) -> list[int] | None:
    """The same in C, compiled on the fly: ns; None where there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    source = Path(__file__).with_name("_futex_floor.c")
    with tempfile.TemporaryDirectory(prefix="chandlery-bench-") as folder:
        program = f"{folder}/futex_floor"
        subprocess.run([compiler, "-O2", "-o", program, str(source)], check=True)
        words = [program, str(processes), str(rounds), str(round(period_s * 1e6)), str(subscribed)]
        done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    return [int(line) for line in done.stdout.split()]
