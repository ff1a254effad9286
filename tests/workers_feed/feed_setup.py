"""What the feed's tests share: settings, a writer of candles, a supervisor of sorts, an HTTP client."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from chandlery.core import signals, wire
from chandlery.core.assignment import Assignment, TraderAssignment, content_hash
from chandlery.core.settings import FeedSettings, KafkaSettings
from chandlery.core.topics import partition_of, topics_of
from chandlery.core.wire import CandlesRecord, CandleUpdate
from chandlery.workers.feed.service import Feed
from chandlery.workers.segment import SegmentReader, SignalRing

MINUTE = 60_000
DEADLINE_S = 30.0


async def until(what: str, condition: Callable[[], Any], deadline_s: float = DEADLINE_S) -> Any:
    """Poll until ``condition`` gives something true (it may be a coroutine function); say what was waited for."""
    end = time.monotonic() + deadline_s
    while True:
        value = condition()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        assert time.monotonic() < end, f"after {deadline_s:.0f} s still not: {what} (last seen: {value!r})"
        await asyncio.sleep(0.01)


def feed_settings(folder: Path, kafka: KafkaSettings, **changes: Any) -> FeedSettings:
    """Settings of a worker ``w-0`` that lives in ``folder``."""
    settings = FeedSettings(
        worker="w-0",
        kafka=kafka,
        listen=f"unix:{folder}/api.sock",
        shm_dir=str(folder / "shm"),
        rings_dir=str(folder / "rings"),
        segment_rows=500,
        segment_series=16,
    )
    return msgspec.structs.replace(settings, **changes)


def trader(name: str, symbols: list[str], interval: str = "1m", **changes: Any) -> TraderAssignment:
    """A Trader of namespace ``desk``."""
    base = TraderAssignment(trader=f"desk/{name}", uid=f"uid-{name}", strategy="x", symbols=symbols, interval=interval)
    return msgspec.structs.replace(base, **changes)


def assignment(sequence: int, *traders: TraderAssignment, worker: str = "w-0") -> Assignment:
    """An assignment with the right hash."""
    return Assignment(worker, sequence, content_hash(list(traders)), list(traders))


def candle(
    open_time_ms: int,
    state: wire.CandleState = "closed",
    *,
    interval: str = "1m",
    close: str = "100.5",
    revision: int = 0,
    prev: int | None = None,
    **changes: Any,
) -> CandleUpdate:
    """A candle of one minute; its predecessor the minute before."""
    if prev is None:
        prev = open_time_ms - MINUTE if open_time_ms >= MINUTE else -1
    update = CandleUpdate(interval, open_time_ms, prev, state, revision, "100", "101", "99", close, "7.25", 3)
    return msgspec.structs.replace(update, **changes)


class CandleWriter:
    """Writes candle records as the aggregator does: one ``seq`` a symbol over all topics."""

    def __init__(self, kafka: KafkaSettings, producer: AIOKafkaProducer) -> None:
        self.kafka = kafka
        self.topics = topics_of(kafka)
        self.producer = producer
        self.seq: dict[str, int] = {}

    async def write(
        self, topic: str, symbol: str, *updates: CandleUpdate, session: int = 0, seq: int | None = None
    ) -> None:
        """One record."""
        if seq is None:
            seq = self.seq[symbol] = self.seq.get(symbol, 0) + 1
        await self.raw(topic, symbol.encode(), wire.encode(CandlesRecord(symbol, session, seq, list(updates))), symbol)

    async def raw(self, topic: str, key: bytes | None, value: bytes, symbol: str) -> None:
        """Any bytes, in the partition of ``symbol``."""
        partition = partition_of(symbol, self.kafka.partitions)
        await self.producer.send(topic, value, key=key, partition=partition)

    async def flush(self) -> None:
        """Everything written is acknowledged."""
        await self.producer.flush()

    async def closed(self, symbol: str, first: int, count: int, **changes: Any) -> None:
        """``count`` closed minutes from minute ``first`` on; the close price is the minute's number."""
        for minute in range(first, first + count):
            update = candle(minute * MINUTE, close=str(minute), **changes)
            await self.write(self.topics.candles, symbol, update)
        await self.flush()


@asynccontextmanager
async def candle_writer(kafka: KafkaSettings) -> AsyncIterator[CandleWriter]:
    """A writer with a producer of its own."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, enable_idempotence=True)
    await producer.start()
    try:
        yield CandleWriter(kafka, producer)
    finally:
        await producer.stop()


@asynccontextmanager
async def running_feed(settings: FeedSettings) -> AsyncIterator[Feed]:
    """A feed in this process; ended in order."""
    feed = Feed(settings)
    stop = asyncio.Event()
    try:
        await feed.start()
        task = asyncio.create_task(feed.run(stop))
        yield feed
        stop.set()
        await task
    finally:
        await feed.stop()


@asynccontextmanager
async def api(settings: FeedSettings, token: str = "") -> AsyncIterator[aiohttp.ClientSession]:
    """A client of the feed's API; URLs begin with ``http://feed``."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    connector = aiohttp.UnixConnector(settings.listen.removeprefix("unix:"))
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        yield session


async def put(session: aiohttp.ClientSession, given: Assignment) -> tuple[int, dict[str, Any]]:
    """Push an assignment: status code and answer."""
    async with session.put("http://feed/v1/assignment", data=msgspec.json.encode(given)) as response:
        return response.status, json.loads(await response.read())


async def get(session: aiohttp.ClientSession, path: str) -> Any:
    """A GET's JSON."""
    async with session.get(f"http://feed{path}") as response:
        return json.loads(await response.read())


class Supervisor:
    """The other end of ``control.sock``: keeps what it is told and says what it is told to say."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.heard: list[dict[str, Any]] = []
        self._task = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        while line := await self._reader.readline():
            self.heard.append(json.loads(line))

    def say(self, **message: Any) -> None:
        """Send one line."""
        self._writer.write(msgspec.json.encode({"type": "status", **message}) + b"\n")

    def raw(self, line: bytes) -> None:
        """Send any bytes."""
        self._writer.write(line)

    @property
    def gone(self) -> bool:
        """Whether the feed closed the connection."""
        return self._task.done()

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@asynccontextmanager
async def supervisor(settings: FeedSettings) -> AsyncIterator[Supervisor]:
    """Connect to the feed as its supervisor."""
    path = f"{settings.rings_dir}/control.sock"
    reader, writer = await asyncio.open_unix_connection(path, limit=1 << 24)
    connection = Supervisor(reader, writer)
    try:
        yield connection
    finally:
        await connection.close()


def rows(settings: FeedSettings, symbol: str, interval: str = "1m") -> list[tuple[int, float]]:
    """(open time, close) of every closed row that a trader can see; empty while there is no such series."""
    with SegmentReader.open(f"{settings.shm_dir}/segment") as reader:
        series = reader.series(symbol, interval)
        if series is None:
            return []
        window = series.window(series.count, reader.rows - reader.guard_rows)
        return [(int(at), float(close)) for at, close in zip(window.open_time, window.close, strict=True)]


def make_ring(settings: FeedSettings, name: str, slots: int = 64, incarnation: int = 1) -> SignalRing:
    """The signal ring of trader ``desk/NAME``, as the supervisor makes it."""
    return SignalRing.create(
        f"{settings.rings_dir}/desk__{name}@{incarnation}.ring", trader=f"desk/{name}", slots=slots
    )


def signal(name: str, number: int, symbol: str = "BTC/USDT", **changes: Any) -> signals.Signal:
    """Signal ``number`` of trader ``desk/NAME``; its reason is its number."""
    base = signals.Signal(
        id=signals.signal_id(
            trader=f"desk/{name}",
            uid="u",
            code="c",
            symbol=symbol,
            interval="1m",
            open_time_ms=number,
            rule="r",
            ordinal=0,
        ),
        trader=f"desk/{name}",
        strategy="x",
        code="c",
        rule="r",
        ordinal=0,
        action="buy",
        symbol=symbol,
        interval="1m",
        open_time_ms=number,
        session=0,
        price="100.5",
        strength=0.5,
        reason=str(number),
        incarnation=1,
    )
    return msgspec.structs.replace(base, **changes)


async def read_topic(kafka: KafkaSettings, topic: str) -> list[bytes]:
    """Every record of a topic, partition by partition."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, enable_auto_commit=False)
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in range(kafka.partitions)]
        ends = await consumer.end_offsets(partitions)
        consumer.assign(partitions)
        values: list[bytes] = []
        for partition in partitions:
            consumer.seek(partition, 0)
        while any([await consumer.position(partition) < ends[partition] for partition in partitions]):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                values.extend(record.value for record in records)
        return values
    finally:
        await consumer.stop()


async def published(kafka: KafkaSettings) -> tuple[list[signals.Signal], list[signals.Completion]]:
    """Signals and completions on the ``signals`` topic."""
    records = [signals.decode_record(value) for value in await read_topic(kafka, topics_of(kafka).signals)]
    return (
        [record for record in records if isinstance(record, signals.Signal)],
        [record for record in records if isinstance(record, signals.Completion)],
    )
