"""Settings of each process of a feed and of a pool, from their resources. Pure; the local runtime and the operator share it.

What a resource can't know (addresses, folders, tokens) is an argument.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chandlery.core.resources import MarketFeed, TraderPool
from chandlery.core.settings import (
    AggregatorSettings,
    FeedSettings,
    HistoryFile,
    IngestSettings,
    KafkaSettings,
    SupervisorSettings,
    TelemetrySettings,
)


def source_options(feed: MarketFeed, folder: Path) -> dict[str, Any]:
    """The ``options`` of the feed's source, as ingest reads them.

    Args:
        folder: what paths in the manifest are relative to.
    """
    source = feed.spec.source
    options: dict[str, Any] = {}
    if source.synthetic is not None:
        synthetic = source.synthetic
        options = {
            "seed": synthetic.seed,
            "trades_per_second": synthetic.trades_per_second,
            "volatility": synthetic.volatility,
            "jumps_per_hour": synthetic.jumps_per_hour,
            "quiet_share": synthetic.quiet_share,
        }
        if synthetic.start_price is not None:
            options["start_price"] = synthetic.start_price
    elif source.replay is not None:
        options = {
            "files": [{"path": str(folder / file.path), "symbol": file.symbol or ""} for file in source.replay.files],
            "speed": "max" if math.isinf(source.replay.speed) else source.replay.speed,
            "loop": source.replay.loop,
        }
    elif source.binance is not None:
        options = {"base_url": source.binance.base_url, "market": source.binance.market}
    if any(file.shift for file in feed.spec.history.files):
        options["history_shift"] = True
    return options


def is_paced(feed: MarketFeed) -> bool:
    """Whether its market has a pace that anything could be behind of; a replay as fast as possible has none."""
    replay = feed.spec.source.replay
    return replay is None or not math.isinf(replay.speed)


def history_files(feed: MarketFeed, folder: Path) -> list[HistoryFile]:
    """The feed's files of closed candles, their paths made absolute by ``folder``."""
    return [
        HistoryFile(symbol=file.symbol, interval=file.interval, path=str(folder / file.path))
        for file in feed.spec.history.files
    ]


def ingest_settings(
    feed: MarketFeed,
    *,
    kafka: KafkaSettings,
    symbols: Sequence[str],
    intervals: Sequence[str],
    folder: Path,
    session: int,
    status_listen: str,
    **more: Any,
) -> IngestSettings:
    """Settings of the feed's ingest.

    Args:
        symbols, intervals: from the plan (:class:`chandlery.operator.planner.FeedPlan`).
        folder: what paths in the manifest are relative to.
        session: the run's id for replay and synthetic markets; a continuous exchange has 0 whatever is given.
        more: further fields of IngestSettings (``final_status``, ``position_file``, ``log_level`` …).
    """
    kind = feed.spec.source.kind
    return IngestSettings(
        kafka=kafka,
        source=kind,
        symbols=list(symbols),
        intervals=list(intervals),
        status_listen=status_listen,
        session=0 if kind == "binance" else session,
        options=source_options(feed, folder),
        history_candles=feed.spec.history.candles if kind == "synthetic" else 0,
        history_files=history_files(feed, folder),
        watermark_delay_ms=feed.spec.watermark_delay,
        **more,
    )


def aggregator_settings(
    feed: MarketFeed,
    *,
    kafka: KafkaSettings,
    intervals: Sequence[str],
    status_listen: str,
    data_dir: str,
    **more: Any,
) -> AggregatorSettings:
    """Settings of the feed's aggregator; ``more``: further fields (``final_status``, ``log_level`` …)."""
    return AggregatorSettings(
        kafka=kafka,
        intervals=list(intervals),
        status_listen=status_listen,
        data_dir=data_dir,
        allowed_lateness_ms=feed.spec.allowed_lateness,
        **more,
    )


def feed_settings(
    pool: TraderPool,
    *,
    worker: str,
    kafka: KafkaSettings,
    listen: str,
    shm_dir: str,
    rings_dir: str,
    **more: Any,
) -> FeedSettings:
    """Settings of a worker's feed; ``more``: further fields (``token_file``, ``assignment_file``, ``final_status`` …)."""
    return FeedSettings(
        worker=worker,
        kafka=kafka,
        listen=listen,
        shm_dir=shm_dir,
        rings_dir=rings_dir,
        segment_rows=pool.spec.segment.candles,
        segment_series=pool.spec.segment.series,
        transport=pool.spec.transport,
        telemetry=telemetry_settings(pool),
        **more,
    )


def telemetry_settings(pool: TraderPool) -> TelemetrySettings:
    """Where the traces of a pool's feeds go; without an endpoint, OpenTelemetry's variables may still say."""
    telemetry = pool.spec.telemetry
    if telemetry.otlp_endpoint is None:
        return TelemetrySettings(tick_share=telemetry.tick_share)
    return TelemetrySettings(telemetry.otlp_endpoint, telemetry.otlp_protocol, telemetry.tick_share)


def supervisor_settings(
    pool: TraderPool, *, worker: str, shm_dir: str, rings_dir: str, **more: Any
) -> SupervisorSettings:
    """Settings of a worker's supervisor; ``more``: further fields (``strategies_dir``, ``log_level`` …)."""
    return SupervisorSettings(
        worker=worker, shm_dir=shm_dir, rings_dir=rings_dir, transport=pool.spec.transport, **more
    )
