"""What stands on a feed's topics after a run, read by a plain consumer."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final

import msgspec
from aiokafka import AIOKafkaConsumer

from chandlery.core.settings import KafkaSettings
from chandlery.core.signals import Completion, Life, Signal, decode_record
from chandlery.core.topics import topics_of
from chandlery.core.wire import CandleUpdate, TradesRecord, decode_candles, decode_input

# A few thousand records on this machine take under a second.
_READ_S: Final = 60.0

#: (symbol, interval, open time in ms)
CandleKey = tuple[str, str, int]


@dataclass
class OnTopics:
    """Everything of one run.

    Attributes:
        ids: trade ids by symbol, in the order of the topic. watermark_ms: the last watermark by symbol.
        candles: updates of closed candles by candle, in the order of the topic, history left out.
        backfilled: how many candles of history there are, by (symbol, interval).
        forming: the last update of a forming candle, by candle.
        signals: signal records as they come, each with its completion's stamp where there is one.
        completed: ids of completions. lives: what closes say of signals on forming candles, as they come.
    """

    ids: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    watermark_ms: dict[str, int] = field(default_factory=dict)
    candles: dict[CandleKey, list[CandleUpdate]] = field(default_factory=lambda: defaultdict(list))
    backfilled: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    forming: dict[CandleKey, CandleUpdate] = field(default_factory=dict)
    signals: list[Signal] = field(default_factory=list)
    completed: list[str] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)
    late: int = 0
    dead_letters: int = 0


async def read_topics(kafka: KafkaSettings) -> OnTopics:
    """Read all topics of a feed, from the first record to the last that is there now."""
    names = topics_of(kafka)
    found = OnTopics()
    for value in await _values(kafka.bootstrap, names.trades):
        record = decode_input(value)
        if isinstance(record, TradesRecord):
            found.ids[record.symbol] += record.id
            found.watermark_ms[record.symbol] = max(record.watermark_ms, found.watermark_ms.get(record.symbol, -1))
    for name in (names.candles_fast, names.candles, names.candles_live):
        for value in await _values(kafka.bootstrap, name):
            _add_candles(found, value)
    _add_signals(found, await _values(kafka.bootstrap, names.signals))
    found.late = len(await _values(kafka.bootstrap, names.trades_late))
    found.dead_letters = len(await _values(kafka.bootstrap, names.dead_letters))
    return found


def _add_candles(found: OnTopics, value: bytes) -> None:
    record = decode_candles(value)
    for update in record.updates:
        key = record.symbol, update.interval, update.open_time_ms
        if update.state == "forming":
            found.forming[key] = update
        elif update.backfill:
            found.backfilled[record.symbol, update.interval] += update.state == "closed"
        else:
            found.candles[key].append(update)


def _add_signals(found: OnTopics, values: list[bytes]) -> None:
    completions: dict[str, Completion] = {}
    for value in values:
        record = decode_record(value)
        if isinstance(record, Signal):
            found.signals.append(record)
        elif isinstance(record, Life):
            found.lives.append(record)
        else:
            completions[record.id] = record
            found.completed.append(record.id)
    for signal in found.signals:
        completion = completions.get(signal.id)
        if completion is not None:
            stamp = {"acknowledged_ns": completion.acknowledged_ns}
            signal.stamps = msgspec.structs.replace(signal.stamps, **stamp)


async def _values(bootstrap: str, topic: str) -> list[bytes]:
    """Values of a topic's records, each partition's in order."""
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=bootstrap, group_id=None, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    values: list[bytes] = []
    async with asyncio.timeout(_READ_S):
        await consumer.start()
        try:
            left = {at: end for at, end in (await consumer.end_offsets(list(consumer.assignment()))).items() if end}
            while left:
                for records in (await consumer.getmany(*left, timeout_ms=200)).values():
                    values += [record.value for record in records if record.value is not None]
                for at in [at for at, end in left.items() if at in left and await consumer.position(at) >= end]:
                    del left[at]
        finally:
            await consumer.stop()
    return values
