"""What can be looked at: the running instance as plain data, made by the local runtime, drawn by the views."""

from __future__ import annotations

from typing import Final

import msgspec

from chandlery.core.settings import KafkaSecurity, KafkaSettings
from chandlery.core.signals import Signal
from chandlery.core.wording import printable


class TraderRow(msgspec.Struct):
    """One Trader.

    Attributes:
        trader: ``namespace/name``. state, reason, message: as in its status, manifest problems included.
        ready: whether its own process said READY for the generation that is wanted now.
        frame_to_signal_p50_us, frame_to_signal_p99_us: over its newest signals; None without one.
        latency_count: how many those were.
        last_open_time_ms: the newest closed candle it decided on.
        transport: how candles reach its process; while it has none, how they will.
        suspended: as its manifest wants it. told_ms: when its worker last said all this (wall clock); 0: never.
    """

    trader: str
    state: str
    reason: str = ""
    message: str = ""
    ready: bool = False
    strategy: str = ""
    symbols: list[str] = []
    interval: str = ""
    pool: str = ""
    worker: str = ""
    pid: int = 0
    generation: int = 0
    incarnation: int = 0
    warm_have: int = 0
    warm_need: int = 0
    calls: int = 0
    signals: int = 0
    restarts: int = 0
    errors: int = 0
    rss_bytes: int = 0
    last_open_time_ms: int = 0
    last_error: str = ""
    frame_to_signal_p50_us: float | None = None
    frame_to_signal_p99_us: float | None = None
    latency_count: int = 0
    suspended: bool = False
    told_ms: int = 0
    transport: str = ""


class FeedRow(msgspec.Struct):
    """One MarketFeed: its source, what ingest and aggregator say, where its topics are.

    Attributes:
        topic, prefix, partitions: its topics are ``{prefix}{topic}.trades`` and so on, each with so many partitions.
        aggregator_lag: records that the aggregator has not applied yet; behind_ms: for how long the oldest has waited.
        lagging: whether that has been too much for a while; then ``message`` says so.
        missing_ids: trades that the exchange's ids tell of and that haven't come. dropped: frames that couldn't be read, and
            trades that ingest gave up. dead_letters: records that the aggregator couldn't read. reconnects: of ingest.
        replayed: how much of a replay is over, 0 … 1; None: the feed is none, or it has no end.
        watermark_ms: up to where the market's time has come (event time; of the symbol that is furthest); 0: unknown.
    """

    feed: str
    source: str
    bootstrap: str = ""
    signals_topic: str = ""
    connected: bool = False
    finished: bool = False
    session: int = 0
    symbols: list[str] = []
    intervals: list[str] = []
    frames: int = 0
    trades: int = 0
    trades_per_s: float = 0.0
    candles_closed: int = 0
    aggregator_lag: int = 0
    late: int = 0
    duplicate: int = 0
    message: str = ""
    security: KafkaSecurity = KafkaSecurity()
    topic: str = ""
    prefix: str = "chandlery."
    partitions: int = 4
    watermark_ms: int = 0
    behind_ms: int = 0
    lagging: bool = False
    replayed: float | None = None
    missing_ids: int = 0
    dropped: int = 0
    dead_letters: int = 0
    reconnects: int = 0

    def kafka(self) -> KafkaSettings:
        """Where the feed's topics are, and how that Kafka is entered."""
        return KafkaSettings(
            self.bootstrap,
            self.topic or self.feed,
            prefix=self.prefix,
            partitions=self.partitions,
            security=self.security,
        )


class PoolRow(msgspec.Struct):
    """One TraderPool: its workers and their room; ``message``: why its market isn't there, if it isn't."""

    pool: str
    workers: int = 0
    capacity: int = 0
    used: int = 0
    pending: int = 0
    transport: str = ""
    message: str = ""
    feed: str = ""
    ready_workers: int = 0


class SegmentRow(msgspec.Struct):
    """One worker's shared memory.

    Attributes:
        series, series_capacity: in the segment, and how many have room. rings: of its traders.
        ring_depth: signals that wait in them. laps: closed candles that its traders came too late for.
    """

    worker: str
    size_bytes: int = 0
    series: int = 0
    series_capacity: int = 0
    rings: int = 0
    ring_depth: int = 0
    laps: int = 0


class ConsoleRow(msgspec.Struct):
    """REST API and console of the instance. message: what a person should know of its address, or why it isn't there."""

    address: str
    message: str = ""


class ProcessRow(msgspec.Struct):
    """One of our own processes."""

    name: str
    state: str
    pid: int = 0
    restarts: int = 0
    rss_bytes: int = 0
    log: str = ""
    socket: str = ""


class SignalRow(msgspec.Struct):
    """One signal in short.

    Attributes:
        latency_us: from the frame to the broker's acknowledgement, None if unknown.
        state: of its life (core/signal_life.py), empty if unknown.
    """

    id: str
    trader: str
    action: str
    symbol: str
    interval: str
    price: str
    open_time_ms: int
    reason: str = ""
    rule: str = ""
    strategy: str = ""
    strength: float = 0.0
    emitted_wall_ms: int = 0
    forming: bool = False
    latency_us: float | None = None
    state: str = ""


def signal_row(signal: Signal, latency_us: float | None, state: str = "") -> SignalRow:
    """A signal in short."""
    return SignalRow(
        id=signal.id,
        trader=signal.trader,
        action=signal.action,
        symbol=signal.symbol,
        interval=signal.interval,
        price=signal.price,
        open_time_ms=signal.open_time_ms,
        reason=printable(signal.reason),
        rule=signal.rule,
        strategy=signal.strategy,
        strength=signal.strength,
        emitted_wall_ms=signal.emitted_wall_ms,
        forming=signal.forming,
        latency_us=latency_us,
        state=state,
    )


class View(msgspec.Struct):
    """The whole instance, answer of ``GET /v1/view`` on its socket.

    Attributes:
        run, version, state_dir, pid, started_ms: which instance.
        phase: ``starting``, ``running`` or ``stopping``.
        notices: what a person should know now (a manifests folder that is gone, a broken file …).
        console: its own; None: it was asked not to have one.
    """

    run: str
    version: str
    state_dir: str
    pid: int
    started_ms: int
    phase: str = "starting"
    manifests: list[str] = []
    feeds: list[FeedRow] = []
    pools: list[PoolRow] = []
    traders: list[TraderRow] = []
    processes: list[ProcessRow] = []
    signals: list[SignalRow] = []
    notices: list[str] = []
    segments: list[SegmentRow] = []
    console: ConsoleRow | None = None


encode_view: Final = msgspec.json.Encoder().encode
decode_view: Final = msgspec.json.Decoder(View).decode
