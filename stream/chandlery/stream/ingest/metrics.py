"""Ingest's figures for Prometheus, read from its counts when somebody asks."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import InfoMetricFamily

from chandlery.core.histogram import Histogram
from chandlery.core.telemetry.exposition import Labelled, counter, gauge, histogram
from chandlery.stream.ingest.status import Status

#: Symbols with a label of their own.
MOST_SYMBOLS: Final = 200


def families(status: Status, appending: Histogram, labelled: Labelled, now_s: float | None = None) -> Iterable[Metric]:
    """Every figure. ``appending``: from a trade's receipt to the broker's acknowledgement."""
    now_ms = (time.time() if now_s is None else now_s) * 1e3
    labelled.follow(status.symbols)
    symbols, trades = status.symbols, status.trades
    yield InfoMetricFamily("chandlery_ingest", "The source", value={"source": status.source})
    yield gauge("chandlery_ingest_connected", "Whether the source delivers", status.connected)
    yield counter("chandlery_ingest_reconnects", "Reconnects to the source", status.reconnects)
    yield counter(
        "chandlery_ingest_kafka_reconnects",
        "Times the broker came back after having been away",
        status.kafka_reconnects,
    )
    yield counter("chandlery_ingest_frames", "Messages had from the source", status.frames)
    yield counter("chandlery_ingest_skipped_frames", "Frames without a trade of ours", status.skipped_frames, "kind")
    yield counter("chandlery_ingest_malformed_frames", "Frames that can't be read", status.malformed, "reason")
    yield counter("chandlery_ingest_trades_received", "Trades parsed", trades.received)
    yield counter("chandlery_ingest_trades_appended", "Trades that the broker acknowledged", trades.appended)
    yield gauge("chandlery_ingest_trades_waiting", "Trades received and not appended", trades.waiting)
    yield counter("chandlery_ingest_trades_dropped", "Trades given up, by reason", trades.dropped, "reason")
    yield counter("chandlery_ingest_records", "Records appended", status.records)
    yield counter("chandlery_ingest_heartbeats", "Records appended without trades", status.heartbeats)
    yield gauge(
        "chandlery_ingest_unknown_symbols", "Symbols that the source does not have", len(status.unknown_symbols)
    )
    if status.clock_offset_ms is not None:
        yield gauge(
            "chandlery_ingest_exchange_clock_offset_seconds",
            "Exchange's wall clock less ours",
            status.clock_offset_ms / 1e3,
        )
    yield counter(
        "chandlery_ingest_symbol_trades",
        "Trades by symbol",
        labelled.summed({symbol: one.trades for symbol, one in symbols.items()}),
        "symbol",
    )
    yield gauge(
        "chandlery_ingest_missing_ids",
        "Trade ids that never came",
        labelled.summed({symbol: one.gap_ids for symbol, one in symbols.items()}),
        "symbol",
    )
    yield counter(
        "chandlery_ingest_duplicates",
        "Trades that came again",
        labelled.summed({symbol: one.duplicates for symbol, one in symbols.items()}),
        "symbol",
    )
    yield gauge(
        "chandlery_ingest_watermark_lateness_seconds",
        "Our wall clock less the watermark that the broker has; years in replays",
        {
            symbol: (now_ms - one.watermark_ms) / 1e3
            for symbol, one in symbols.items()
            if one.watermark_ms >= 0 and labelled[symbol] == symbol
        },
        "symbol",
    )
    yield histogram("chandlery_ingest_append_seconds", "Trade received to acknowledged by the broker", appending)
