"""The pod's API and the supervisor's line, without a broker: the feed comes up and answers all the same."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from tests.workers_feed.feed_setup import (
    api,
    assignment,
    feed_settings,
    get,
    put,
    running_feed,
    supervisor,
    trader,
    until,
)

from chandlery.core.errors import InputError, MachineError
from chandlery.core.settings import FeedSettings, KafkaSettings
from chandlery.workers.feed.service import Feed

BTC = "BTC/USDT"


@pytest.fixture
def settings(tmp_path: Path, unused_tcp_port: int) -> FeedSettings:
    """A worker whose broker isn't there."""
    return feed_settings(tmp_path, KafkaSettings(bootstrap=f"127.0.0.1:{unused_tcp_port}", feed="none"))


async def test_it_is_healthy_without_kafka(settings: FeedSettings) -> None:
    async with running_feed(settings), api(settings) as client:
        assert await get(client, "/healthz") == {"status": "ok"}
        os.unlink(f"{settings.rings_dir}/control.sock")
        async with client.get("http://feed/healthz") as response:
            assert response.status == 503
            assert "control socket" in await response.text()


async def test_assignments_are_taken_refused_and_answered(settings: FeedSettings) -> None:
    async with running_feed(settings), api(settings) as client:
        status, answer = await put(client, assignment(3, trader("a", [BTC])))
        assert (status, answer) == (200, {"received_sequence": 3, "sequence": 0, "hash": ""})
        assert (await put(client, assignment(3, trader("a", [BTC]))))[0] == 200
        status, answer = await put(client, assignment(2))
        assert (status, answer["received_sequence"]) == (409, 3)
        bad = assignment(4, trader("a", [BTC]))
        bad.hash = "no"
        assert (await put(client, bad))[0] == 400
        async with client.put("http://feed/v1/assignment", data=b"{nonsense") as response:
            assert response.status == 400
        assert (await get(client, "/v1/status"))["received_sequence"] == 3


async def test_a_token_is_required_where_one_is_set(settings: FeedSettings) -> None:
    settings = msgspec.structs.replace(settings, token="s3cret")
    async with running_feed(settings):
        for token, expected in (("", 401), ("wrong", 401), ("s3cret", 200)):
            async with api(settings, token) as client:
                assert (await put(client, assignment(1)))[0] == expected, token
                async with client.get("http://feed/v1/status") as response:
                    assert response.status == expected
                async with client.get("http://feed/healthz") as response:
                    assert response.status == 200


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "10.0.0.1:80", "example.org:80"])
def test_without_a_token_only_this_machine_is_served(settings: FeedSettings, listen: str) -> None:
    with pytest.raises(InputError, match="token"):
        Feed(msgspec.structs.replace(settings, listen=listen))
    assert not os.path.exists(f"{settings.shm_dir}/segment"), "a segment left behind"


async def test_it_listens_on_tcp_too(settings: FeedSettings) -> None:
    settings = msgspec.structs.replace(settings, listen="127.0.0.1:0")
    async with running_feed(settings) as feed, aiohttp.ClientSession() as client:
        response = await client.get(f"http://{feed.address}/healthz")
        assert response.status == 200


async def test_a_taken_port_is_one_clear_error(settings: FeedSettings, unused_tcp_port: int) -> None:
    listen = f"127.0.0.1:{unused_tcp_port}"
    blocker = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", unused_tcp_port)
    feed = Feed(msgspec.structs.replace(settings, listen=listen))
    try:
        with pytest.raises(MachineError, match=str(unused_tcp_port)):
            await feed.start()
    finally:
        await feed.stop()
        blocker.close()
    assert not os.path.exists(f"{settings.shm_dir}/segment")


async def test_a_long_poll_answers_when_something_changes(settings: FeedSettings) -> None:
    async with running_feed(settings) as feed, api(settings) as client:
        await feed._cancel("ticks")  # which tell once a second of what has moved, as at the first time of everything
        version = (await get(client, "/v1/status"))["version"]
        waiting = asyncio.create_task(get(client, f"/v1/status?after={version}&wait_ms=30000"))
        done, _ = await asyncio.wait({waiting}, timeout=0.2)
        assert not done, "it answered though nothing had changed"
        async with api(settings) as other:
            await put(other, assignment(1, trader("a", [BTC])))
        answer = await asyncio.wait_for(waiting, 10)
        assert answer["version"] > version
        assert answer["received_sequence"] == 1
        assert (await get(client, f"/v1/status?after={answer['version']}&wait_ms=1"))["version"] == answer["version"]


async def test_a_long_poll_does_not_hold_up_the_end(settings: FeedSettings) -> None:
    feed = Feed(settings)
    await feed.start()
    async with api(settings) as client:
        waiting = asyncio.create_task(get(client, f"/v1/status?after={1 << 60}&wait_ms=50000"))
        await asyncio.wait({waiting}, timeout=0.1)
        await asyncio.wait_for(feed.stop(), 20)
        await asyncio.wait_for(waiting, 10)


@pytest.mark.parametrize("query", ["after=x", "wait_ms=1.5"])
async def test_a_bad_number_is_refused(settings: FeedSettings, query: str) -> None:
    async with running_feed(settings), api(settings) as client:
        response = await client.get(f"http://feed/v1/status?{query}")
        assert response.status == 400


async def test_the_supervisor_is_told_what_to_run_on_connect_and_on_change(settings: FeedSettings) -> None:
    async with running_feed(settings), api(settings) as client:
        await put(client, assignment(1, trader("a", [BTC])))
        async with supervisor(settings) as control:
            await until("first assignment", lambda: control.heard)
            first = control.heard[0]
            assert first["type"] == "assignment"
            assert first["assignment"]["sequence"] == 1
            assert first["bells"] == {"desk/a@1": 0}
            assert first["segment"] == f"{settings.shm_dir}/segment"
            await put(client, assignment(2, trader("b", [BTC]), trader("a", [BTC])))
            await until("second assignment", lambda: len(control.heard) == 2)
            assert control.heard[1]["bells"] == {"desk/a@1": 0, "desk/b@1": 1}


async def test_the_supervisors_word_reaches_the_status_at_once(settings: FeedSettings) -> None:
    async with running_feed(settings) as feed, api(settings) as client:
        await feed._cancel("ticks")  # what is told is the supervisor's word alone
        given = assignment(1, trader("a", [BTC]))
        await put(client, given)
        told = await get(client, "/v1/status")
        assert told["traders"]["desk/a"] == {"state": "Pending", "reason": "NoSupervisor"}
        assert told["supervisor_connected"] is False
        async with supervisor(settings) as control:
            await until("connected", lambda: control.heard)
            version = (await get(client, "/v1/status"))["version"]
            waiting = asyncio.create_task(get(client, f"/v1/status?after={version}&wait_ms=30000"))
            control.say(sequence=1, hash=given.hash, traders={"desk/a": {"state": "Ready"}}, catalogue=[{"name": "x"}])
            told = await asyncio.wait_for(waiting, 10)
            assert told["traders"]["desk/a"]["state"] == "Ready"
            assert (told["sequence"], told["hash"]) == (1, given.hash)
            assert told["catalogue"] == [{"name": "x"}]
            assert told["supervisor_connected"] is True
        await until("gone", lambda: _not_connected(settings))


async def _not_connected(settings: FeedSettings) -> bool:
    async with api(settings) as client:
        return not (await get(client, "/v1/status"))["supervisor_connected"]


@pytest.mark.parametrize("line", [b"nonsense\n", b'{"type":"other"}\n', b'{"type":"status"}\n', b"\xff\xfe\n"])
async def test_a_supervisor_that_talks_nonsense_is_disconnected_and_may_come_again(
    settings: FeedSettings, line: bytes
) -> None:
    async with running_feed(settings) as feed:
        async with supervisor(settings) as control:
            control.raw(line)
            await until("closed", lambda: control.gone)
        async with supervisor(settings) as control:
            control.say(sequence=0, hash="", traders={}, catalogue=[{"name": "again"}])
            await until("heard", lambda: feed.status().catalogue == [{"name": "again"}])
        assert feed.status().feed["events"]["control_errors"] == 1


async def test_a_mounted_assignment_is_read_at_start_and_when_it_changes(
    settings: FeedSettings, tmp_path: Path
) -> None:
    mounted = tmp_path / "mounted.json"
    settings = msgspec.structs.replace(settings, assignment_file=str(mounted))

    def mount(value: Any) -> None:
        new = tmp_path / "mounted.new"
        new.write_bytes(msgspec.json.encode(value))
        new.rename(mounted)

    mount(assignment(2, trader("a", [BTC])))
    async with running_feed(settings) as feed, api(settings) as client:
        assert feed.status().received_sequence == 2
        mount(assignment(3, trader("b", [BTC])))
        await until("changed mount", lambda: feed.status().received_sequence == 3)
        await put(client, assignment(9, trader("c", [BTC])))
        mount(assignment(5, trader("a", [BTC])))
        mounted.write_bytes(b'{"half": ')
        mount(assignment(10, trader("d", [BTC])))
        await until("newest mount", lambda: feed.status().received_sequence == 10)
        assert list(feed.status().traders) == ["desk/d"]


async def test_a_series_that_cannot_be_had_is_its_traders_trouble_alone(settings: FeedSettings) -> None:
    settings = msgspec.structs.replace(settings, segment_series=2)
    async with running_feed(settings) as feed, api(settings) as client:
        traders = [trader(f"t{number}", [f"C{number}/USDT"]) for number in range(3)]
        status, _ = await put(client, assignment(1, *traders, trader("odd", [BTC], "7q")))
        assert status == 200
        told = feed.status().feed
        assert told["series"] == 2
        assert set(told["refused_series"]) == {"C2/USDT 1m", "BTC/USDT 7q"}
        named = {name: (one.reason, one.message) for name, one in feed.status().traders.items() if one.message}
        assert {name: reason for name, (reason, _) in named.items()} == {
            "desk/t2": "SeriesRefused",
            "desk/odd": "SeriesRefused",
        }
        assert "all 2 series" in named["desk/t2"][1]
        assert named["desk/odd"][1].startswith("series BTC/USDT 7q: ")


async def test_segment_rings_and_latency_can_be_looked_at(settings: FeedSettings) -> None:
    async with running_feed(settings), api(settings) as client:
        await put(client, assignment(1, trader("a", [BTC])))
        segment = await get(client, "/v1/segment")
        assert [(one["symbol"], one["interval"]) for one in segment["series"]] == [(BTC, "1m")]
        assert segment["traders"] == {"desk/a": 0}
        assert segment["room"] == {
            "series_capacity": settings.segment_series,
            "series_room": settings.segment_series,
            "series_used": 1,
            "series_in_grace": 0,
            "series_waiting": 0,
            "series_freed": 0,
            "growths": 0,
        }
        assert await get(client, "/v1/rings") == {}
        assert (await get(client, "/v1/latency"))["frame_to_signal"]["count"] == 0
        assert await get(client, "/v1/signals") == []


async def test_a_mounted_assignment_that_cannot_be_kept_is_taken_once_it_can(
    settings: FeedSettings, tmp_path: Path
) -> None:
    mounted = tmp_path / "mounted.json"
    mounted.write_bytes(msgspec.json.encode(assignment(2, trader("a", [BTC]))))
    blocker = Path(settings.rings_dir) / "assignment.json.new"
    blocker.mkdir(parents=True)  # as good as a full folder: the file can't be written
    async with running_feed(msgspec.structs.replace(settings, assignment_file=str(mounted))) as feed:
        assert feed.status().received_sequence == 0
        assert feed.status().feed["events"]["assignment_not_kept"] >= 1
        blocker.rmdir()
        await until("assignment taken", lambda: feed.status().received_sequence == 2)
