"""The process on a real broker: what arrives, kill -9, SIGTERM, and a broker that goes and comes back."""

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from tests.stream_ingest.ingest_doubles import ingest_settings, until
from tests.support.exchange_server import ExchangeServer, trade_frame

from chandlery.core.clocks import Stamps, unpack_stamps, wall_offset_ns
from chandlery.core.settings import IngestSettings, KafkaSettings
from chandlery.core.topics import partition_of, topics_of
from chandlery.core.wire import InputRecord, Opening, TradesRecord, decode_input
from chandlery.stream.broker import EmbeddedBroker
from chandlery.stream.ingest.app import Ingest
from chandlery.stream.ingest.status import Status
from chandlery.stream.topics import ensure_topics

_START = 1_723_161_254_000
_SYMBOLS = ("BTC/USDT", "ETH/USDT", "SOL/USDT")


class Stored(NamedTuple):
    """A record as it stands in the topic."""

    partition: int
    key: str
    record: InputRecord
    stamps: Stamps
    timestamp_type: int


async def stored_records(kafka: KafkaSettings) -> list[Stored]:
    """Everything in the topic ``trades``, by partition and offset."""
    topic = topics_of(kafka).trades
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, enable_auto_commit=False)
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in range(kafka.partitions)]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        found: list[Stored] = []
        for partition in partitions:
            consumer.seek(partition, 0)
            while await consumer.position(partition) < ends[partition]:
                for message in (await consumer.getmany(partition, timeout_ms=1_000)).get(partition, []):
                    found.append(_stored(message))
        return found
    finally:
        await consumer.stop()


def _stored(message: Any) -> Stored:
    stamps = unpack_stamps(dict(message.headers)["stamps"], wall_offset_ns())
    return Stored(message.partition, message.key.decode(), decode_input(message.value), stamps, message.timestamp_type)


def ids_of(stored: list[Stored], symbol: str) -> list[int]:
    """Trade ids of a symbol in the topic's order."""
    return [
        trade_id
        for one in stored
        if one.key == symbol and isinstance(one.record, TradesRecord)
        for trade_id in one.record.id
    ]


def _capture(tmp_path: Path, count: int, step_ms: int = 1) -> str:
    path = tmp_path / "market.frames"
    lines = []
    for index in range(count):
        time_ms = _START + index * step_ms
        name = _SYMBOLS[index % 3].replace("/", "")
        lines.append(
            f"{time_ms * 1_000_000} {trade_frame(name, index // 3 + 1, f'{100 + index}.5', '0.25', time_ms)}\n"
        )
    path.write_text("".join(lines), encoding="utf-8")
    return str(path)


class Process:
    """``python -m chandlery.stream.ingest`` as a child, its log in a file."""

    def __init__(self, tmp_path: Path, settings: IngestSettings) -> None:
        self._config = tmp_path / "ingest.json"
        self._config.write_bytes(msgspec.json.encode(settings))
        self._log = tmp_path / "ingest.log"
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "chandlery.stream.ingest", "--config", str(self._config), stderr=log
            )

    async def end(self, number: signal.Signals | None = None, timeout_s: float = 60.0) -> int:
        """Send a signal, if one is given, and wait; returns the exit code."""
        assert self.process is not None
        if number is not None:
            self.process.send_signal(number)
        try:
            return await asyncio.wait_for(self.process.wait(), timeout_s)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
            pytest.fail(f"ingest did not end within {timeout_s} s:\n{self.log}")

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")


@pytest.mark.broker
async def test_a_replay_stands_in_the_topic_whole_in_order_keyed_partitioned_and_stamped(
    tmp_path: Path, kafka_settings: KafkaSettings
) -> None:
    settings = ingest_settings(
        tmp_path, kafka=kafka_settings, source="replay", symbols=list(_SYMBOLS),
        options={"files": [_capture(tmp_path, 30_000)], "speed": "max", "exit_at_end": True},
        final_status=str(tmp_path / "final.json"),
    )  # fmt: skip
    process = Process(tmp_path, settings)
    began_ns = time.monotonic_ns()
    await process.start()
    assert await process.end() == 0, process.log
    stored = await stored_records(kafka_settings)
    for symbol in _SYMBOLS:
        mine = [one for one in stored if one.key == symbol]
        assert mine[0].record == Opening(symbol, 7)
        assert ids_of(stored, symbol) == list(range(1, 10_001))
        assert {one.partition for one in mine} == {partition_of(symbol, kafka_settings.partitions)}
        assert {one.timestamp_type for one in mine} == {1}, "the broker's time, not ours"
        trades = [one for one in mine if isinstance(one.record, TradesRecord) and one.record.id]
        assert all(began_ns < one.stamps.received_ns < time.monotonic_ns() for one in trades)
        assert {one.stamps.exchange_ns for one in trades} == {0}
    status = msgspec.json.decode((tmp_path / "final.json").read_bytes(), type=Status)
    assert (status.finished, status.trades.received, status.trades.appended) == (True, 30_000, 30_000)
    assert status.records == len(stored)


@pytest.mark.broker
async def test_kill_9_and_restart_lose_nothing_and_repeat_only_the_last_second(
    tmp_path: Path, kafka_settings: KafkaSettings
) -> None:
    settings = ingest_settings(
        tmp_path, kafka=kafka_settings, source="replay", symbols=list(_SYMBOLS),
        options={"files": [_capture(tmp_path, 30_000)], "speed": 5, "exit_at_end": True},
        position_file=str(tmp_path / "position.json"),
    )  # fmt: skip
    process = Process(tmp_path, settings)
    for kill in range(3):
        await process.start()
        await until(
            f"positions are written before kill {kill + 1}",
            lambda kill=kill: _acknowledged(tmp_path) > kill * 3_000,  # type: ignore[misc]
            lambda: process.log,
            timeout_s=60,
        )
        await process.end(signal.SIGKILL)
    await process.start()
    assert await process.end() == 0, process.log
    stored = await stored_records(kafka_settings)
    for symbol in _SYMBOLS:
        ids = ids_of(stored, symbol)
        first_seen = list(dict.fromkeys(ids))
        assert first_seen == list(range(1, 10_001)), "nothing is skipped, and nothing is new before its turn"
        assert [one.record for one in stored if one.key == symbol and isinstance(one.record, Opening)] == [
            Opening(symbol, 7)
        ]
        marks = [
            one.record.watermark_ms for one in stored if one.key == symbol and isinstance(one.record, TradesRecord)
        ]
        assert marks[-1] == max(marks)


def _acknowledged(tmp_path: Path) -> int:
    try:
        symbols = json.loads((tmp_path / "position.json").read_bytes())["symbols"]
    except FileNotFoundError:
        return -1
    return sum(position["count"] for position in symbols.values())


@pytest.mark.broker
async def test_sigterm_appends_what_was_received_and_says_so(tmp_path: Path, kafka_settings: KafkaSettings) -> None:
    async with ExchangeServer() as exchange:
        settings = ingest_settings(
            tmp_path, kafka=kafka_settings, source="binance", session=0, symbols=list(_SYMBOLS),
            options={"base_url": exchange.base_url}, final_status=str(tmp_path / "final.json"),
        )  # fmt: skip
        process = Process(tmp_path, settings)
        await process.start()
        await exchange.next_connection(60)
        for trade_id in range(1, 3_001):
            await exchange.send(trade_frame("BTCUSDT", trade_id, "61837.63", "0.02", _START + trade_id))
        assert await process.end(signal.SIGTERM) == 0, process.log
    status = msgspec.json.decode((tmp_path / "final.json").read_bytes(), type=Status)
    ids = ids_of(await stored_records(kafka_settings), "BTC/USDT")
    assert status.trades.received == status.trades.appended == len(ids)
    assert ids == list(range(1, len(ids) + 1))


@pytest.mark.broker
async def test_a_broker_killed_and_back_costs_nothing(tmp_path: Path) -> None:
    own = EmbeddedBroker(tmp_path / "broker")
    await own.start()
    kafka = KafkaSettings(own.bootstrap, f"away-{os.getpid()}")
    settings = ingest_settings(
        tmp_path, kafka=kafka, source="replay", symbols=list(_SYMBOLS),
        options={"files": [_capture(tmp_path, 24_000)], "speed": 2},
    )  # fmt: skip
    ingest = Ingest(settings)
    stop = asyncio.Event()
    task = asyncio.create_task(ingest.run(stop))
    try:
        await until("trades flow", lambda: ingest.counts.appended > 500 or task.done(), ingest.status, 60)
        own.kill()
        appended = ingest.counts.appended
        await until("trades wait", lambda: ingest.counts.received > appended + 1_000 or task.done(), ingest.status, 60)
        await own.start()
        assert own.bootstrap == kafka.bootstrap
        await until("the market ends", lambda: ingest.counts.finished or task.done(), ingest.status, 90)
        stored = await stored_records(kafka)
        for symbol in _SYMBOLS:
            ids = ids_of(stored, symbol)
            assert list(dict.fromkeys(ids)) == list(range(1, 8_001))
        assert ingest.counts.appended == 24_000
        await until("its return is told", lambda: ingest.status().kafka_reconnects >= 1, ingest.status)
        told = {one.name: one.samples[0].value for one in ingest._families() if one.samples}
        assert told["chandlery_ingest_kafka_reconnects"] == ingest.status().kafka_reconnects
        assert told["chandlery_ingest_reconnects"] == 0, "the market never went"
    finally:
        stop.set()
        await task
        await own.stop()


@pytest.mark.broker
async def test_topics_of_another_size_are_refused(tmp_path: Path, kafka_settings: KafkaSettings) -> None:
    await ensure_topics(kafka_settings)
    other = msgspec.structs.replace(kafka_settings, partitions=2)
    process = Process(tmp_path, ingest_settings(tmp_path, kafka=other))
    await process.start()
    assert await process.end() == 2
    assert "partitions" in process.log


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        ("{", 2, "ingest.json"),
        ('{"kafka": {"bootstrap": "x", "feed": "f"}}', 2, "source"),
        (None, 2, "options of the source replay"),
    ],
)
async def test_settings_that_cannot_be_used_end_the_process_with_a_reason(
    tmp_path: Path, content: str | None, code: int, says: str
) -> None:
    settings = ingest_settings(tmp_path, source="replay", options={"speed": "slow"})
    process = Process(tmp_path, settings)
    if content is not None:
        (tmp_path / "ingest.json").write_text(content, encoding="utf-8")
    await process.start()
    assert await process.end() == code
    assert says in process.log
