"""The readers' figures for Prometheus, read where they are kept when somebody asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from prometheus_client import Metric

from chandlery.console.reading.candle_reader import CandleReader
from chandlery.console.reading.kafka_reading import Away
from chandlery.console.reading.signal_log import SignalLog
from chandlery.console.reading.signal_reader import SignalReader
from chandlery.console.reading.signal_service import KeptSignals
from chandlery.core.telemetry.exposition import counter, gauge

_STATES = ("connecting", "waiting", "reading")


def families(
    log: SignalLog, reader: SignalReader, signals: KeptSignals, market: CandleReader, away: Away
) -> Iterable[Metric]:
    """Every figure of the readers. Labels are words of ours: nobody else can add one."""
    yield gauge("chandlery_console_signals_kept", "Signals in memory", len(log))
    yield counter(
        "chandlery_console_signal_records",
        "Records of the signals topics by what became of them",
        log.counts,
        "outcome",
    )
    yield gauge("chandlery_console_signal_followers", "Who follows signals now", signals.followers)
    yield counter(
        "chandlery_console_signal_follower_events",
        "Events that slow followers lost, records read from Kafka again for others, and failed attempts at that",
        signals.counts,
        "event",
    )
    states = Counter(reader.states.values())
    yield gauge(
        "chandlery_console_feeds",
        "Feeds by how their signals are read",
        {state: states[state] for state in _STATES},
        "state",
    )
    yield gauge("chandlery_console_candle_series", "Series in memory", market.open_series)
    yield gauge("chandlery_console_candle_viewers", "Who looks at a series now", market.viewers)
    yield counter(
        "chandlery_console_candle_updates",
        "Candle updates and records by what became of them",
        market.counts,
        "outcome",
    )
    yield gauge("chandlery_console_topics_away", "Topics that can't be read now", len(away))
    yield counter("chandlery_console_topics_lost", "How often a topic could no longer be read", away.counts, "kind")
