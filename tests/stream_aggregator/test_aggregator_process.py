"""The process as others see it: its status, its stamps, its end, its refusals."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import aiohttp
import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from tests.stream_aggregator.aggregator_market import aggregator_settings
from tests.stream_aggregator.aggregator_process import AggregatorProcess, read_topic

from chandlery.core.clocks import HEADER_NAME, Stamps, now_ns, unpack_stamps, wall_offset_ns
from chandlery.core.errors import InputError, MachineError
from chandlery.core.settings import AggregatorSettings, KafkaSettings
from chandlery.core.topics import partition_of, topics_of
from chandlery.core.wire import Opening, TradesRecord, decode_candles, encode
from chandlery.stream.topics import end_offsets, ensure_topics

T0 = 1_723_075_200_000
SYMBOL = "BTC/USDT"


@pytest.mark.broker
async def test_stamps_travel_with_the_candles_and_a_restart_goes_on_where_it_was(
    kafka_settings: KafkaSettings, tmp_path: Path
) -> None:
    kafka = msgspec.structs.replace(kafka_settings, partitions=2)
    await ensure_topics(kafka)
    names, offset_ns = topics_of(kafka), wall_offset_ns()
    given = Stamps(exchange_ns=5, received_ns=now_ns(), recorded_skew_ns=-1_270_000_000, frame=9)
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)
    await producer.start()

    async def append(*values: bytes) -> None:
        for value in values:
            await producer.send_and_wait(
                names.trades,
                value,
                key=SYMBOL.encode(),
                partition=partition_of(SYMBOL, 2),
                headers=[(HEADER_NAME, given.pack(offset_ns))],
            )

    aggregator = AggregatorProcess(tmp_path, aggregator_settings(kafka))
    try:
        await aggregator.start()
        await append(encode(Opening(SYMBOL, 3)), encode(TradesRecord(SYMBOL, 3, T0, 2, 2, [1], [T0], [100], [7])))
        await append(b"not a record")
        status = await aggregator.until_applied(await end_offsets(kafka, names.trades))
        assert status["symbols"][SYMBOL]["counts"] == {
            "received": 2, "counted": 0, "open": 1, "late": 0, "duplicate": 0, "dead": 1, "unreadable": 1,
        }  # fmt: skip
        assert (status["dead_letters"], status["lag"]) == (1, 0)
        (live,) = await read_topic(kafka, names.candles_live)
        assert live.partition == partition_of(SYMBOL, 2)
        stamps = unpack_stamps(dict(live.headers)[HEADER_NAME], offset_ns)
        assert (stamps.exchange_ns, stamps.received_ns) == (5, given.received_ns)
        assert (stamps.recorded_skew_ns, stamps.frame) == (-1_270_000_000, 9)
        assert stamps.appended_ns % 1_000_000 == 0
        assert stamps.appended_ns > given.received_ns + offset_ns - 1_000_000_000
        assert given.received_ns < stamps.aggregated_ns <= stamps.emitted_ns <= now_ns()

        assert await aggregator.terminate() == 0, aggregator.log()
        final = aggregator.final()
        assert final["totals"]["counts"]["open"] == 1
        await aggregator.start()
        await aggregator.until_ready()
        later = TradesRecord(SYMBOL, 3, T0 + 60_000, 2, 2, [1, 2], [T0, T0 + 1], [100, 103], [7, 1])
        await append(encode(later))
        status = await aggregator.until_applied(await end_offsets(kafka, names.trades))
        assert status["symbols"][SYMBOL]["counts"] == {
            "received": 4, "counted": 2, "open": 0, "late": 0, "duplicate": 1, "dead": 1, "unreadable": 1,
        }  # fmt: skip
        closed = decode_candles((await read_topic(kafka, names.candles))[-1].value)
        assert (closed.session, closed.updates[0].close, closed.updates[0].trades) == (3, "1.03", 2)
        assert await aggregator.terminate() == 0, aggregator.log()
    finally:
        await aggregator.kill()
        await producer.stop()


@pytest.mark.broker
async def test_a_healthy_aggregator_logs_no_error_however_long_it_runs(
    kafka_settings: KafkaSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faust looks for stuck streams every 2.5 s, and by default believes in one after five minutes: here at once."""
    monkeypatch.setenv("STREAM_PROCESSING_TIMEOUT", "0.1")
    monkeypatch.setenv("BROKER_COMMIT_LIVELOCK_SOFT_TIMEOUT", "0.1")
    kafka = msgspec.structs.replace(kafka_settings, partitions=1)
    await ensure_topics(kafka)
    names = topics_of(kafka)
    aggregator = AggregatorProcess(tmp_path, aggregator_settings(kafka))
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
        try:
            await aggregator.start()
            await aggregator.until_ready()
            # A broker that has only just started has no group coordinator yet, which its client says.
            before = len((tmp_path / "log").read_text(encoding="utf-8").splitlines())
            await producer.send_and_wait(names.trades, encode(Opening(SYMBOL, 3)), key=SYMBOL.encode(), partition=0)
            loop = asyncio.get_running_loop()
            number, end = 0, loop.time() + 6.0
            while loop.time() < end:
                number += 1
                at_ms = T0 + number
                trade = TradesRecord(SYMBOL, 3, at_ms, at_ms, at_ms, [number], [at_ms], [100], [7])
                await producer.send_and_wait(names.trades, encode(trade), key=SYMBOL.encode(), partition=0)
                await aggregator.until_applied(await end_offsets(kafka, names.trades))
            assert await aggregator.terminate() == 0, aggregator.log()
        finally:
            await aggregator.kill()
    lines = (tmp_path / "log").read_text(encoding="utf-8").splitlines()[before:]
    assert [line for line in lines if '"level":"error"' in line and '"logger":"aiokafka' not in line] == []


async def test_a_taken_address_is_refused_by_name(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        aggregator = AggregatorProcess(
            tmp_path, AggregatorSettings(KafkaSettings("127.0.0.1:1", "none"), ["1m"], address, "")
        )
        aggregator.settings.status_listen = address
        await aggregator.start()
        assert await asyncio.wait_for(aggregator.process.wait(), 60) == MachineError.exit_code
        assert f"can't listen on {address}" in aggregator.log()


async def test_wrong_settings_end_it_with_the_exit_code_of_wrong_input(tmp_path: Path) -> None:
    aggregator = AggregatorProcess(
        tmp_path, AggregatorSettings(KafkaSettings("127.0.0.1:1", "none"), ["1 minute"], "", "")
    )
    await aggregator.start()
    assert await asyncio.wait_for(aggregator.process.wait(), 60) == InputError.exit_code
    assert "'1 minute' is no interval" in aggregator.log()


@pytest.mark.broker
async def test_health_answers_while_kafka_does_not(tmp_path: Path) -> None:
    aggregator = AggregatorProcess(tmp_path, AggregatorSettings(KafkaSettings("127.0.0.1:1", "none"), ["1m"], "", ""))
    await aggregator.start()
    try:
        status = await aggregator.until(lambda status: bool(status), "a status")
        assert status["ready"] is False
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(aggregator.socket)) as client,
            client.get("http://localhost/healthz") as answer,
        ):
            assert answer.status == 200
        aggregator.process.terminate()
        assert await asyncio.wait_for(aggregator.process.wait(), 60) == 0, aggregator.log()
    finally:
        await aggregator.kill()
