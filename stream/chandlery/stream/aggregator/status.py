"""The status of an aggregator: its JSON form and how it is put together."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from chandlery.core.kafka_login import KafkaProblem
from chandlery.stream.aggregation import SymbolState
from chandlery.stream.aggregator.partition import UNKNOWN_SYMBOL, PartitionState

_WINDOW_S: Final = 5.0


class TradeCounts(msgspec.Struct):
    """Trades; ``received = counted + open + late + duplicate + dead`` always, see ``aggregation.Counts``."""

    received: int = 0
    counted: int = 0
    open: int = 0
    late: int = 0
    duplicate: int = 0
    dead: int = 0
    unreadable: int = 0


class CandleNumbers(msgspec.Struct):
    """Candles of all intervals: closed from trades, revisions, made up, gaps left open, from history."""

    closed: int = 0
    revised: int = 0
    filled: int = 0
    gaps: int = 0
    backfilled: int = 0


class Drops(msgspec.Struct):
    """What was left out, by reason; see ``aggregation.Dropped``."""

    session: int = 0
    session_trades: int = 0
    history: int = 0
    covered: int = 0
    records: int = 0


class SymbolStatus(msgspec.Struct):
    """One symbol in its newest session (-1: none yet). ``seq``: of its last emission."""

    session: int
    counts: TradeCounts
    watermark_ms: int
    applied_offset: int
    seq: int
    candles: CandleNumbers
    dropped: Drops


class Totals(msgspec.Struct):
    """The sums over the symbols of the newest session."""

    counts: TradeCounts
    candles: CandleNumbers
    dropped: Drops


class PartitionStatus(msgspec.Struct):
    """Where one partition is.

    Attributes:
        applied: next offset to apply. committed: where a restart begins. end: None while unknown.
        unknown: what no symbol can be told of, in the newest session of this partition; None: nothing.
    """

    applied: int
    committed: int
    end: int | None
    unknown: SymbolStatus | None = None


class Status(msgspec.Struct):
    """``GET /v1/status``.

    Attributes:
        ready: whether partitions are assigned, their states recovered, and no rebalance is under way.
        symbols: by symbol; ``""`` sums what no symbol can be told of, over partitions that may be in different sessions.
        lag: records behind the end, as far as ends are known. behind_ms: for how long the oldest of them has waited.
        records: records applied by this process. records_per_s: over the last seconds.
        offset_gaps: holes in the input's offsets that the broker has nothing for (retention).
        healed: saved states that were older than their manifest.
        kafka_problem: why Kafka can't be entered; None: it can. reconnects: times that it came back after having been away.
    """

    ready: bool
    instance: str
    intervals: list[str]
    symbols: dict[str, SymbolStatus]
    totals: Totals
    partitions: dict[int, PartitionStatus]
    lag: int
    records: int
    records_per_s: float
    outputs: int
    checkpoints: int
    dead_letters: int
    offset_gaps: int
    healed: int
    kafka_problem: KafkaProblem | None = None
    behind_ms: int = 0
    reconnects: int = 0


class RateMeter:
    """Records a second over the last seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def sample(self, count: int, now_s: float | None = None) -> float:
        """Note the total so far; returns the rate since the oldest sample within the window."""
        now = time.monotonic() if now_s is None else now_s
        self._samples.append((now, count))
        while now - self._samples[0][0] > _WINDOW_S:
            self._samples.popleft()
        first_s, first = self._samples[0]
        return (count - first) / (now - first_s) if now > first_s else 0.0


def symbol_status(state: SymbolState) -> SymbolStatus:
    """The status of one symbol."""
    return SymbolStatus(
        state.session,
        msgspec.convert(state.counts, TradeCounts, from_attributes=True),
        state.watermark_ms,
        state.applied_offset,
        state.seq,
        msgspec.convert(state.candle_counts, CandleNumbers, from_attributes=True),
        msgspec.convert(state.dropped, Drops, from_attributes=True),
    )


def partition_status(state: PartitionState, committed: int, end: int | None) -> PartitionStatus:
    """The status of one partition."""
    unknown = state.symbols.get(UNKNOWN_SYMBOL)
    return PartitionStatus(state.next_offset, committed, end, None if unknown is None else symbol_status(unknown))


def all_symbols(partitions: Mapping[int, PartitionState]) -> dict[str, SymbolStatus]:
    """Status by symbol; that of the unknown symbol, which any partition may have, summed."""
    found: dict[str, SymbolStatus] = {}
    for partition in partitions.values():
        for symbol, state in partition.symbols.items():
            status = symbol_status(state)
            if symbol in found:
                add_up(found[symbol].counts, [status.counts])
                add_up(found[symbol].dropped, [status.dropped])
            else:
                found[symbol] = status
    return dict(sorted(found.items()))


def totals_of(symbols: Mapping[str, SymbolStatus]) -> Totals:
    """Sums over the symbols of the newest session, and what no symbol can be told of.

    Symbols of an earlier run, which nobody ingests any more, keep their states; they aren't of this run.
    """
    newest = max((each.session for each in symbols.values()), default=-1)
    current = [each for symbol, each in symbols.items() if each.session == newest or symbol == UNKNOWN_SYMBOL]
    totals = Totals(TradeCounts(), CandleNumbers(), Drops())
    add_up(totals.counts, (each.counts for each in current))
    add_up(totals.candles, (each.candles for each in current))
    add_up(totals.dropped, (each.dropped for each in current))
    return totals


def add_up(total: msgspec.Struct, parts: Iterable[msgspec.Struct]) -> None:
    """Add the integer fields of ``parts`` to those of ``total``, all of one kind."""
    for part in parts:
        for name in total.__struct_fields__:
            setattr(total, name, getattr(total, name) + getattr(part, name))
