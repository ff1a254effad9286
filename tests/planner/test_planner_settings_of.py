"""Each process's settings come from its resource, and ingest accepts the options made for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.planner.planner_worlds import feed, pool

from chandlery.core.feed_kafka import feed_topic, kafka_settings
from chandlery.core.settings import KafkaSettings
from chandlery.operator.settings_of import (
    aggregator_settings,
    feed_settings,
    ingest_settings,
    source_options,
    supervisor_settings,
)
from chandlery.stream.ingest.options import BinanceOptions, ReplayOptions, SyntheticOptions, read_options

FOLDER = Path("/manifests")


def test_kafka_comes_from_the_feed_and_from_the_embedded_broker_where_it_names_none() -> None:
    own = feed(kafka={"bootstrapServers": "k:9092", "topicPrefix": "p.", "partitions": 8}, retention={"live": "5m"})
    settings = kafka_settings(own, "embedded:1")
    assert (settings.bootstrap, settings.prefix, settings.partitions, settings.feed) == ("k:9092", "p.", 8, "market")
    assert settings.retention_live_ms == 300_000
    assert kafka_settings(feed(), "embedded:1").bootstrap == "embedded:1"


def test_the_resources_defaults_are_the_settings_defaults() -> None:
    kafka = {"bootstrapServers": "x:1"}
    assert kafka_settings(feed(kafka=kafka), "y:1") == KafkaSettings(bootstrap="x:1", feed="market")


def test_topics_on_the_embedded_broker_have_one_partition_unless_the_feed_says_otherwise() -> None:
    assert kafka_settings(feed(), "embedded:1").partitions == 1
    assert kafka_settings(feed(kafka={"partitions": 4}), "embedded:1").partitions == 4


def test_feeds_of_one_name_in_two_namespaces_have_their_own_topics() -> None:
    assert [feed_topic(feed()), feed_topic(feed(namespace="desk"))] == ["market", "desk.market"]


def test_ingest_is_told_source_history_and_paths_beside_the_manifest() -> None:
    history = {"candles": 50, "files": [{"symbol": "BTCUSDT", "interval": "1m", "path": "h.feather", "shift": True}]}
    one = feed(source={"synthetic": {"seed": 3}}, history=history, watermarkDelay="250ms")
    settings = ingest_settings(
        one,
        kafka=kafka_settings(one, "x:1"),
        symbols=("BTC/USDT",),
        intervals=("1s", "1m"),
        folder=FOLDER,
        session=77,
        status_listen="unix:/s",
        final_status="/f",
    )
    assert (settings.source, settings.session, settings.history_candles) == ("synthetic", 77, 50)
    assert settings.watermark_delay_ms == 250
    assert settings.final_status == "/f"
    (file,) = settings.history_files
    assert (file.symbol, file.interval, file.path) == ("BTC/USDT", "1m", "/manifests/h.feather")
    assert settings.options["history_shift"] is True


def test_an_exchange_has_no_session_of_its_own() -> None:
    one = feed(source={"binance": {"baseUrl": "ws://localhost:1"}})
    settings = ingest_settings(
        one, kafka=kafka_settings(one, "x:1"), symbols=[], intervals=[], folder=FOLDER, session=77, status_listen=""
    )
    assert (settings.source, settings.session, settings.history_candles) == ("binance", 0, 0)
    assert read_options("binance", settings.options, BinanceOptions).base_url == "ws://localhost:1"


@pytest.mark.parametrize(("speed", "expected"), [(5, 5.0), ("max", "max")])
def test_ingest_accepts_the_options_of_a_replay(speed: object, expected: object) -> None:
    files = ["a.frames.gz", {"path": "/abs/t.csv", "symbol": "BTCUSDT"}]
    one = feed(source={"replay": {"files": files, "speed": speed, "loop": True}})
    options = read_options("replay", source_options(one, FOLDER), ReplayOptions)
    assert options.speed == expected
    assert options.loop is True
    assert [(file.path, file.symbol) for file in options.files if not isinstance(file, str)] == [
        ("/manifests/a.frames.gz", ""),
        ("/abs/t.csv", "BTC/USDT"),
    ]


def test_ingest_accepts_the_options_of_a_synthetic_market() -> None:
    one = feed(source={"synthetic": {"seed": 3, "tradesPerSecond": 7, "startPrice": 10, "quietShare": 0}})
    options = read_options("synthetic", source_options(one, FOLDER), SyntheticOptions)
    assert (options.seed, options.trades_per_second, options.start_price, options.quiet_share) == (3, 7.0, 10.0, 0.0)


def test_the_aggregator_is_told_intervals_and_lateness() -> None:
    one = feed(allowedLateness="2s")
    settings = aggregator_settings(
        one,
        kafka=kafka_settings(one, "x:1"),
        intervals=("1s",),
        status_listen="unix:/s",
        data_dir="/d",
        checkpoint_ms=9,
    )
    assert (settings.intervals, settings.allowed_lateness_ms, settings.checkpoint_ms) == (["1s"], 2_000, 9)


def test_a_worker_is_told_its_segment_and_transport() -> None:
    one = pool(segment={"candles": 256, "series": 9}, transport="Pipe")
    kafka = kafka_settings(feed(), "x:1")
    served = feed_settings(one, worker="pool-0", kafka=kafka, listen="unix:/a", shm_dir="/s", rings_dir="/r", token="t")
    assert (served.segment_rows, served.segment_series, served.transport, served.token) == (256, 9, "Pipe", "t")
    supervised = supervisor_settings(one, worker="pool-0", shm_dir="/s", rings_dir="/r", strategies_dir="/x")
    assert (supervised.transport, supervised.strategies_dir) == ("Pipe", "/x")
