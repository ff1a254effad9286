"""One candle from one writer to 1, 5, 10, 20 and 50 readers, each with a window of 500: Chandlery and what else there is.

``one_of_N``: one reader is subscribed to the series that changes, the others elsewhere, 500 candles a second.
``all_N``: all are, 200 candles a second. Figures: p50, p99 and p99.9 from the writer's stamp just before it publishes
until a reader has the 7 columns of its window in hand (``read_p50``: until it has also read the last close and the
sum of closes, and Chandlery has said that what it read was whole), and CPU seconds of all processes, servers too, a million
candles published. A candle that the writer couldn't publish in time counts from when it was due.

Floor: a C program with a futex word a reader over shared memory. Peers, each in the form that was fastest with it,
which is the candle alone (56 bytes) and a window that each reader keeps itself: multiprocessing's Queue and Pipe,
ZeroMQ, iceoryx2, Redis, Kafka. That costs each reader its own copy of every window (28 KB a series of 500), a way to
fill it at its start, and one to hear of a candle revised later, none of which is in these figures; Chandlery's readers share
one copy. The whole window as a message took 1.1 to 2.1 times as long, and Queue and Redis didn't keep up with it.

Mechanisms take turns within each number of readers, in rounds, each in fresh processes that are pinned nowhere.
``--plot FILE`` draws an SVG; ``--table ROWS.json`` prints the tables of docs/performance.md from the rows of ``--json``.
Packages of the peers: ``make bench-peers``; one that is missing is a row ``not_measured`` that says what to install.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks._fanout_chandlery import Chandlery
from benchmarks._fanout_floor import floor
from benchmarks._fanout_iceoryx import Iceoryx
from benchmarks._fanout_kafka import Kafka
from benchmarks._fanout_parts import steps
from benchmarks._fanout_peers import peers
from benchmarks._fanout_report import FLOOR, OURS, PERCENTILES, STEPS, markdown, svg
from benchmarks._fanout_stage import Measured, Mechanism, Plan, Unmeasured, perform
from benchmarks._fanout_work import CASES, Case
from benchmarks.harness import Row, run, say

READERS: Final = (1, 5, 10, 20, 50)
QUICK_READERS: Final = (20,)
#: Two rounds of about 4 minutes; a quick one of 25 s.
ROUNDS: Final = 2
PLAN: Final = Plan(warm=100, one=1_200, all=300, one_period_ns=2_000_000, all_period_ns=5_000_000)
QUICK_PLAN: Final = Plan(warm=60, one=300, all=80, one_period_ns=2_000_000, all_period_ns=5_000_000)
#: The goals are set for this many.
GOAL_READERS: Final = 20
MOST_OF_FLOOR: Final[dict[Case, float]] = {"one": 2.0, "all": 1.5}
LEAST_OF_PEER: Final[dict[Case, float]] = {"one": 10.0, "all": 5.0}

Perform = Callable[[int, Plan], dict[Case, Measured]]


class Found:
    """All that was measured: by mechanism, case and number of readers, a list of rounds; and what was not."""

    def __init__(self) -> None:
        self.measured: dict[tuple[str, Case, int], list[Measured]] = {}
        self.missing: dict[tuple[str, str], list[int]] = {}
        self.steps: list[Row] = []

    def take(self, name: str, readers: int, plan: Plan, work: Perform) -> None:
        """Measure one mechanism with so many readers, or note why not."""
        try:
            for case, measured in work(readers, plan).items():
                self.measured.setdefault((name, case, readers), []).append(measured)
        except Unmeasured as reason:
            say(f"{name}: {reason}")
            self.missing.setdefault((name, str(reason)), []).append(readers)

    def percentile_us(self, name: str, case: Case, readers: int, share: float, *, read: bool = False) -> float | None:
        """Over all rounds' samples, µs."""
        rounds = self.measured.get((name, case, readers))
        if not rounds:
            return None
        samples = np.concatenate([each.read_ns if read else each.in_hand_ns for each in rounds])
        return float(np.quantile(samples, share, method="higher")) / 1_000

    def cpu_s(self, name: str, case: Case, readers: int) -> float | None:
        """CPU seconds of all processes a million candles."""
        rounds = self.measured.get((name, case, readers))
        if not rounds:
            return None
        return sum(each.cpu_ns for each in rounds) / 1e9 / sum(each.candles for each in rounds) * 1e6

    def samples(self, name: str, case: Case, readers: int) -> int:
        """How many latencies."""
        return sum(len(each.in_hand_ns) for each in self.measured[name, case, readers])


def _place(case: Case, readers: int) -> str:
    return f"fanout/{case}_of_{readers}" if case == "one" else f"fanout/all_{readers}"


def _figures(found: Found, names: Sequence[str], case: Case, readers: int) -> Iterator[Row]:
    """Every mechanism's figures of one case; Chandlery's with the best peer's and the floor's."""

    def rows_of(figure: str, unit: str, value: Callable[[str], float | None]) -> Iterator[Row]:
        values = {name: got for name in names if (got := value(name)) is not None}
        best = min((got for name, got in values.items() if name not in (OURS, FLOOR)), default=None)
        for name, got in values.items():
            yield Row(
                f"{_place(case, readers)}/{name}/{figure}",
                got,
                unit,
                peer=best if name == OURS else None,
                floor=values.get(FLOOR) if name == OURS else None,
                note=f"{found.samples(name, case, readers)} samples" if figure == "p50" else "",
            )

    for label, share in PERCENTILES.items():
        yield from rows_of(label, "µs", lambda name, share=share: found.percentile_us(name, case, readers, share))  # type: ignore[misc]
    yield from rows_of("read_p50", "µs", lambda name: found.percentile_us(name, case, readers, 0.5, read=True))
    yield from rows_of("cpu", "CPU s/million", lambda name: found.cpu_s(name, case, readers))


def _ratios(found: Found, names: Sequence[str], case: Case) -> Iterator[Row]:
    """The goals: how many times the floor's p50 Chandlery's is, and each peer's Chandlery's."""
    p50 = {name: found.percentile_us(name, case, GOAL_READERS, 0.5) for name in names}
    ours, lowest = p50.get(OURS), p50.get(FLOOR)
    if ours is None:
        return
    place = _place(case, GOAL_READERS)
    if lowest is not None:
        yield Row(f"{place}/{OURS}_over_{FLOOR}", ours / lowest, "times", goal=MOST_OF_FLOOR[case], note="p50")
    for name, value in p50.items():
        if value is not None and name not in (OURS, FLOOR):
            goal = LEAST_OF_PEER[case]
            yield Row(f"{place}/{name}_over_{OURS}", value / ours, "times", goal=goal, direction="at least", note="p50")


def _take_steps(found: Found, plan: Plan) -> None:
    """Where Chandlery's time goes, at the goals' number of readers."""
    for case in CASES:
        say(f"steps, {case}")
        try:
            taken = steps(case, GOAL_READERS, plan)
        except Unmeasured as reason:
            found.missing.setdefault((f"{OURS} by steps", str(reason)), []).append(GOAL_READERS)
            continue
        place = f"{_place(case, GOAL_READERS)}/{STEPS}"
        found.steps += [Row(f"{place}/{step}", value, "µs", note="median") for step, value in taken.steps_us.items()]
        found.steps.append(Row(f"{place}/ring", taken.ring_us, "µs", note="the writer's call, beside the wake-ups"))


def rows_of(found: Found, names: Sequence[str], readers: Sequence[int]) -> list[Row]:
    """The goals first, then all figures, then what wasn't measured."""
    rows = [row for case in CASES for row in _ratios(found, names, case)]
    for case in CASES:
        for count in readers:
            if case == "one" or count > 1:
                rows += _figures(found, names, case, count)
    rows += found.steps
    for (name, reason), counts in found.missing.items():
        at = ", ".join(map(str, sorted(set(counts))))
        rows.append(Row(f"fanout/not_measured/{name}", float(len(counts)), "turns", note=f"{at} readers: {reason}"))
    return rows


def measure(quick: bool) -> list[Row]:
    """All mechanisms in turns."""
    counts, plan, rounds = (QUICK_READERS, QUICK_PLAN, 1) if quick else (READERS, PLAN, ROUNDS)
    kafka = Kafka()
    mechanisms: list[Mechanism] = [Chandlery(), *peers(), Iceoryx(), kafka]

    def by(mechanism: Mechanism) -> Perform:
        return lambda readers, plan: perform(mechanism, readers, plan)

    turns: list[tuple[str, Perform]] = [(FLOOR, floor), *((each.name, by(each)) for each in mechanisms)]
    found = Found()
    with tempfile.TemporaryDirectory(prefix="chandlery-bench-") as folder, kafka.broker(Path(folder)):
        for number in range(rounds):
            for readers in counts:
                say(f"round {number + 1} of {rounds}: {readers} readers")
                for name, work in turns:
                    found.take(name, readers, plan, work)
        _take_steps(found, plan)
    return rows_of(found, [name for name, _ in turns], counts)


if __name__ == "__main__":
    run(measure, __doc__, plot=svg, markdown=markdown)
