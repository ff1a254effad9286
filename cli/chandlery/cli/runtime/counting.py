"""A run's counts, from what every part says at its end; pure but for reading memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from chandlery.cli.collecting import Collected
from chandlery.console.summary import (
    SETTLING_S,
    CandleCounts,
    LatencyFigures,
    MemoryFigures,
    SignalCounts,
    Summary,
    TradeCounts,
    TraderCounts,
    count_problems,
    quantiles_us,
    trader_problems,
)
from chandlery.core.latency import STAGES, account
from chandlery.core.signals import Signal

Status = Mapping[str, Any]
_NO_SESSION: Final = -1
#: Counters of a trader's ring that tell what it left out.
TRADER_DROPS: Final = ("stale", "lapped", "cooled_down")


@dataclass
class FeedEvidence:
    """What one feed's processes say. ``ingest``: see FeedGroup.ingest_counts; ``exact``: nothing of it is lost."""

    ingest: Counter[str]
    exact: bool
    aggregator: Status
    baseline: Status


@dataclass
class WorkerEvidence:
    """What one worker says.

    Attributes:
        feed: the ``feed`` part of its status; of the process that runs now. whole: that process is the first.
        traders: restarts by Trader. rings: counters by incarnation since the run began, see RingCounts.grown.
    """

    feed: Status
    whole: bool
    restarts: Mapping[str, int]
    rings: Mapping[str, Counter[str]]


@dataclass
class Evidence:
    """Everything a summary is made of.

    Attributes:
        desired: names of Traders that are to run. not_ready: those that never became Ready, and why.
        signals: what stands on the signals topics since the run began.
        causes: why counts may not add up. behind_ms: the furthest each part that lagged was behind.
        problems: what went wrong at the end. all_read: whether the aggregators read all that ingest appended.
    """

    version: str
    session: int
    seconds: float
    desired: list[str]
    not_ready: list[tuple[str, str]]
    feeds: list[FeedEvidence] = field(default_factory=list)
    workers: list[WorkerEvidence] = field(default_factory=list)
    signals: Collected = field(default_factory=Collected)
    memory: dict[str, MemoryFigures] = field(default_factory=dict)
    restarts: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    causes: list[str] = field(default_factory=list)
    behind_ms: dict[str, int] = field(default_factory=dict)
    all_read: bool = True


def summarise(evidence: Evidence) -> Summary:
    """The run's summary."""
    trades, candles, drops = TradeCounts(), CandleCounts(), Counter[str]()
    for feed in evidence.feeds:
        _add_feed(feed, trades, candles, drops)
    for worker in evidence.workers:
        drops.update({reason: number for reason, number in worker.feed.get("drops", {}).items()})
        for counts in worker.rings.values():
            drops.update({f"trader_{name}": counts[name] for name in TRADER_DROPS})
    signals = signal_counts(evidence.workers, evidence.signals)
    wrong = count_problems(trades, signals, all_read=evidence.all_read)
    return Summary(
        version=evidence.version,
        session=evidence.session,
        seconds=round(evidence.seconds, 1),
        reconciles=not wrong,
        problems=[*trader_problems(evidence.not_ready), *evidence.causes, *wrong, *evidence.problems],
        traders=TraderCounts(
            desired=len(evidence.desired),
            ready=len(evidence.desired) - len(evidence.not_ready),
            restarts=sum(number for worker in evidence.workers for number in worker.restarts.values()),
        ),
        frames=sum(feed.ingest["frames"] for feed in evidence.feeds),
        trades=trades,
        candles=candles,
        signals=signals,
        latency_us=latency_figures(evidence.signals.signals.values()),
        memory_bytes=evidence.memory,
        behind_ms=evidence.behind_ms,
        drops={reason: number for reason, number in sorted(drops.items()) if number},
        restarts={name: number for name, number in sorted(evidence.restarts.items()) if number},
    )


def _add_feed(feed: FeedEvidence, trades: TradeCounts, candles: CandleCounts, drops: Counter[str]) -> None:
    before = trades.readable()
    for name, number in feed.ingest.items():
        if name.startswith("drop:"):
            drops[name.removeprefix("drop:")] += number
    begun = _by_symbol(feed.baseline)
    for symbol, status in _by_symbol(feed.aggregator).items():
        grown = since(status, begun.get(symbol))
        for name in ("received", "counted", "open", "late", "duplicate", "dead", "unreadable"):
            setattr(trades, name, getattr(trades, name) + grown[f"counts.{name}"])
        for name in ("closed", "revised", "filled"):
            setattr(candles, name, getattr(candles, name) + grown[f"candles.{name}"])
        for name, number in grown.items():
            if name.startswith("dropped."):
                drops[f"aggregator_{name.removeprefix('dropped.')}"] += number
        for name in ("late", "duplicate", "dead"):
            drops[name] += grown[f"counts.{name}"]
    # An ingest that was killed can't say how much of its last second the broker had; what it appends again the aggregator
    # counts as duplicates. The other feeds' do say.
    trades.ingested += feed.ingest["appended"] if feed.exact else trades.readable() - before


def _by_symbol(aggregator: Status) -> dict[str, Status]:
    """What an aggregator says by symbol; what no symbol can be told of by partition, each of which has sessions of its own."""
    told: dict[str, Status] = {symbol: one for symbol, one in aggregator.get("symbols", {}).items() if symbol}
    for number, partition in aggregator.get("partitions", {}).items():
        if partition.get("unknown") is not None:
            told[f"#{number}"] = partition["unknown"]
    return told


def since(status: Status, before: Status | None) -> Counter[str]:
    """Counts of one symbol since the run began, flat.

    A session begun since then began at 0, the first one with what couldn't be used before it; what is dropped counts over all.
    A forming candle's trades may move from ``open`` to ``counted`` between the two: differences may be negative.
    """
    now = _flat(status)
    if before is None:
        return now
    then = _flat(before)
    if before.get("session") not in (status.get("session"), _NO_SESSION):
        then = Counter({name: number for name, number in then.items() if name.startswith("dropped.")})
    return Counter({name: number - then[name] for name, number in now.items()})


def _flat(status: Status) -> Counter[str]:
    return Counter(
        {
            f"{group}.{name}": int(number)
            for group in ("counts", "candles", "dropped")
            for name, number in status.get(group, {}).items()
        }
    )


def signal_counts(workers: Iterable[WorkerEvidence], topic: Collected) -> SignalCounts:
    """Signals of the run: what traders emitted against what stands on the topic.

    A feed that has run from the beginning knows exactly what it took from rings and what it dropped. One that
    was killed does not: then the rings' own counters stand in for it. Those count what a trader that was started anew
    signals again on the close of a candle that it had signalled on before, of which the topic has a confirmation.
    """
    counts = SignalCounts(published=topic.published, unique=len(topic.signals))
    is_exact = True
    for worker in workers:
        told = worker.feed.get("signals", {})
        dropped = sum(int(number) for number in told.get("dropped", {}).values())
        depth = sum(ring["waiting"] for ring in worker.rings.values())
        counts.dropped += dropped
        counts.pending += depth
        if worker.whole:
            # Slots that wait are taken already (in flight) or not yet (then they aren't in its count).
            in_flight = int(told.get("emitted", 0)) - int(told.get("published", 0)) - dropped
            counts.emitted += int(told.get("emitted", 0)) + max(0, depth - in_flight)
        else:
            counts.emitted += sum(ring["signals"] for ring in worker.rings.values())
            counts.carried += sum(ring["carried"] for ring in worker.rings.values())
            is_exact = False
    if not is_exact:
        more = counts.emitted + counts.carried - counts.dropped - counts.pending - counts.published
        counts.emitted -= min(max(0, more), len(topic.confirmed))
    return counts


def latency_figures(signals: Iterable[Signal]) -> LatencyFigures:
    """Quantiles over every signal's own account."""
    stages: dict[str, list[int]] = {name: [] for name in STAGES}
    whole: list[int] = []
    decided: list[int] = []
    settled: list[int] = []
    signals = list(signals)
    first_ns = min((one.stamps.received_ns for one in signals if one.stamps.received_ns), default=0)
    for signal in signals:
        told = account(signal.stamps)
        for stage in told.stages:
            stages[stage.name].append(int(stage.duration_us * 1000))
        if told.frame_to_signal_us is not None:
            whole.append(int(told.frame_to_signal_us * 1000))
            if signal.stamps.received_ns - first_ns >= SETTLING_S * 1_000_000_000:
                settled.append(whole[-1])
        if told.visible_to_decided_us is not None:
            decided.append(int(told.visible_to_decided_us * 1000))
    return LatencyFigures(
        frame_to_signal=quantiles_us(whole),
        visible_to_decided=quantiles_us(decided),
        stages={name: quantiles_us(values) for name, values in stages.items()},
        settled=quantiles_us(settled),
    )
