"""What the readers' tests share: signals and completions as a feed writes them, and readers that run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer

from chandlery.console.backend import FeedKafka
from chandlery.console.market import SignalEvent, SignalQuery
from chandlery.console.reading import Readers, open_readers
from chandlery.console.settings import ConsoleSettings
from chandlery.core.settings import KafkaSettings
from chandlery.core.signals import Completion, Signal, SignalStamps, encode
from chandlery.core.topics import topics_of

ALL = SignalQuery()


def signal_number(number: int, **changes: Any) -> Signal:
    """A signal whose id and price are its number."""
    base = Signal(
        id=f"{number + 1:032x}",
        trader="desk/a",
        strategy="sma-cross",
        code="c0de",
        rule="cross",
        ordinal=0,
        action="buy",
        symbol="BTC/USDT",
        interval="1m",
        open_time_ms=60_000 * number,
        session=0,
        price=str(number),
        strength=0.5,
        reason="crossed",
        emitted_wall_ms=1_000_000 + number,
        stamps=SignalStamps(
            received_ns=1_000_000,
            aggregated_ns=1_100_000,
            emitted_ns=1_150_000,
            fed_ns=1_200_000,
            published_ns=1_210_000,
            woken_ns=1_220_000,
            decided_ns=1_250_000,
            signalled_ns=1_260_000,
            wall_offset_ns=1_700_000_000_000_000_000,
        ),
    )
    return msgspec.structs.replace(base, **changes)


def completion_of(signal: Signal, acknowledged_ns: int = 2_000_000, **changes: Any) -> Completion:
    """What the feed adds once the broker has a signal."""
    return msgspec.structs.replace(
        Completion(signal.id, signal.trader, acknowledged_ns, 1_700_000_000_000_000_000), **changes
    )


class SignalWriter:
    """Writes into one feed's ``signals`` topic."""

    def __init__(self, kafka: KafkaSettings, producer: AIOKafkaProducer) -> None:
        self.topic = topics_of(kafka).signals
        self.producer = producer

    async def write(self, *records: Signal | Completion, partition: int = 0) -> None:
        """Records, acknowledged."""
        sent = [await self.producer.send(self.topic, encode(record), partition=partition) for record in records]
        await asyncio.gather(*sent)

    async def numbers(self, first: int, count: int, *, partitions: int = 1, whole: bool = False) -> None:
        """Signals by number, each in partition ``number % partitions``."""
        sent = []
        for number in range(first, first + count):
            signal = signal_number(number)
            records = [signal, completion_of(signal)] if whole else [signal]
            sent += [
                await self.producer.send(self.topic, encode(record), partition=number % partitions)
                for record in records
            ]
        await asyncio.gather(*sent)


@asynccontextmanager
async def signal_writer(kafka: KafkaSettings) -> AsyncIterator[SignalWriter]:
    """A writer with a producer of its own."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, enable_idempotence=True)
    await producer.start()
    try:
        yield SignalWriter(kafka, producer)
    finally:
        await producer.stop()


def settings_with(**changes: Any) -> ConsoleSettings:
    """Settings of a console."""
    return msgspec.structs.replace(ConsoleSettings(), **changes)


@asynccontextmanager
async def running_readers(
    kafkas: KafkaSettings | Callable[[], Sequence[FeedKafka]], transport: str = "SharedMemory", **changes: Any
) -> AsyncIterator[Readers]:
    """Readers of one feed ``desk/feed``, or of several; ended in order."""
    feeds = kafkas if callable(kafkas) else lambda: [FeedKafka("desk/feed", kafkas)]
    readers = open_readers(feeds, lambda trader: transport, settings_with(**changes))
    await readers.start()
    try:
        yield readers
    finally:
        await readers.stop()


class Taken:
    """What a follower was told, as it came."""

    def __init__(self, events: AsyncIterator[SignalEvent]) -> None:
        self._events = events
        self.events: list[SignalEvent] = []
        self._task = asyncio.create_task(self._take())

    async def _take(self) -> None:
        async for event in self._events:
            self.events.append(event)

    @property
    def prices(self) -> list[int]:
        """The numbers of the signals told, each at its first event."""
        return list(dict.fromkeys(int(event.signal.price) for event in self.events))

    async def stop(self) -> None:
        """Follow no longer."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task


@asynccontextmanager
async def taking(events: AsyncIterator[SignalEvent]) -> AsyncIterator[Taken]:
    """Take events as they come."""
    taken = Taken(events)
    try:
        yield taken
    finally:
        await taken.stop()


def in_memory(readers: Readers) -> int:
    """Signals that a page of everything has."""
    return len(readers.signals.page(SignalQuery(limit=1_000_000))[0])


def reads(readers: Readers) -> bool:
    """Whether the signals of every feed are read."""
    return bool(readers.states()) and set(readers.states().values()) == {"reading"}
