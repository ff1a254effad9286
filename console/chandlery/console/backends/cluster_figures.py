"""What pods tell of themselves without a token: ``/metrics`` of workers' feeds, ingests and aggregators. Pure.

Read by an own few lines, not prometheus_client's parser, which takes eight times as long: most of a worker's text are
buckets of histograms, which nothing here is made of.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

import msgspec

_LINE: Final = re.compile(r"^([a-z_]+)(?:\{(.*)\})? (\S+)")
#: Matched only where the one before ended: a text that is no label costs one look at each of its characters.
_LABEL: Final = re.compile(r'([a-zA-Z_]\w{0,63})="((?:[^"\\]|\\.){0,2048})"(?:,|\Z)')
_OURS: Final = (
    "chandlery_trader_",
    "chandlery_feed_",
    "chandlery_worker_",
    "process_resident",
    "process_proportional",
    "process_start",
)
#: A line of ours has one name of at most 127 characters, escaped at worst, and some words more.
_MOST_LINE_CHARS: Final = 4_096
_ESCAPED: Final = re.compile(r"\\(.)")
#: A worker labels 100 Traders by default; a text with more than this isn't one of ours.
_MOST_TRADERS: Final = 2_000
#: Of each some twenty lines; more aren't read, so that no text keeps others waiting for long.
_MOST_LINES: Final = 20 * _MOST_TRADERS
#: Numbers that a text may claim: those that JSON's readers hold exactly.
_MOST: Final = 2.0**53

#: Figures of a Trader by what stands behind ``chandlery_trader_``.
_TRADER: Final = {
    "calls_total": "calls",
    "signals_total": "signals",
    "restarts_total": "restarts",
    "errors_total": "errors",
    "lapped_total": "lapped",
    "resident_memory_bytes": "rss_bytes",
    "pss_bytes": "pss_bytes",
    "warm_candles": "warm_have",
    "warm_candles_needed": "warm_need",
    "ring_depth": "ring_depth",
    "ring_capacity": "ring_capacity",
}
#: Processes of a worker that its feed tells of.
_BESIDE_FEED: Final = ("supervisor", "fork_server")
_WORKER: Final = {
    "process_start_time_seconds": "began_s",
    "chandlery_feed_segment_bytes": "segment_bytes",
    "chandlery_feed_series": "series",
    "chandlery_feed_series_capacity": "series_capacity",
    "process_resident_memory_bytes": "rss_bytes",
    "process_proportional_memory_bytes": "pss_bytes",
}


@dataclass(slots=True)
class TraderFigures:
    """One Trader's process as its worker tells of it (docs/telemetry.md); 0: not told."""

    state: str = ""
    calls: int = 0
    signals: int = 0
    restarts: int = 0
    errors: int = 0
    lapped: int = 0
    rss_bytes: int = 0
    pss_bytes: int = 0
    warm_have: int = 0
    warm_need: int = 0
    ring_depth: int = 0
    ring_capacity: int = 0
    last_open_time_ms: int = 0


@dataclass(slots=True)
class WorkerFigures:
    """One worker.

    Attributes:
        rss_bytes, pss_bytes, began_s: of its feed's process; when it began, Unix s. 0: not told.
        supervisor_pss_bytes, fork_server_pss_bytes: what each of them adds, which is all that they tell. 0: not told.
        at_s: when the figures were read, of this process's monotonic clock.
        skipped: lines that weren't read, as too long or too many.
    """

    worker: str = ""
    transport: str = ""
    segment_bytes: int = 0
    series: int = 0
    series_capacity: int = 0
    rss_bytes: int = 0
    pss_bytes: int = 0
    began_s: int = 0
    supervisor_pss_bytes: int = 0
    fork_server_pss_bytes: int = 0
    traders: dict[str, TraderFigures] = field(default_factory=dict)
    at_s: float = 0.0
    skipped: int = 0


class _Trades(msgspec.Struct):
    appended: int = 0
    dropped: dict[str, int] = {}


class _Symbol(msgspec.Struct):
    gap_ids: int = 0


class KafkaProblem(msgspec.Struct):
    """Why Kafka can't be used."""

    message: str = ""


class IngestFigures(msgspec.Struct):
    """What of ingest's ``GET /v1/status`` is shown (docs/status.md)."""

    connected: bool = False
    finished: bool = False
    frames: int = 0
    trades: _Trades = msgspec.field(default_factory=_Trades)
    kafka_problem: KafkaProblem | None = None
    malformed: dict[str, int] = {}
    symbols: dict[str, _Symbol] = {}
    reconnects: int = 0

    @property
    def missing_ids(self) -> int:
        """Trades that the exchange's ids tell of and that haven't come."""
        return sum(symbol.gap_ids for symbol in self.symbols.values())

    @property
    def dropped(self) -> int:
        """Frames that couldn't be read, and trades given up."""
        return sum(self.malformed.values()) + sum(self.trades.dropped.values())


class _TradeCounts(msgspec.Struct):
    late: int = 0
    duplicate: int = 0


class _Candles(msgspec.Struct):
    closed: int = 0


class _Totals(msgspec.Struct):
    counts: _TradeCounts = msgspec.field(default_factory=_TradeCounts)
    candles: _Candles = msgspec.field(default_factory=_Candles)


class AggregatorFigures(msgspec.Struct):
    """What of an aggregator's ``GET /v1/status`` is shown (docs/status.md)."""

    ready: bool = False
    lag: int = 0
    behind_ms: int = 0
    dead_letters: int = 0
    totals: _Totals = msgspec.field(default_factory=_Totals)


def worker_figures(text: str, at_s: float) -> WorkerFigures:
    """A worker's figures from its ``/metrics``; what isn't there stays 0, what is no number counts as absent."""
    lines, skipped = _lines(text)
    worker = WorkerFigures(at_s=at_s, skipped=skipped)
    for name, labels, value in _samples(lines):
        if name in _WORKER:
            setattr(worker, _WORKER[name], int(value))
        elif name == "chandlery_feed_info":
            worker.worker, worker.transport = labels.get("worker", ""), labels.get("transport", "")
        elif name == "chandlery_worker_pss_bytes" and labels.get("process") in _BESIDE_FEED:
            setattr(worker, f"{labels['process']}_pss_bytes", int(value))
        elif name.startswith("chandlery_trader_") and "trader" in labels:
            _take_trader(worker, name.removeprefix("chandlery_trader_"), labels, value)
    # Those beyond the bound of labels share one name, and their figures are nobody's.
    worker.traders.pop("_other", None)
    return worker


def _take_trader(worker: WorkerFigures, name: str, labels: dict[str, str], value: float) -> None:
    trader = worker.traders.get(labels["trader"])
    if trader is None:
        if len(worker.traders) >= _MOST_TRADERS:
            return
        trader = worker.traders[labels["trader"]] = TraderFigures()
    if name in _TRADER:
        setattr(trader, _TRADER[name], int(value))
    elif name == "state" and value:
        trader.state = labels.get("state", "")
    elif name == "decided_timestamp_seconds":
        trader.last_open_time_ms = round(value * 1_000)


@dataclass(frozen=True, slots=True)
class ProcessFigures:
    """A process as its ``/metrics`` has it: memory, and when it began, Unix s; 0: not told."""

    rss_bytes: int = 0
    began_s: int = 0
    pss_bytes: int = 0


def process_figures(text: str) -> ProcessFigures:
    """What every process tells of itself."""
    found = {name: int(value) for name, _, value in _samples(_lines(text)[0]) if name.startswith("process_")}
    return ProcessFigures(
        rss_bytes=found.get("process_resident_memory_bytes", 0),
        began_s=found.get("process_start_time_seconds", 0),
        pss_bytes=found.get("process_proportional_memory_bytes", 0),
    )


def _lines(text: str) -> tuple[list[str], int]:
    """Lines of what is of use here, and how many of them are left out as too long or too many."""
    ours = [line for line in text.splitlines() if line.startswith(_OURS)]
    read = [line for line in ours if len(line) <= _MOST_LINE_CHARS][:_MOST_LINES]
    return read, len(ours) - len(read)


def _samples(lines: Iterable[str]) -> Iterator[tuple[str, dict[str, str], float]]:
    """(name, labels, value) of each line that has them."""
    for line in lines:
        found = _LINE.match(line)
        if found is None:
            continue
        name, said, number = found.groups()
        try:
            value = float(number)
        except ValueError:
            continue
        labels = _labels(said or "")
        if labels is not None and math.isfinite(value) and abs(value) <= _MOST:
            yield name, labels, value


def _labels(text: str) -> dict[str, str] | None:
    """What stands in the brackets of a line; None: something else."""
    labels: dict[str, str] = {}
    at = 0
    while at < len(text):
        found = _LABEL.match(text, at)
        if found is None:
            return None
        labels[found[1]] = _plain(found[2])
        at = found.end()
    return labels


def _plain(said: str) -> str:
    return _ESCAPED.sub(lambda found: {"n": "\n"}.get(found[1], found[1]), said) if "\\" in said else said
