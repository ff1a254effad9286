"""The feed as a process: exit codes, its last status, nothing left behind."""

from __future__ import annotations

import asyncio
import os
import resource
import signal as signals
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
import pytest
from tests.workers_feed.feed_setup import (
    api,
    assignment,
    candle_writer,
    feed_settings,
    get,
    make_ring,
    published,
    put,
    rows,
    signal,
    trader,
    until,
)

from chandlery.core import signals as signal_format
from chandlery.core.assignment import decode_status
from chandlery.core.settings import FeedSettings, KafkaSettings
from chandlery.stream.topics import ensure_topics
from chandlery.workers.segment import SegmentReader

BTC = "BTC/USDT"


async def spawn(settings: FeedSettings, folder: Path, most_file_bytes: int = 0) -> asyncio.subprocess.Process:
    config = folder / "feed.json"
    config.write_bytes(msgspec.json.encode(settings))

    def limit() -> None:
        if most_file_bytes:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_file_bytes, most_file_bytes))

    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "chandlery.workers.feed",
        "--config",
        str(config),
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=limit,
    )


async def _answers(settings: FeedSettings) -> bool:
    async with api(settings) as client:
        try:
            return bool(await get(client, "/healthz"))
        except aiohttp.ClientConnectionError:
            return False


@asynccontextmanager
async def feed_process(settings: FeedSettings, folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A feed that is up; killed at the end if it hasn't ended."""
    process = await spawn(settings, folder)
    try:
        await until("api", lambda: _answers(settings))
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.broker
async def test_sigterm_drains_the_rings_and_leaves_nothing(tmp_path: Path, kafka_settings: KafkaSettings) -> None:
    await ensure_topics(kafka_settings)
    final = tmp_path / "final.json"
    settings = feed_settings(tmp_path, kafka_settings, final_status=str(final))
    async with feed_process(settings, tmp_path) as process, api(settings) as client:
        await put(client, assignment(1, trader("a", [BTC])))
        ring = make_ring(settings, "a")
        for number in range(50):
            assert ring.push(signal_format.encode(signal("a", number)))
        await until("attached", lambda: _attached(settings))
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 20) == 0
    assert ring.depth == 0
    out, completions = await published(kafka_settings)
    assert [int(one.reason) for one in out] == list(range(50))
    assert len(completions) == 50
    assert not os.path.exists(f"{settings.shm_dir}/segment")
    assert [name for name in os.listdir(settings.rings_dir) if name.endswith(".sock")] == []
    told = decode_status(final.read_bytes())
    assert told.feed["signals"]["published"] == 50


async def _attached(settings: FeedSettings) -> bool:
    async with api(settings) as client:
        return "desk/a" in (await get(client, "/v1/status"))["feed"]["rings"]


@pytest.mark.broker
async def test_after_kill_9_the_next_feed_takes_over(tmp_path: Path, kafka_settings: KafkaSettings) -> None:
    await ensure_topics(kafka_settings)
    settings = feed_settings(tmp_path, kafka_settings)
    async with candle_writer(kafka_settings) as writer:
        await writer.closed(BTC, 0, 10)
        async with feed_process(settings, tmp_path) as process, api(settings) as client:
            await put(client, assignment(7, trader("a", [BTC])))
            await until("candles", lambda: len(rows(settings, BTC)) == 10)
            reader = SegmentReader.open(f"{settings.shm_dir}/segment")
            process.send_signal(signals.SIGKILL)
            await process.wait()
        os.unlink(settings.listen.removeprefix("unix:"))
        await writer.closed(BTC, 10, 2)
        async with feed_process(settings, tmp_path):
            await until("readers told", lambda: reader.superseded)
            await until("candles again", lambda: len(rows(settings, BTC)) == 12)
            with SegmentReader.open(f"{settings.shm_dir}/segment") as again:
                assert again.generation == reader.generation + 1
            reader.close()


async def test_no_room_for_the_segment_is_exit_code_3(tmp_path: Path) -> None:
    settings = feed_settings(tmp_path, KafkaSettings("127.0.0.1:9", "none"))
    # A limit on file sizes stands in for a full /dev/shm: filling a real one would harm whoever else uses it.
    process = await spawn(settings, tmp_path, most_file_bytes=65_536)
    _, errors = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 3, errors
    assert b"segment" in errors
    assert b"Traceback" not in errors


@pytest.mark.parametrize(
    ("change", "word"),
    [({"listen": "nowhere"}, b"listen"), ({"listen": "0.0.0.0:0"}, b"token"), ({"kafka": 3}, b"kafka")],
)
async def test_wrong_settings_are_exit_code_2_and_one_line(
    tmp_path: Path, change: dict[str, object], word: bytes
) -> None:
    settings = msgspec.to_builtins(feed_settings(tmp_path, KafkaSettings("127.0.0.1:9", "none")))
    config = tmp_path / "feed.json"
    config.write_bytes(msgspec.json.encode({**settings, **change}))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "chandlery.workers.feed", "--config", str(config), stderr=asyncio.subprocess.PIPE
    )
    _, errors = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 2, errors
    assert word in errors
    assert errors.count(b"\n") == 1


async def test_sigterm_without_a_broker_ends_it_soon(tmp_path: Path, unused_tcp_port: int) -> None:
    settings = feed_settings(tmp_path, KafkaSettings(f"127.0.0.1:{unused_tcp_port}", "none"))
    async with feed_process(settings, tmp_path) as process:
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 20) == 0
