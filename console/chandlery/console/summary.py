"""The summary of a local run: one typed object, its reconciliation, and its JSON (docs/summary.md)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

#: Each way through a Kafka that has just been started takes 50-150 ms at first, and less than 10 after four seconds.
SETTLING_S: Final = 5


class TraderCounts(msgspec.Struct):
    """Traders: desired (not suspended), how many of them became Ready, restarts of trader processes."""

    desired: int = 0
    ready: int = 0
    restarts: int = 0


class TradeCounts(msgspec.Struct):
    """Trades since the start of the run.

    Attributes:
        ingested: trades that ingest had acknowledged by the broker.
        received: trades the aggregator read; counted: in closed candles; open: in forming ones;
            late, duplicate, dead: left out, for that reason.
        unreadable: of ``dead``, records that can't be read as trades, each counted as one: nobody knows how many they hold, or
            whether they are ingest's at all.
    """

    ingested: int = 0
    received: int = 0
    counted: int = 0
    open: int = 0
    late: int = 0
    duplicate: int = 0
    dead: int = 0
    unreadable: int = 0

    def accounted(self) -> int:
        """What ``received`` must equal."""
        return self.counted + self.open + self.late + self.duplicate + self.dead

    def readable(self) -> int:
        """What ``ingested`` must equal."""
        return self.received - self.unreadable


class CandleCounts(msgspec.Struct):
    """Candles since the start of the run, over all intervals."""

    closed: int = 0
    revised: int = 0
    filled: int = 0


class SignalCounts(msgspec.Struct):
    """Signals since the start of the run.

    Attributes:
        emitted: put into rings by traders. carried: stood in rings already when the run began.
        published: signal records on the topic. unique: different ids among them (a delivery repeated after
            a crash has the same id). dropped: refused by the feed, by reason in ``drops``.
        pending: still in rings at the end.
    """

    emitted: int = 0
    carried: int = 0
    published: int = 0
    unique: int = 0
    dropped: int = 0
    pending: int = 0


class Quantiles(msgspec.Struct):
    """Microseconds over ``count`` signals; None where there was none."""

    p50: float | None = None
    p99: float | None = None
    count: int = 0


class LatencyFigures(msgspec.Struct):
    """Latencies over all signals of the run, µs.

    Attributes:
        frame_to_signal: from the frame that completed the decision to the broker's acknowledgement.
        settled: of these, those of frames that came :data:`SETTLING_S` or more after the first one's: a Kafka that has just been
            started compiles what it does often in its first seconds, and what ends in a signal passes it three times.
        visible_to_decided: from the candle visible in the segment to the decision.
        stages: each stage of the way by its name.
    """

    frame_to_signal: Quantiles = msgspec.field(default_factory=Quantiles)
    visible_to_decided: Quantiles = msgspec.field(default_factory=Quantiles)
    stages: dict[str, Quantiles] = {}
    settled: Quantiles = msgspec.field(default_factory=Quantiles)


class MemoryFigures(msgspec.Struct):
    """Memory of one process, bytes: resident, and its proportional share of what is shared."""

    rss: int
    pss: int


class Summary(msgspec.Struct):
    """What ``chandlery up --for … --json`` prints; fields only ever come to it.

    Attributes:
        version: of Chandlery. session: the run's id (its start, ms). seconds: from ready to the stop.
        reconciles: whether every count adds up. problems: what isn't as it should be, one
            sentence each; in a run with ``--for`` or ``--until-end`` why the exit code isn't 0.
        traders, trades, candles, signals, latency_us: see their types. frames: exchange frames read by ingest.
        memory_bytes: by process: ``kafka``, ``ingest-FEED``, ``aggregator-FEED``, ``feed-WORKER``,
            ``supervisor-WORKER``, ``console``, and each Trader by its name; sampled just before the stop.
        drops: everything that was left out or repeated anywhere, by reason; zero counts are left out.
        behind_ms: the furthest each process was behind what Kafka had, of those that lagged at any time.
        restarts: unexpected ends of our own processes, by name; zero counts are left out.
    """

    version: str
    session: int
    seconds: float = 0.0
    reconciles: bool = False
    problems: list[str] = []
    traders: TraderCounts = msgspec.field(default_factory=TraderCounts)
    frames: int = 0
    trades: TradeCounts = msgspec.field(default_factory=TradeCounts)
    candles: CandleCounts = msgspec.field(default_factory=CandleCounts)
    signals: SignalCounts = msgspec.field(default_factory=SignalCounts)
    latency_us: LatencyFigures = msgspec.field(default_factory=LatencyFigures)
    memory_bytes: dict[str, MemoryFigures] = {}
    drops: dict[str, int] = {}
    restarts: dict[str, int] = {}
    behind_ms: dict[str, int] = {}


encode_summary: Final = msgspec.json.Encoder(order="deterministic").encode
decode_summary: Final = msgspec.json.Decoder(Summary).decode


def count_problems(trades: TradeCounts, signals: SignalCounts, *, all_read: bool = True) -> list[str]:
    """Which counts don't add up, one sentence each; empty when all do.

    The laws: received = counted + open + late + duplicate + dead; the aggregator received what ingest had
    acknowledged, besides what it couldn't read, which anybody may have written; every emitted (or carried) signal was published, dropped with a reason, or is still pending.
    A delivery repeated after a crash may make ``published`` larger, never ``unique``.

    Args:
        all_read: whether the aggregator got to the end of what ingest appended.
    """
    problems: list[str] = []
    if trades.received != trades.accounted():
        problems.append(
            f"trades don't add up: received {trades.received} is not counted {trades.counted} + open {trades.open} "
            f"+ late {trades.late} + duplicate {trades.duplicate} + dead {trades.dead} = {trades.accounted()}"
        )
    if not all_read and trades.readable() < trades.ingested:
        problems.append(
            f"{trades.ingested - trades.readable()} trades were not counted: ingested {trades.ingested}, the aggregator got to "
            f"{trades.readable()} of them"
        )
    elif trades.ingested != trades.readable():
        problems.append(
            f"trades were lost or repeated between ingest and aggregator: ingested {trades.ingested}, "
            f"received {trades.readable()}{_beside(trades)}"
        )
    due = signals.emitted + signals.carried - signals.dropped - signals.pending
    repeated = signals.published - signals.unique
    if not due <= signals.published <= due + repeated:
        problems.append(
            f"signals don't add up: emitted {signals.emitted} + carried {signals.carried} - dropped "
            f"{signals.dropped} - pending {signals.pending} = {due}, but published {signals.published} "
            f"(of which {signals.unique} different)"
        )
    return problems


def _beside(trades: TradeCounts) -> str:
    if not trades.unreadable:
        return ""
    missing = trades.ingested > trades.readable()
    records = f"{trades.unreadable} record{'s' if trades.unreadable > 1 else ''}"
    return f", besides {records} that could not be read{' and may hold what is missing' if missing else ''}: see the dead letters"


def trader_problems(not_ready: Iterable[tuple[str, str]]) -> list[str]:
    """A sentence for each desired Trader that never became Ready, given (name, why)."""
    return [f"Trader {name} did not become Ready: {why}" for name, why in not_ready]


def quantiles_us(values_ns: Sequence[int]) -> Quantiles:
    """Median and 99th percentile (nearest rank) of durations, ns in, µs out with one decimal."""
    if not values_ns:
        return Quantiles()
    ordered = sorted(values_ns)

    def rank(share: float) -> float:
        at = max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1)
        return round(ordered[at] / 1000, 1)

    return Quantiles(p50=rank(0.50), p99=rank(0.99), count=len(ordered))
