"""Asking the feed of one's own container: the token stays there, and what comes out is the pod's API's answer."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.workers_feed.feed_setup import (
    api,
    assignment,
    feed_settings,
    make_ring,
    put,
    running_feed,
    signal,
    supervisor,
    trader,
    until,
)

from chandlery.core import signals as signal_format
from chandlery.core.errors import InputError
from chandlery.core.settings import FeedSettings, KafkaSettings
from chandlery.core.signals import Completion
from chandlery.stream.topics import ensure_topics
from chandlery.workers.feed.query import signal_records

BTC = "BTC/USDT"


@pytest.fixture
def settings(tmp_path: Path, unused_tcp_port: int) -> FeedSettings:
    """A worker whose broker isn't there, that asks for a token kept in a file, as in a pod."""
    (tmp_path / "token").write_text("s3cret-of-the-pod\n")
    return feed_settings(
        tmp_path,
        KafkaSettings(bootstrap=f"127.0.0.1:{unused_tcp_port}", feed="none"),
        token_file=str(tmp_path / "token"),
    )


async def started(settings: FeedSettings, *arguments: str) -> asyncio.subprocess.Process:
    """The query as a process, as ``kubectl exec`` starts it."""
    config = Path(settings.rings_dir).parent / "feed.json"
    config.write_bytes(msgspec.json.encode(settings))
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "chandlery.workers.feed.query", "--config", str(config), *arguments,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def asked(settings: FeedSettings, *arguments: str) -> tuple[int | None, str, str]:
    process = await started(settings, *arguments)
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("listen", ["unix", "0.0.0.0:0", "127.0.0.1:0"])
async def test_it_answers_with_the_token_of_the_file_and_never_tells_it(settings: FeedSettings, listen: str) -> None:
    if listen != "unix":
        settings = msgspec.structs.replace(settings, listen=listen)
    async with running_feed(settings) as feed:
        bound = msgspec.structs.replace(settings, listen=feed.address)
        code, out, err = await asked(bound, "get", "segment", "rings", "status")
        assert (code, err) == (0, "")
        told = json.loads(out)
        assert set(told) == {"now_ns", "now_ms", "segment", "rings", "status"}
        assert told["status"]["worker"] == "w-0"
        assert "s3cret" not in out


async def test_without_a_feed_or_with_another_token_it_says_so_in_one_line(settings: FeedSettings) -> None:
    code, out, err = await asked(settings, "get", "status")
    assert (code, out) == (4, "")
    assert err.startswith("the feed doesn't answer GET /v1/status")
    assert len(err.splitlines()) == 1
    async with running_feed(settings):
        wrong = msgspec.structs.replace(settings, token_file="", token="another")
        code, out, err = await asked(wrong, "get", "status")
        assert (code, out, err) == (4, "", "the feed answers 401 to GET /v1/status\n")


async def test_a_watch_tells_again_and_again_and_ends_with_its_standard_input(settings: FeedSettings) -> None:
    async with running_feed(settings), api(settings, "s3cret-of-the-pod") as client:
        await put(client, assignment(1, trader("a", [BTC])))
        process = await started(settings, "watch", "--every", "0.2")
        assert process.stdin is not None
        assert process.stdout is not None
        looks = [json.loads(await process.stdout.readline()) for _ in range(3)]
        assert [set(look["status"]["traders"]) for look in looks] == [{"desk/a"}] * 3
        assert "catalogue" not in looks[0]["status"]
        assert looks[0]["at_ns"] < looks[1]["at_ns"] < looks[2]["at_ns"]
        process.stdin.close()
        assert await asyncio.wait_for(process.wait(), 60) == 0
        code, out, _ = await asked(settings, "watch", "--every", "0.2", "--count", "2")
        assert (code, len(out.splitlines())) == (0, 2)


@pytest.mark.broker
async def test_a_signals_records_are_found_on_its_topic_and_watches_tell_each_new_signal_once(
    tmp_path: Path, kafka_settings: KafkaSettings
) -> None:
    await ensure_topics(kafka_settings)
    settings = feed_settings(tmp_path, kafka_settings)
    async with running_feed(settings) as feed, api(settings) as client, supervisor(settings):
        await put(client, assignment(1, trader("a", [BTC])))
        ring = make_ring(settings, "a", slots=16)
        given = [signal("a", number) for number in range(12)]
        for one in given:
            assert ring.push(signal_format.encode(one))
        await until("all published", lambda: feed.status().feed["signals"]["published"] == 12)
        wanted = given[5].id

        async def complete() -> list[Any]:
            code, out, err = await asked(settings, "signal", wanted.upper())
            assert (code, err) == (0, "")
            found = [signal_format.decode_record(text) for text in out.splitlines()]
            return found if any(isinstance(one, Completion) for one in found) else []

        records: Sequence[Any] = await until("signal and completion", complete)
        assert {record.id for record in records} == {wanted}
        assert len(records) == 2
        assert await asked(settings, "signal", "f" * 32) == (0, "", "")

        _, out, _ = await asked(settings, "watch", "--every", "0.2", "--count", "2")
        first, second = map(json.loads, out.splitlines())
        assert [one[0] for one in first["signals"]] == [one.id for one in given]
        assert second["signals"] == []


async def test_a_topic_whose_kafka_is_away_is_one_line(settings: FeedSettings) -> None:
    code, out, err = await asked(settings, "signal", "abcdef")
    assert (code, out) == (4, "")
    assert err.startswith(f"Kafka at {settings.kafka.bootstrap} doesn't answer")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("prefix", ["", "abcde", "no-hex", "a" * 33])
async def test_too_little_of_an_id_is_refused_before_kafka_is_asked(settings: FeedSettings, prefix: str) -> None:
    with pytest.raises(InputError, match="6 to 32 of its hex digits"):
        await anext(signal_records(settings, prefix))
