"""What the comparison's tests share: made-up signals, looks and results."""

from __future__ import annotations

from typing import Any

from chandlery.cli.comparing.figures import Observed, advice_of, ratios
from chandlery.cli.comparing.market import Group, Step
from chandlery.cli.comparing.result import Comparison, Conditions, Machine, Measured, SideBySide, Size, Spread
from chandlery.cli.comparing.taken import Look, Processes
from chandlery.core.assignment import Trigger
from chandlery.core.signals import Signal, SignalStamps
from chandlery.core.transports import Transport

SECOND_NS = 1_000_000_000


def group(transport: Transport, *names: str, pool: Transport = "SharedMemory") -> Group:
    return Group(transport, pool, names)


def signal(trader: str, open_s: int, *, at_ns: int, decided_us: int = 100, **changes: Any) -> Signal:
    """A signal on a candle that became visible at ``at_ns``; its frame came 2 ms before, its acknowledgement 3 ms after."""
    stamps = SignalStamps(
        received_ns=at_ns - 2_000_000,
        published_ns=at_ns,
        decided_ns=at_ns + decided_us * 1_000,
        acknowledged_ns=at_ns + 3_000_000,
    )
    said: dict[str, Any] = {"action": "buy", "reason": f"mean {open_s}", "price": "1", "rule": "above", **changes}
    return Signal(
        id=f"{trader} {open_s} {changes}",
        trader=f"default/{trader}",
        strategy="window-mean",
        code="c",
        ordinal=0,
        symbol="C00/USDT",
        interval="1s",
        open_time_ms=open_s * 1_000,
        session=1,
        strength=1.0,
        stamps=stamps,
        **said,
    )


def observed(*groups: Group, cpu_ms: int = 10, trigger: Trigger = "CandleClose") -> Observed:
    """Two seconds, from 10 s to 12 s; each process took ``cpu_ms``, times its pid."""
    traders = {f"default/{name}": 3 + at for at, name in enumerate(name for one in groups for name in one.names)}
    processes = Processes(1, (2,), traders)
    before = Look(10 * SECOND_NS, dict.fromkeys(processes.all(), 7), busy_ns=0)
    after = Look(12 * SECOND_NS, {pid: 7 + pid * cpu_ms * 1_000_000 for pid in processes.all()}, busy_ns=2 * SECOND_NS)
    pss = {pid: pid * 1_000_000 for pid in processes.all()}
    return Observed(Step(len(groups[0].names), groups, trigger), processes, before, after, pss)


def figures(p50_us: float, cpu: float, pss: int, count: int = 100) -> Measured:
    return Measured(
        Spread(p50_us, p50_us * 4, None, count),
        Spread(p50_us * 10, p50_us * 40, None, count),
        cpu / 20, cpu / 2, cpu, pss // 20, pss // 4, pss, 10, 0,
    )  # fmt: skip


def comparison(*sizes: tuple[int, Measured, Measured], **changes: Any) -> Comparison:
    """A result of these sizes: shared memory's figures, and pipes'."""
    made = [
        Size(traders, {"SharedMemory": shared, "Pipe": piped}, ratios(shared, piped))
        for traders, shared, piped in sizes
    ]
    both: dict[Transport, Spread] = {"SharedMemory": Spread(50.0, 60.0, None, 9), "Pipe": Spread(70.0, 80.0, None, 9)}
    return Comparison(
        version="1",
        machine=Machine(2, 8 * 2**30, "6.1", "3.11"),
        conditions=Conditions([one.traders for one in made], 8, 20.0, 10, "CandleClose", 500),
        sizes=made,
        side_by_side=SideBySide(2, 40, 0, both),
        advice=advice_of(made),
        **changes,
    )
