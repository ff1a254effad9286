"""The aggregator as a process of its own, and what it left in the topics."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from tests.stream_aggregation.aggregation_oracle import Reader, Trade

from chandlery.core.settings import AggregatorSettings, KafkaSettings
from chandlery.core.topics import topics_of
from chandlery.core.wire import CandlesRecord, DeadLetter, LateRecord, decode_candles, decode_dead_letter, decode_late

#: For anything that takes a second on an idle machine.
DEADLINE_S = 60.0


class AggregatorProcess:
    """``python -m chandlery.stream.aggregator`` with a folder of its own."""

    def __init__(self, folder: Path, settings: AggregatorSettings) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # Unix socket paths are short: pytest's folders may not be.
        self.socket = f"/tmp/agg-{os.getpid()}-{abs(hash(str(folder))) % 10**8}.sock"
        self.settings = msgspec.structs.replace(
            settings,
            status_listen=f"unix:{self.socket}",
            data_dir=str(folder / "data"),
            final_status=str(folder / "final.json"),
        )
        self.folder = folder
        self.starts = 0
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        config = self.folder / "config.json"
        config.write_bytes(msgspec.json.encode(self.settings))
        self.starts += 1
        with (self.folder / "log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "chandlery.stream.aggregator", "--config", str(config), stdout=log, stderr=log
            )

    @property
    def process(self) -> asyncio.subprocess.Process:
        assert self._process is not None, "not started"
        return self._process

    async def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
        await self.process.wait()

    async def terminate(self) -> int:
        """SIGTERM; its exit code."""
        if self.process.returncode is None:
            self.process.terminate()
        return await asyncio.wait_for(self.process.wait(), DEADLINE_S)

    async def status(self) -> dict[str, Any]:
        """``GET /v1/status``, or {} while it doesn't answer."""
        try:
            async with (
                aiohttp.ClientSession(connector=aiohttp.UnixConnector(self.socket)) as client,
                client.get("http://localhost/v1/status") as answer,
            ):
                status: dict[str, Any] = await answer.json()
                return status
        except aiohttp.ClientError:
            return {}

    async def until(self, holds: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """Poll the status until ``holds``."""
        end = time.monotonic() + DEADLINE_S
        while True:
            status = await self.status()
            if status and holds(status):
                return status
            if self.process.returncode is not None:
                raise AssertionError(f"the aggregator ended ({self.process.returncode}):\n{self.log()}")
            if time.monotonic() > end:
                raise AssertionError(f"not within {DEADLINE_S:g} s: {what}; status {status}\n{self.log()}")
            await asyncio.sleep(0.05)

    async def until_ready(self) -> dict[str, Any]:
        """Wait until partitions are assigned and recovered."""
        return await self.until(lambda status: bool(status["ready"]), "ready")

    async def until_records(self, count: int) -> dict[str, Any]:
        """Wait until this process has applied ``count`` records."""
        return await self.until(lambda status: bool(status["records"] >= count), f"{count} records applied")

    async def until_applied(self, ends: dict[int, int]) -> dict[str, Any]:
        """Wait until every partition is applied and saved up to ``ends``."""
        return await self.until(
            lambda status: (
                status["ready"]
                and all(
                    status["partitions"][str(number)]["committed"] >= end if end else True
                    for number, end in ends.items()
                )
            ),
            f"input applied up to {ends}",
        )

    def final(self) -> dict[str, Any]:
        """What it wrote as its last status."""
        final: dict[str, Any] = msgspec.json.decode(Path(self.settings.final_status).read_bytes())
        return final

    def log(self) -> str:
        """The end of its log."""
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")[-4_000:]


async def read_topic(kafka: KafkaSettings, topic: str) -> list[Any]:
    """Every record of a topic, in order within each partition."""
    partitions = [TopicPartition(topic, number) for number in range(kafka.partitions)]
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, enable_auto_commit=False)
    await consumer.start()
    records: dict[TopicPartition, list[Any]] = {tp: [] for tp in partitions}
    try:
        ends = await consumer.end_offsets(partitions)
        waiting = [tp for tp in partitions if ends[tp]]
        if waiting:
            consumer.assign(waiting)
            await consumer.seek_to_beginning(*waiting)
        deadline = time.monotonic() + DEADLINE_S
        while any(not records[tp] or records[tp][-1].offset < ends[tp] - 1 for tp in waiting):
            assert time.monotonic() < deadline, (
                f"{topic}: read { ({tp: len(records[tp]) for tp in waiting}) } of {ends}"
            )
            for tp, batch in (await consumer.getmany(timeout_ms=200)).items():
                records[tp] += batch
    finally:
        await consumer.stop()
    return [record for batch in records.values() for record in batch]


class Appended:
    """What stands in the output topics, with repetitions checked to be equal and then left out.

    Attributes:
        readers: a reader for each symbol's newest session, having read everything in order.
        repetitions: candle records that were a second or later copy.
        dead: dead letters by (partition, offset).
    """

    def __init__(self) -> None:
        self.readers: dict[str, Reader] = defaultdict(Reader)
        self.repetitions = 0
        self.dead: dict[tuple[int, int], DeadLetter] = {}

    @classmethod
    async def read(cls, kafka: KafkaSettings, session: int) -> Appended:
        """Read all topics; only records of ``session``."""
        appended = cls()
        names = topics_of(kafka)
        first: dict[tuple[str, int, str], CandlesRecord] = {}
        values: dict[tuple[str, int, str], bytes] = {}
        for destination, topic in (
            ("live", names.candles_live),
            ("fast", names.candles_fast),
            ("closed", names.candles),
        ):
            last: dict[str, int] = {}
            for raw in await read_topic(kafka, topic):
                record = decode_candles(raw.value)
                if record.session != session:
                    continue
                assert raw.key == record.symbol.encode()
                key = (record.symbol, record.seq, destination)
                if key in values:
                    assert values[key] == raw.value, f"a repetition of {key} differs from the first"
                    appended.repetitions += 1
                    continue
                assert record.seq > last.get(record.symbol, 0), f"{topic}: {key} came after seq {last[record.symbol]}"
                last[record.symbol] = record.seq
                values[key], first[key] = raw.value, record
        appended._follow(first)
        await appended._read_late(kafka, names.trades_late, session)
        for raw in await read_topic(kafka, names.dead_letters):
            letter = decode_dead_letter(raw.value)
            where = (letter.partition, letter.offset)
            assert appended.dead.setdefault(where, letter) == letter
        return appended

    def _follow(self, first: dict[tuple[str, int, str], CandlesRecord]) -> None:
        order = {"fast": 0, "closed": 1, "live": 2}
        seqs: dict[str, set[int]] = defaultdict(set)
        for key in sorted(first, key=lambda each: (each[0], each[1], order[each[2]])):
            self.readers[key[0]].read_record(key[2], first[key])
            seqs[key[0]].add(key[1])
        for symbol, seen in seqs.items():
            missing = set(range(1, max(seen) + 1)) - seen
            assert not missing, f"{symbol}: emissions lost: {sorted(missing)[:10]}"

    async def _read_late(self, kafka: KafkaSettings, topic: str, session: int) -> None:
        seen: set[tuple[str, int]] = set()
        for raw in await read_topic(kafka, topic):
            late: LateRecord = decode_late(raw.value)
            if late.session != session:
                continue
            for trade in map(Trade, late.id, late.time_ms, late.price, late.quantity):
                if (late.symbol, trade.id) not in seen:
                    seen.add((late.symbol, trade.id))
                    self.readers[late.symbol].late.append(trade)
