"""The processes of one mechanism: one writer, many readers, what they noted, and what CPU time all of them took."""

from __future__ import annotations

import gc
import multiprocessing
import multiprocessing.connection
import os
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.process import BaseProcess
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks._fanout_work import CASES, EPOCH_MS, HISTORY, STEP_MS, Case, Leg, Log
from benchmarks._fleet import memory_folder

#: All are forks of this process: fifty interpreters would take longer to start than to measure.
CONTEXT: Final = multiprocessing.get_context("fork")
#: For fifty consumers to join a broker on two busy cores; what else happens here takes a second.
READY_S: Final = 60.0
#: Beyond a leg's own time: a mechanism that is this far behind doesn't keep up.
BEHIND_S: Final = 30.0


Latencies = NDArray[np.int64]
#: A reader's log as it comes from its process: open times, float64; in hand and read, int64 ns.
Packed = tuple[bytes, bytes, bytes]


class Plan(NamedTuple):
    """How many candles at which pace, the same for every mechanism.

    Attributes:
        warm: candles of each case left out. one, all: candles measured. one_period_ns, all_period_ns: between them.
    """

    warm: int
    one: int
    all: int
    one_period_ns: int
    all_period_ns: int

    def legs(self, case: Case) -> tuple[Leg, Leg]:
        """The warm leg and the measured one."""
        count, period_ns = (self.one, self.one_period_ns) if case == "one" else (self.all, self.all_period_ns)
        return Leg(case, HISTORY, self.warm, period_ns), Leg(case, HISTORY + self.warm, count, period_ns)


class Measured(NamedTuple):
    """One case.

    Attributes:
        in_hand_ns: from the writer's stamp until a reader had its window in hand, of each reader and candle.
        read_ns: until it had also read it, and knew that what it read was whole.
        cpu_ns: CPU time of all processes over the measured candles. candles: published, however many read them.
    """

    in_hand_ns: Latencies
    read_ns: Latencies
    cpu_ns: int
    candles: int


class Unmeasured(Exception):
    """A mechanism that can't be measured here; its text says why, and what to install."""


class Writer(Protocol):
    """The one process that publishes."""

    def publish(self, leg: Leg) -> list[int]:
        """Publish a leg's candles in its pace; their stamps, monotonic ns."""


class Reader(Protocol):
    """A process that takes a window for every candle."""

    def read(self, case: Case, last_open_ms: int, log: Log) -> None:
        """Until the candle of that open time has been read; notes each."""


class Mechanism(Protocol):
    """One way to hand candles to many processes."""

    name: str

    @property
    def daemons(self) -> Sequence[int]:
        """Process ids of servers in between, whose CPU time counts."""

    def prepare(self, folder: str, readers: int) -> Any:
        """A context manager around the processes: what must be there before they fork.

        Raises:
            Unmeasured: a package or a server is missing.
        """

    def writer(self) -> Writer:
        """Made in the writer's process, when all readers are ready."""

    def reader(self, index: int) -> Reader:
        """Made in a reader's process; when this returns, nothing published later is missed."""


def cpu_ns(pid: int) -> int:
    """CPU time of a process with all its threads, ended ones too, exact to the nanosecond."""
    return time.clock_gettime_ns((~pid << 3) | 2)  # what clock_getcpuclockid(3) makes of a process id


def _read_all(mechanism: Mechanism, index: int, plan: Plan, cases: Sequence[Case], control: Any) -> None:
    reader = mechanism.reader(index)
    gc.freeze()
    control.send("ready")
    for case in cases:
        for leg in plan.legs(case):
            log = Log()
            reader.read(case, leg.last_open_ms, log)
            control.send(log.packed())
    control.recv()  # stays, as a trader does, until all is measured


def _write_all(mechanism: Mechanism, control: Any) -> None:
    writer = mechanism.writer()
    gc.freeze()
    control.send("ready")
    while (leg := control.recv()) is not None:
        control.send(writer.publish(leg))


def _child(work: Callable[..., None], *arguments: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        work(*arguments)
    except EOFError:
        pass  # the parent has given up
    except BaseException:  # noqa: BLE001 - told, and the parent notes that this process ended early
        traceback.print_exc()
        os._exit(1)
    os._exit(0)  # no destructor of a mechanism may hold the others up


class _Process(NamedTuple):
    process: BaseProcess
    control: multiprocessing.connection.Connection

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def receive(self, deadline_s: float, what: str) -> Any:
        if not self.control.poll(max(0.0, deadline_s - time.monotonic())):
            raise Unmeasured(f"{what} not within its time")
        try:
            return self.control.recv()
        except EOFError:
            raise Unmeasured(f"a process ended before: {what}") from None


@contextmanager
def _started(work: Callable[..., None], *arguments: Any) -> Iterator[_Process]:
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=_child, args=(work, *arguments, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield _Process(process, ours)
    finally:
        process.kill()  # it has said all it had to say; nothing of its own outlives it but what the folder holds
        process.join()
        ours.close()


def _latencies(leg: Leg, stamps: Sequence[int], logs: Sequence[Packed]) -> tuple[Latencies, Latencies]:
    at = np.asarray(stamps, np.int64)
    in_hand: list[Latencies] = []
    read: list[Latencies] = []
    for packed in logs:
        numbers = ((np.frombuffer(packed[0]) - EPOCH_MS) / STEP_MS).astype(np.int64) - leg.first
        if len(numbers) != leg.candles or not np.array_equal(numbers, np.arange(leg.candles)):
            raise Unmeasured(f"a reader got {len(numbers)} of {leg.candles} candles, or not in order")
        in_hand.append(np.frombuffer(packed[1], np.int64) - at)
        read.append(np.frombuffer(packed[2], np.int64) - at)
    return np.concatenate(in_hand), np.concatenate(read)


def _run_leg(leg: Leg, writer: _Process, readers: Sequence[_Process]) -> tuple[Latencies, Latencies]:
    deadline_s = time.monotonic() + leg.candles * leg.period_ns / 1e9 + BEHIND_S
    writer.control.send(leg)
    logs = [reader.receive(deadline_s, "the last candle read") for reader in readers]
    return _latencies(leg, writer.receive(deadline_s, "the last candle published"), logs)


def perform(mechanism: Mechanism, readers: int, plan: Plan) -> dict[Case, Measured]:
    """Both cases with one set of processes. With one reader both are the same: it is measured as ``one``.

    Raises:
        Unmeasured: it can't be measured here, or didn't keep up.
    """
    cases: Sequence[Case] = CASES if readers > 1 else ("one",)
    found: dict[Case, Measured] = {}
    with (
        tempfile.TemporaryDirectory(prefix="chandlery-bench-", dir=memory_folder()) as folder,
        mechanism.prepare(folder, readers),
        ExitStack() as stack,
    ):
        started = []
        for index in range(readers):
            of_reader = cases if index == 0 else [case for case in cases if case == "all"]
            started.append(stack.enter_context(_started(_read_all, mechanism, index, plan, of_reader)))
        deadline_s = time.monotonic() + READY_S
        for each in started:
            each.receive(deadline_s, "a reader ready")
        writer = stack.enter_context(_started(_write_all, mechanism))
        writer.receive(deadline_s, "the writer ready")
        pids = [writer.pid, *(each.pid for each in started), *mechanism.daemons]
        for case in cases:
            subscribed = started[:1] if case == "one" else started
            warm, measured = plan.legs(case)
            _run_leg(warm, writer, subscribed)
            before_ns = sum(map(cpu_ns, pids))
            in_hand_ns, read_ns = _run_leg(measured, writer, subscribed)
            found[case] = Measured(in_hand_ns, read_ns, sum(map(cpu_ns, pids)) - before_ns, measured.candles)
    return found
