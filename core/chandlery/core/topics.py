"""Names of the topics, and which partition a symbol lives in.

The partition is the one that Kafka's own default partitioner chooses for the key (murmur2 with the Java
client's seed), so that foreign producers agree with ours, and so that the trades and the candles of a symbol
have the same partition number.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from chandlery.core.settings import KafkaSettings

#: What Kafka knows the clients by that a signal's way goes through (``client.id``), in brokers' logs and quotas too.
INGEST_CLIENT: Final = "chandlery-ingest"
AGGREGATOR_CLIENT: Final = "chandlery-aggregator"
CANDLES_CLIENT: Final = "chandlery-feed-candles"
SIGNALS_CLIENT: Final = "chandlery-feed-signals"


class Topics(NamedTuple):
    """Full topic names of one feed."""

    trades: str
    candles_live: str
    candles_fast: str
    candles: str
    trades_late: str
    dead_letters: str
    signals: str


def topics_of(kafka: KafkaSettings) -> Topics:
    """Names of a feed's topics: ``{prefix}{feed}.trades`` and so on."""
    base = f"{kafka.prefix}{kafka.feed}."
    return Topics(
        trades=base + "trades",
        candles_live=base + "candles-live",
        candles_fast=base + "candles-fast",
        candles=base + "candles",
        trades_late=base + "trades-late",
        dead_letters=base + "dead-letters",
        signals=base + "signals",
    )


def aggregator_group(kafka: KafkaSettings) -> str:
    """The consumer group of a feed's aggregators. Nobody else has one: the others choose partitions themselves."""
    return f"{kafka.prefix}{kafka.feed}.aggregator"


def murmur2(data: bytes) -> int:
    """MurmurHash2, 32 bits, seed 0x9747b28c, as ``org.apache.kafka.common.utils.Utils.murmur2`` (unsigned)."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = 0x9747B28C ^ len(data)
    whole = len(data) & ~3
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    tail = data[whole:]
    if tail:
        h = (h ^ int.from_bytes(tail, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15


@lru_cache(maxsize=65_536)
def partition_of(symbol: str, partitions: int) -> int:
    """Partition (0 … partitions - 1) of a symbol's records in every topic of its feed."""
    return (murmur2(symbol.encode()) & 0x7FFFFFFF) % partitions
