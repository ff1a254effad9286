"""The fan-out by Kafka: one aiokafka consumer a reader, the embedded broker of ``chandlery up`` in between.

``python -m benchmarks._fanout_kafka FOLDER`` is the broker: says its process id and address, and lives as long as its
stdin is open. A consumer takes whatever a fetch brings, candle by candle. The producer waits for no batch (linger 0) and
for the leader's acknowledgement alone.
"""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from benchmarks._fanout_stage import Reader, Unmeasured, Writer
from benchmarks._fanout_work import CASES, Case, Leg, Log, OwnWindow, as_message, candles, strategy_input
from benchmarks.harness import say
from chandlery.core.clocks import now_ns
from chandlery.core.errors import ChandleryError
from chandlery.core.processes import child_environment
from chandlery.core.settings import KafkaSettings
from chandlery.core.topics import topics_of
from chandlery.stream.broker import EmbeddedBroker
from chandlery.stream.topics import ensure_topics

#: At most this long a broker holds a fetch back when there is nothing, ms.
_FETCH_MS: Final = 500


def _settings(bootstrap: str) -> KafkaSettings:
    return KafkaSettings(bootstrap=bootstrap, feed="fanout", partitions=1)


async def make_topics(bootstrap: str) -> None:
    """A topic a case."""
    await ensure_topics(_settings(bootstrap))


def _places(bootstrap: str) -> dict[Case, TopicPartition]:
    topics = topics_of(_settings(bootstrap))
    return {"one": TopicPartition(topics.trades, 0), "all": TopicPartition(topics.candles, 0)}


class _KafkaWriter:
    def __init__(self, bootstrap: str) -> None:
        self._places = _places(bootstrap)
        self._loop = asyncio.new_event_loop()
        self._producer = self._loop.run_until_complete(self._start(bootstrap))

    @staticmethod
    async def _start(bootstrap: str) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks=1, linger_ms=0)
        await producer.start()
        return producer

    def publish(self, leg: Leg) -> list[int]:
        return self._loop.run_until_complete(self._publish(leg))

    async def _publish(self, leg: Leg) -> list[int]:
        """As :func:`benchmarks._fanout_work.pace`, but the producer's own tasks run meanwhile."""
        place = self._places[leg.case]
        stamps: list[int] = []
        due_ns = now_ns() + leg.period_ns
        for candle in candles(leg.first, leg.candles):
            early_ns = due_ns - now_ns()
            await asyncio.sleep(max(0, early_ns) / 1e9)
            stamps.append(now_ns() if early_ns > 0 else due_ns)
            await self._producer.send(place.topic, as_message(*candle), partition=place.partition)
            due_ns += leg.period_ns
        await self._producer.flush()
        return stamps


class _KafkaReader:
    def __init__(self, bootstrap: str, cases: Sequence[Case]) -> None:
        self._own: Final = {case: OwnWindow() for case in CASES}
        self._loop = asyncio.new_event_loop()
        places = _places(bootstrap)
        self._cases = {places[case].topic: case for case in cases}
        self._consumer = self._loop.run_until_complete(self._start(bootstrap, [places[case] for case in cases]))

    @staticmethod
    async def _start(bootstrap: str, places: Sequence[TopicPartition]) -> AIOKafkaConsumer:
        consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, fetch_max_wait_ms=_FETCH_MS)
        await consumer.start()
        consumer.assign(list(places))
        await consumer.seek_to_end(*places)
        for place in places:
            await consumer.position(place)
        return consumer

    def read(self, case: Case, last_open_ms: int, log: Log) -> None:
        self._loop.run_until_complete(self._read(self._own[case], last_open_ms, log))

    async def _read(self, own: OwnWindow, last_open_ms: int, log: Log) -> None:
        async for record in self._consumer:
            columns = own.push(record.value)
            in_hand_ns = now_ns()
            strategy_input(columns[4])
            log.read_ns.append(now_ns())
            log.in_hand_ns.append(in_hand_ns)
            log.open_ms.append(columns[0][-1])
            if columns[0][-1] >= last_open_ms:
                return


class Kafka:
    """One aiokafka consumer a reader; the broker is started once for the run and idle in the others' turns."""

    name = "aiokafka"

    def __init__(self) -> None:
        self.daemons: Sequence[int] = ()
        self._bootstrap = ""

    def use(self, pid: int, bootstrap: str) -> None:
        """Take a broker that has the topics of :func:`make_topics`."""
        self.daemons, self._bootstrap = (pid,), bootstrap

    @contextmanager
    def broker(self, folder: Path) -> Iterator[None]:
        """A broker in a process of its own, since what forks here must have no threads."""
        words = [sys.executable, "-m", "benchmarks._fanout_kafka", str(folder)]
        say("starting a broker")
        with subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=child_environment(), text=True
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                line = process.stdout.readline()
                if line:
                    self.use(*json.loads(line))
                yield
            finally:
                process.stdin.close()

    @contextmanager
    def prepare(self, folder: str, readers: int) -> Iterator[None]:
        """Both topics are there since the broker is."""
        if not self._bootstrap:
            raise Unmeasured("the embedded broker doesn't start; its own words are above")
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it tells each retry of a new topic's leader
        yield

    def writer(self) -> Writer:
        """A producer."""
        return _KafkaWriter(self._bootstrap)

    def reader(self, index: int) -> Reader:
        """A consumer at the topic's end; the first of both topics, the others of the second."""
        return _KafkaReader(self._bootstrap, CASES if index == 0 else ("all",))


async def _serve(folder: Path) -> None:
    embedded = EmbeddedBroker(folder / "broker")
    try:
        await embedded.start()
        await make_topics(embedded.bootstrap)
        print(json.dumps([embedded.pid, embedded.bootstrap]), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await embedded.stop()
    finally:
        embedded.kill()


def main(words: Sequence[str]) -> int:
    """Be the broker."""
    try:
        asyncio.run(_serve(Path(words[0])))
    except ChandleryError as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
