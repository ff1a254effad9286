"""The aggregator's figures for Prometheus, read from its status when somebody asks."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

import msgspec
from prometheus_client import Metric
from prometheus_client.core import InfoMetricFamily

from chandlery.core.histogram import Histogram
from chandlery.core.telemetry.exposition import Labelled, counter, gauge, histogram
from chandlery.stream.aggregator.partition import UNKNOWN_SYMBOL
from chandlery.stream.aggregator.status import Status

#: Symbols with a label of their own.
MOST_SYMBOLS: Final = 200


def families(
    status: Status, aggregating: Histogram, labelled: Labelled, now_s: float | None = None
) -> Iterable[Metric]:
    """Every figure. ``aggregating``: from a trade's receipt to its candle's being computed."""
    now_ms = (time.time() if now_s is None else now_s) * 1e3
    symbols = {symbol: one for symbol, one in status.symbols.items() if symbol != UNKNOWN_SYMBOL}
    labelled.follow(symbols)
    yield InfoMetricFamily("chandlery_aggregator", "The instance", value={"instance": status.instance})
    yield gauge("chandlery_aggregator_ready", "Whether its partitions are there and recovered", status.ready)
    yield counter(
        "chandlery_aggregator_reconnects", "Times the broker came back after having been away", status.reconnects
    )
    yield counter("chandlery_aggregator_records", "Records applied", status.records)
    yield counter("chandlery_aggregator_outputs", "Records appended", status.outputs)
    yield counter("chandlery_aggregator_checkpoints", "Checkpoints taken", status.checkpoints)
    yield gauge("chandlery_aggregator_lag_records", "Records behind the end", status.lag)
    yield gauge("chandlery_aggregator_behind_seconds", "For how long the oldest of them waits", status.behind_ms / 1e3)
    yield counter("chandlery_aggregator_dead_letters", "Records that can't be decoded", status.dead_letters)
    yield counter("chandlery_aggregator_offset_gaps", "Stretches of input that retention took", status.offset_gaps)
    yield counter("chandlery_aggregator_healed", "States that were older than their manifest", status.healed)
    trades = msgspec.structs.asdict(status.totals.counts)
    received = trades.pop("received")
    forming = trades.pop("open")
    del trades["unreadable"]  # of the dead: outcomes add up
    yield counter("chandlery_aggregator_trades_received", "Trades of the newest session", received)
    yield gauge("chandlery_aggregator_trades_open", "Trades in forming candles", forming)
    yield counter("chandlery_aggregator_trades", "Trades by what became of them", trades, "outcome")
    yield counter(
        "chandlery_aggregator_candles",
        "Candles by what became of them",
        msgspec.structs.asdict(status.totals.candles),
        "outcome",
    )
    yield counter(
        "chandlery_aggregator_drops",
        "What was left out, by reason",
        msgspec.structs.asdict(status.totals.dropped),
        "reason",
    )
    partitions = {str(number): one for number, one in status.partitions.items()}
    yield gauge(
        "chandlery_aggregator_applied_offset",
        "Next offset to apply",
        {number: one.applied for number, one in partitions.items()},
        "partition",
    )
    yield gauge(
        "chandlery_aggregator_committed_offset",
        "Where a restart begins",
        {number: one.committed for number, one in partitions.items()},
        "partition",
    )
    yield gauge(
        "chandlery_aggregator_watermark_lateness_seconds",
        "Our wall clock less the watermark applied; years in replays",
        {
            symbol: (now_ms - one.watermark_ms) / 1e3
            for symbol, one in symbols.items()
            if one.watermark_ms >= 0 and labelled[symbol] == symbol
        },
        "symbol",
    )
    yield histogram("chandlery_aggregator_aggregated_seconds", "Trade received to candle computed", aggregating)
