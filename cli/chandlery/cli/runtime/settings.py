"""Settings of each process of a local instance: those of the resources, with this machine's folders and sockets."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from chandlery.cli.runtime.options import UpOptions
from chandlery.cli.runtime.statedir import StateDir
from chandlery.core.feed_kafka import kafka_settings
from chandlery.core.intervals import parse_interval
from chandlery.core.resources import DEFAULT_NAMESPACE, MarketFeed, TraderPool
from chandlery.core.settings import (
    AggregatorSettings,
    FeedSettings,
    IngestSettings,
    KafkaSecurity,
    KafkaSettings,
    SupervisorSettings,
)
from chandlery.core.transports import Transport
from chandlery.operator.settings_of import (
    aggregator_settings,
    feed_settings,
    ingest_settings,
    supervisor_settings,
)


def label_of(namespace: str, name: str) -> str:
    """Name of a resource's processes and files: its own, with the namespace unless that is the default."""
    return name if namespace == DEFAULT_NAMESPACE else f"{namespace}.{name}"


def ingest_of(
    feed: MarketFeed,
    folder: Path,
    kafka: KafkaSettings,
    symbols: Iterable[str],
    intervals: Iterable[str],
    *,
    session: int,
    hold: bool,
    options: UpOptions,
    state: StateDir,
) -> IngestSettings:
    """Settings of a feed's ingest.

    Args:
        folder: what file names in the manifest are relative to.
        session: of the run; counts for replays and synthetic markets only.
        hold: whether trades wait for ``POST /v1/go``.
    """
    label = label_of(feed.namespace, feed.name)
    settings = ingest_settings(
        feed,
        kafka=kafka,
        symbols=sorted(symbols),
        intervals=by_length(intervals),
        folder=folder,
        session=session,
        status_listen=f"unix:{state.socket(f'ingest-{label}')}",
        final_status=str(state.final(f"ingest-{label}")),
        position_file=str(state.position(label)),
        metrics_listen=_metrics(options, f"ingest-{label}", "ingest", (feed.namespace, feed.name)),
        log_level=options.log_level,
    )
    if settings.source == "binance":
        return settings
    asked = {**settings.options, "wait_for_go": hold}
    if settings.source == "replay" and options.speed is not None:
        asked["speed"] = options.speed
    return msgspec.structs.replace(settings, options=asked)


def aggregator_of(
    feed: MarketFeed, kafka: KafkaSettings, intervals: Iterable[str], options: UpOptions, state: StateDir
) -> AggregatorSettings:
    """Settings of a feed's aggregator."""
    label = label_of(feed.namespace, feed.name)
    return aggregator_settings(
        feed,
        kafka=kafka,
        intervals=by_length(intervals),
        status_listen=f"unix:{state.socket(f'aggregator-{label}')}",
        data_dir=str(state.aggregator(label)),
        final_status=str(state.final(f"aggregator-{label}")),
        metrics_listen=_metrics(options, f"aggregator-{label}", "aggregator", (feed.namespace, feed.name)),
        log_level=options.log_level,
    )


def kafka_of(feed: MarketFeed, bootstrap: str, options: UpOptions) -> KafkaSettings:
    """A feed's Kafka, entered by what the options name; ``bootstrap``: of the Kafka of feeds that name none."""
    config = str(options.kafka_config) if options.kafka_config is not None else ""
    return kafka_settings(
        feed, bootstrap, secrets=str(options.secrets or ""), security=KafkaSecurity(properties=config)
    )


def transport_of(pool: TraderPool, options: UpOptions) -> Transport:
    """How candles reach a pool's traders that don't say it themselves; the command line goes before the manifests."""
    return options.transport or pool.spec.transport


def feed_of(
    worker: str, label: str, pool: TraderPool, kafka: KafkaSettings, shm: Path, options: UpOptions, state: StateDir
) -> FeedSettings:
    """Settings of a worker's feed. ``label`` names its files, ``worker`` is what assignments call it."""
    settings = feed_settings(
        pool,
        worker=worker,
        kafka=kafka,
        listen=f"unix:{state.socket(f'feed-{label}')}",
        shm_dir=str(shm / label),
        rings_dir=str(state.rings(label)),
        assignment_file=str(state.assignment(label)),
        final_status=str(state.final(f"feed-{label}")),
        metrics_listen=_metrics(options, f"feed-{label}", "worker", pool.spec.feed.key(pool.namespace), pool.name),
        log_level=options.log_level,
    )
    return msgspec.structs.replace(settings, **_transport(pool, options))


def supervisor_of(
    worker: str, label: str, pool: TraderPool, shm: Path, options: UpOptions, state: StateDir
) -> SupervisorSettings:
    """Settings of a worker's supervisor."""
    settings = supervisor_settings(
        pool,
        worker=worker,
        shm_dir=str(shm / label),
        rings_dir=str(state.rings(label)),
        strategies_dir=str(options.strategies.absolute()) if options.strategies else "",
        log_level=options.log_level,
    )
    return msgspec.structs.replace(settings, **_transport(pool, options))


def _transport(pool: TraderPool, options: UpOptions) -> dict[str, Any]:
    return {"transport": transport_of(pool, options), "transport_for_all": options.transport is not None}


def _metrics(options: UpOptions, process: str, component: str, feed: tuple[str, str], pool: str = "") -> str:
    return options.metrics.listen(process, component, feed, pool) if options.metrics is not None else ""


def by_length(intervals: Iterable[str]) -> list[str]:
    """Intervals from short to long, without repetition."""
    return sorted(set(intervals), key=lambda text: (parse_interval(text).length_ms, text))
