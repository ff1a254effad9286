"""CPU of persistent traders against a process per decision: CPU seconds per 1,000 decisions.

Ours: 20 real trader processes, all on one series, one candle every 5 ms, each decision an ``sma-cross`` on 500
candles; CPU of all of them (bell, window, strategy, state, status), by /proc. Peers: a Python process per
decision (fork and exec, the same strategy and window from the same segment), and a fork per decision from a
process that has everything loaded, as a fork server gives; their own CPU and their parent's for starting them.
Floor: the decision alone, in a loop, without a process or a wake-up.
"""

from __future__ import annotations

import gc
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Final

from benchmarks._fleet import WINDOW, Fleet, Market, crosser, memory_folder
from benchmarks._handover import pace
from benchmarks._one_decision import decide
from benchmarks._processes import cpu_s
from benchmarks.harness import Row, run, say

TRADERS: Final = 20
PERIOD_S: Final = 0.005
_SYMBOL: Final = "BUSY/USDT"


def persistent_cpu_s(folder: str, market: Market, rounds: int) -> float:
    """CPU seconds of 1,000 decisions of real traders."""
    traders = [crosser(f"trader-{index}", _SYMBOL, fast=10, slow=30) for index in range(TRADERS)]
    with Fleet(folder, market.path, traders) as fleet:
        warm = 50
        for number in pace(warm, PERIOD_S):
            market.publish(_SYMBOL, 100.0 + number % 7, range(TRADERS))
        fleet.await_calls([warm] * TRADERS)
        begun_s = sum(cpu_s(pid) for pid in fleet.pids)
        for number in pace(rounds, PERIOD_S):
            market.publish(_SYMBOL, 100.0 + number % 7, range(TRADERS))
        fleet.await_calls([warm + rounds] * TRADERS)
        used_s = sum(cpu_s(pid) for pid in fleet.pids) - begun_s
    return used_s / (rounds * TRADERS) * 1_000


def _children_and_self_s() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def per_process_cpu_s(start_one: Callable[[], None], decisions: int) -> float:
    """CPU seconds of 1,000 decisions, each a process that is started and waited for."""
    start_one()
    begun_s = _children_and_self_s()
    for _ in range(decisions):
        start_one()
    return (_children_and_self_s() - begun_s) / decisions * 1_000


def _fork_one(path: str) -> None:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            decide(path, _SYMBOL, "1s")
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    if status:
        raise ChildProcessError(f"a decision's process ended with {os.waitstatus_to_exitcode(status)}")


def _execute_one(words: list[str]) -> None:
    subprocess.run(words, check=True)


def decision_alone_cpu_s(path: str, decisions: int) -> float:
    """CPU seconds of 1,000 decisions in a loop, the segment opened once each as by the peers."""
    decide(path, _SYMBOL, "1s")
    begun_s = time.process_time()
    for _ in range(decisions):
        decide(path, _SYMBOL, "1s")
    return (time.process_time() - begun_s) / decisions * 1_000


def measure(quick: bool) -> list[Row]:
    """Ours, both peers, the floor."""
    rounds, execs, forks = (500, 25, 400) if quick else (4_000, 150, 3_000)
    with tempfile.TemporaryDirectory(prefix="chandlery-bench-", dir=memory_folder()) as folder:
        market = Market(folder, [_SYMBOL])
        market.fill(_SYMBOL, [100.0 + number % 7 for number in range(WINDOW + 50)])
        say("persistent traders")
        ours = persistent_cpu_s(folder, market, rounds)
        gc.freeze()
        say("a fork per decision")
        forked = per_process_cpu_s(lambda: _fork_one(market.path), forks)
        say("a process per decision")
        words = [sys.executable, "-m", "benchmarks._one_decision", market.path, _SYMBOL, "1s"]
        executed = per_process_cpu_s(lambda: _execute_one(words), execs)
        floor = decision_alone_cpu_s(market.path, 5_000)
        market.writer.close()
    counts = f"{rounds * TRADERS:,} decisions; of the peers {forks:,} and {execs:,}"
    return [
        Row("persistence/traders", ours, "CPU s/1,000", min(forked, executed), floor, note=counts),
        Row("persistence/fork_each", forked, "CPU s/1,000", note="fork from a process that has all loaded"),
        Row("persistence/process_each", executed, "CPU s/1,000", note="python started for each decision"),
        Row(
            "persistence/fork_each_over_traders",
            forked / ours,
            "times",
            goal=1.0,
            direction="at least",
            note="a fork per decision needs so many times the CPU",
        ),
        Row(
            "persistence/process_each_over_traders",
            executed / ours,
            "times",
            goal=1.0,
            direction="at least",
            note="a process per decision needs so many times the CPU",
        ),
    ]


if __name__ == "__main__":
    run(measure, __doc__)
