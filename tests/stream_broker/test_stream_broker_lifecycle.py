"""The embedded broker's life: start, data over restart and kill -9, ports, folder, progress."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from chandlery.core.errors import InputError, InvariantError, MachineError, UnavailableError
from chandlery.core.settings import KafkaSettings
from chandlery.core.topics import topics_of
from chandlery.stream.broker import EmbeddedBroker
from chandlery.stream.broker_ports import PortClaim, claim_port, ephemeral_port, remember_port
from chandlery.stream.topics import end_offsets, ensure_topics

pytestmark = pytest.mark.broker

DEADLINE_S = 60.0


@asynccontextmanager
async def running(broker: EmbeddedBroker) -> AsyncIterator[EmbeddedBroker]:
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


async def eventually(holds: Callable[[], bool], what: str) -> None:
    """Wait until ``holds``; fails naming ``what`` after the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        if holds():
            return
        assert time.monotonic() < deadline, f"not within {DEADLINE_S} s: {what}"
        await asyncio.sleep(0.01)


def settings_for(broker: EmbeddedBroker) -> KafkaSettings:
    return KafkaSettings(bootstrap=broker.bootstrap, feed="life", partitions=2)


async def values_in(bootstrap: str, topic: str) -> list[bytes]:
    """Every value of the topic, partition by partition."""
    ends = await end_offsets(KafkaSettings(bootstrap, "any"), topic)
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in ends]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        values = []
        async with asyncio.timeout(DEADLINE_S):
            for _ in range(sum(ends.values())):
                values.append((await consumer.getone()).value)
        return values
    finally:
        await consumer.stop()


async def test_acknowledged_records_survive_kill_9_and_clients_come_back_by_themselves(tmp_path: Path) -> None:
    async with running(EmbeddedBroker(tmp_path)) as broker:
        kafka = settings_for(broker)
        await ensure_topics(kafka)
        trades = topics_of(kafka).trades
        producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, acks="all", enable_idempotence=True)
        await producer.start()
        acknowledged: list[bytes] = []

        async def produce(first: int, last: int) -> None:
            for number in range(first, last):
                value = b"%d" % number
                await producer.send_and_wait(trades, value, partition=number % 2)
                acknowledged.append(value)

        writing = asyncio.create_task(produce(0, 600))
        await eventually(lambda: len(acknowledged) >= 200, "200 records acknowledged")
        address, first_pid = broker.bootstrap, broker.pid
        broker.kill()
        assert await broker.wait() == -signal.SIGKILL
        await broker.start()
        assert (broker.bootstrap, broker.pid != first_pid) == (address, True)
        async with asyncio.timeout(DEADLINE_S):
            await writing
        await producer.stop()
        # Idempotent: what was sent again after the kill is there once.
        assert sorted(await values_in(kafka.bootstrap, trades), key=int) == acknowledged


async def test_a_later_start_finds_topics_records_and_the_same_port(tmp_path: Path) -> None:
    # Not one of those that others look for, who would take it while nobody has it.
    async with running(EmbeddedBroker(tmp_path, port=ephemeral_port())) as broker:
        kafka = settings_for(broker)
        await ensure_topics(kafka)
        producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)
        await producer.start()
        await producer.send_and_wait(topics_of(kafka).signals, b"one", partition=1)
        await producer.stop()
    async with running(EmbeddedBroker(tmp_path)) as broker:
        assert broker.bootstrap == kafka.bootstrap
        assert await values_in(broker.bootstrap, topics_of(kafka).signals) == [b"one"]
        await ensure_topics(kafka)
    assert (tmp_path / "broker.log.1").exists(), "the log was not rotated at the second start"


async def test_stop_ends_kafka_in_order_and_may_be_repeated(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path)
    await broker.start()
    await broker.stop()
    # 143: the JVM ran its shutdown hooks after SIGTERM; -9 would be the kill after the time allowed.
    assert await broker.wait() == 128 + signal.SIGTERM
    assert (tmp_path / "kafka" / ".kafka_cleanshutdown").exists()
    assert not broker.running
    await broker.stop()


async def test_stop_kills_a_broker_that_does_not_end_in_time(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path)
    await broker.start()
    os.kill(broker.pid, signal.SIGSTOP)
    await broker.stop(timeout_s=0.2)
    assert await broker.wait() == -signal.SIGKILL


async def test_a_broker_that_was_never_started_says_so(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path)
    for ask in (lambda: broker.bootstrap, lambda: broker.pid):
        with pytest.raises(InvariantError, match="before it was started"):
            ask()
    await broker.stop()
    broker.kill()


async def test_progress_tells_each_step_and_ends_at_the_address(tmp_path: Path) -> None:
    told: list[tuple[str, float | None]] = []
    broker = EmbeddedBroker(tmp_path)
    await broker.start(lambda line, fraction: told.append((line, fraction)))
    await broker.stop()
    assert f"starting Kafka at {broker.bootstrap}" in [line for line, _ in told]
    assert told[-1] == (f"Kafka is ready at {broker.bootstrap}", 1.0)


async def test_a_port_that_was_asked_for_and_is_taken_is_refused_with_its_holder(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(MachineError) as caught:
            await EmbeddedBroker(tmp_path, port=port).start()
    assert f"port {port} is held by pid {os.getpid()} (" in str(caught.value)
    assert "choose another port" in str(caught.value)


async def test_an_asked_for_port_is_used(tmp_path: Path) -> None:
    port = ephemeral_port()
    async with running(EmbeddedBroker(tmp_path, port=port)) as broker:
        assert broker.bootstrap == f"127.0.0.1:{port}"


async def test_without_a_wish_a_taken_port_is_passed_over(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        remember_port(tmp_path, port)  # as a start before did
        async with running(EmbeddedBroker(tmp_path)) as broker:
            assert broker.bootstrap != f"127.0.0.1:{port}"


async def test_a_port_lost_between_choice_and_bind_is_exchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What listens somewhere may be quicker than the broker: that takes another port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        lost = taken.getsockname()[1]
        free = ephemeral_port()
        # A stranger, who knows nothing of claims, was quicker.
        choices = iter([PortClaim(lost, socket.socket()), claim_port(free)])
        monkeypatch.setattr("chandlery.stream.broker.next_free_port", lambda **_: next(choices))
        async with running(EmbeddedBroker(tmp_path)) as broker:
            assert broker.bootstrap == f"127.0.0.1:{free}"


async def test_a_folder_in_use_is_refused_with_the_owners_pid(tmp_path: Path) -> None:
    async with running(EmbeddedBroker(tmp_path)):
        with pytest.raises(MachineError) as caught:
            await EmbeddedBroker(tmp_path).start()
    assert str(caught.value).startswith(f"{tmp_path} is in use by pid {os.getpid()}")
    assert "another state folder" in str(caught.value)


async def test_a_broker_ends_with_its_parent_and_the_next_one_waits_for_that(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import asyncio, pathlib, sys
        from chandlery.stream.broker import EmbeddedBroker

        async def main():
            broker = EmbeddedBroker(pathlib.Path(sys.argv[1]))
            await broker.start()
            print(broker.pid, flush=True)
            await asyncio.Event().wait()

        asyncio.run(main())
        """
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    parent.kill()
    await parent.wait()
    # At once, while the orphan may still be shutting down.
    async with running(EmbeddedBroker(tmp_path)) as broker:
        assert broker.pid != pid
        await eventually(lambda: not _alive(pid), f"broker {pid} ended with its parent")


def _alive(pid: int) -> bool:
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_a_folder_that_cannot_be_made_is_a_machine_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MachineError, match="can't prepare"):
        await EmbeddedBroker(tmp_path / "file" / "state").start()


async def test_a_folder_whose_name_kafka_would_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="commas"):
        await EmbeddedBroker(tmp_path / "a,b").start()


async def test_data_that_kafka_refuses_end_the_start_with_its_last_words(tmp_path: Path) -> None:
    async with running(EmbeddedBroker(tmp_path)):
        pass
    meta = tmp_path / "kafka" / "meta.properties"
    meta.write_text(meta.read_text().replace("node.id=1", "node.id=77"))
    with pytest.raises(MachineError, match=r"(?s)Kafka ended at its start \(exit code 1\).*Stored node id 77"):
        await EmbeddedBroker(tmp_path).start()


async def test_cancelling_a_start_leaves_no_process(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path)
    spawned = asyncio.Event()
    start = asyncio.create_task(broker.start(lambda line, _: spawned.set() if line.startswith("starting") else None))
    await eventually(lambda: spawned.is_set() and broker.running, "Kafka's process started")
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    async with asyncio.timeout(DEADLINE_S):
        assert await broker.wait() == -signal.SIGKILL


async def test_jars_that_cannot_be_had_are_unavailable_with_the_ways_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("M2_REPO", str(tmp_path / "no-maven"))
    monkeypatch.setenv("CHANDLERY_MAVEN_REPOSITORY", f"http://127.0.0.1:{ephemeral_port()}")
    with pytest.raises(UnavailableError, match="CHANDLERY_MAVEN_REPOSITORY") as caught:
        await EmbeddedBroker(tmp_path / "data", cache_dir=tmp_path / "cache").start()
    assert "46 of Kafka's jars" in str(caught.value)
