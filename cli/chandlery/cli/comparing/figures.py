"""From signals and what processes took to the figures of a comparison. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from chandlery.cli.comparing.market import Group, Step
from chandlery.cli.comparing.result import LEAST_FOR_P999, TRANSPORTS, Measured, Ratios, SideBySide, Size, Spread
from chandlery.cli.comparing.taken import Look, Processes
from chandlery.core.latency import account
from chandlery.core.signals import Signal
from chandlery.core.transports import Transport

#: Symbol and open time of a candle.
CandleOf = tuple[str, int]


@dataclass(frozen=True)
class Observed:
    """One step's measurement. ``processes``, ``before``, ``after``, ``pss``: of the worker; ``pss`` in bytes by pid."""

    step: Step
    processes: Processes
    before: Look
    after: Look
    pss: Mapping[int, int] = field(default_factory=dict)


def spread(values_us: Sequence[float]) -> Spread:
    """Percentiles by nearest rank."""
    if not values_us:
        return Spread()
    ordered = sorted(values_us)

    def rank(thousandths: int) -> float:
        return round(ordered[max(0, -(-thousandths * len(ordered) // 1_000) - 1)], 1)

    return Spread(rank(500), rank(990), rank(999) if len(ordered) >= LEAST_FOR_P999 else None, len(ordered))


def within(observed: Observed, signals: Iterable[Signal], group: Group) -> list[Signal]:
    """A group's signals on candles that became visible while it was measured."""
    names = {f"default/{name}" for name in group.names}
    begun_ns, ended_ns = observed.before.at_ns, observed.after.at_ns
    return [one for one in signals if one.trader in names and begun_ns <= one.stamps.published_ns < ended_ns]


def measured(observed: Observed, signals: Iterable[Signal]) -> Measured:
    """What the traders of a step with one transport took."""
    (group,) = observed.step.groups
    mine = within(observed, signals, group)
    decided, whole = latencies(mine)
    on_close = observed.step.trigger == "CandleClose"
    decided_on = candles_by_trader(mine)
    candles: set[CandleOf] = set().union(*decided_on.values()) if decided_on else set()
    processes = observed.processes
    traders = list(processes.traders.values())
    return Measured(
        visible_to_decided_us=spread(decided),
        frame_to_signal_us=spread(whole),
        trader_cpu_percent=_mean(_percents(observed, traders)),
        feed_cpu_percent=_mean(_percents(observed, [processes.feed])),
        worker_cpu_percent=round(sum(_percents(observed, processes.all())), 2),
        trader_pss_bytes=round(_mean([observed.pss[pid] for pid in traders if pid in observed.pss])),
        feed_pss_bytes=observed.pss.get(processes.feed, 0),
        worker_pss_bytes=sum(observed.pss.values()),
        candles=len(candles),
        # A candle that forms may be decided a moment sooner by one than by the other, and so before the measurement.
        missed=len(candles) * len(group.names) - sum(map(len, decided_on.values())) if on_close else 0,
    )


def latencies(signals: Iterable[Signal]) -> tuple[list[float], list[float]]:
    """Visible → decided and frame → signal, µs, of the signals that have an account of them."""
    decided: list[float] = []
    whole: list[float] = []
    for signal in signals:
        told = account(signal.stamps)
        if told.visible_to_decided_us is not None:
            decided.append(told.visible_to_decided_us)
        if told.frame_to_signal_us is not None:
            whole.append(told.frame_to_signal_us)
    return decided, whole


def candles_by_trader(signals: Iterable[Signal]) -> dict[str, set[CandleOf]]:
    """The candles that each Trader has decided."""
    found: defaultdict[str, set[CandleOf]] = defaultdict(set)
    for one in signals:
        found[one.trader].add((one.symbol, one.open_time_ms))
    return dict(found)


def _percents(observed: Observed, pids: Iterable[int]) -> list[float]:
    found = [observed.after.percent_since(observed.before, pid) for pid in pids]
    return [each for each in found if each is not None]


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 3) if values else 0.0


def sizes_of(found: Mapping[tuple[int, Transport], Measured]) -> list[Size]:
    """By number of traders, those measured on both transports."""
    sizes = dict.fromkeys(size for size, _ in found)
    return [
        Size(
            size, {each: found[size, each] for each in TRANSPORTS}, ratios(*(found[size, each] for each in TRANSPORTS))
        )
        for size in sizes
        if all((size, each) in found for each in TRANSPORTS)
    ]


def ratios(shared: Measured, piped: Measured) -> Ratios:
    """Pipe ÷ shared memory."""
    return Ratios(
        visible_to_decided_p50=_ratio(shared.visible_to_decided_us.p50, piped.visible_to_decided_us.p50),
        visible_to_decided_p99=_ratio(shared.visible_to_decided_us.p99, piped.visible_to_decided_us.p99),
        frame_to_signal_p50=_ratio(shared.frame_to_signal_us.p50, piped.frame_to_signal_us.p50),
        frame_to_signal_p99=_ratio(shared.frame_to_signal_us.p99, piped.frame_to_signal_us.p99),
        trader_cpu=_ratio(shared.trader_cpu_percent, piped.trader_cpu_percent),
        feed_cpu=_ratio(shared.feed_cpu_percent, piped.feed_cpu_percent),
        worker_cpu=_ratio(shared.worker_cpu_percent, piped.worker_cpu_percent),
        trader_pss=_ratio(shared.trader_pss_bytes, piped.trader_pss_bytes),
        worker_pss=_ratio(shared.worker_pss_bytes, piped.worker_pss_bytes),
    )


def _ratio(shared: float | None, piped: float | None) -> float | None:
    return round(piped / shared, 2) if shared and piped else None


def side_by_side(observed: Observed, signals: Sequence[Signal]) -> SideBySide:
    """Whether the same candles were decided alike on both transports.

    Trader by trader: the first on shared memory against the first on pipes, and so on. What only one of them had to
    decide while both were looked at doesn't count: the last candles of the measurement may still be on their way.
    """
    spreads: dict[Transport, Spread] = {}
    said: dict[Transport, list[dict[CandleOf, tuple[object, ...]]]] = {}
    for group in observed.step.groups:
        mine = within(observed, signals, group)
        spreads[group.transport] = spread(latencies(mine)[0])
        by_trader: dict[str, dict[CandleOf, tuple[object, ...]]] = {f"default/{name}": {} for name in group.names}
        for one in mine:
            told = (one.action, one.rule, one.reason, one.price, one.revision)
            by_trader[one.trader][one.symbol, one.open_time_ms] = told
        said[group.transport] = list(by_trader.values())
    decisions = different = 0
    for shared, piped in zip(said["SharedMemory"], said["Pipe"], strict=True):
        both = shared.keys() & piped.keys()
        decisions += len(both)
        different += sum(shared[candle] != piped[candle] for candle in both)
    return SideBySide(observed.step.size, decisions, different, spreads)


#: Less than this is no difference worth a decision: two runs of the same differ by as much.
_ALIKE: Final = 1.15


def advice_of(sizes: Sequence[Size]) -> str:
    """What to choose, in plain words, by the greatest number of traders."""
    if not sizes:
        return "Nothing was measured, so nothing can be said."
    size = max(sizes, key=lambda one: one.traders)
    of = size.ratios
    better = _in_words(of, 1.0)
    worse = _in_words(of, -1.0)
    many = "trader" if size.traders == 1 else "traders"
    at = f"With {size.traders} {many} "
    if better and not worse:
        return f"{at}shared memory {better}: keep it. Pipes are for machines without shared memory."
    if worse and not better:
        return f"{at}shared memory {worse}: pipes do as well here; measure on the machine that counts."
    if better:
        return f"{at}shared memory {better}, but it {worse}: keep it unless that matters more to you."
    return f"{at}the two differ by no more than two runs do: keep shared memory."


def _in_words(of: Ratios, sign: float) -> str:
    """What shared memory does better (sign 1) or worse (-1) than pipes; empty: nothing."""
    quicker = _beyond(of.visible_to_decided_p50, sign)
    told = [] if quicker is None else [f"decides {quicker:.1f} times {'sooner' if sign > 0 else 'later'}"]
    costs = [
        f"{1 - 1 / ratio:.0%} less {what}" if sign > 0 else f"{ratio - 1:.0%} more {what}"
        for what, ratio in (("CPU", _beyond(of.worker_cpu, sign)), ("memory", _beyond(of.worker_pss, sign)))
        if ratio is not None
    ]
    if costs:
        told.append(f"takes {' and '.join(costs)}")
    return " and ".join(told)


def _beyond(ratio: float | None, sign: float) -> float | None:
    """How many times better (1) or worse (-1), where that is more than runs differ by."""
    times = None if ratio is None else ratio**sign
    return times if times is not None and times > _ALIKE else None
