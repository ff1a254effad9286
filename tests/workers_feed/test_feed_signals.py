"""Signals from the rings to the broker: in order, once, whatever the broker or the trader does."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from tests.workers_feed.feed_setup import (
    api,
    assignment,
    candle,
    candle_writer,
    feed_settings,
    get,
    make_ring,
    published,
    put,
    rows,
    running_feed,
    signal,
    supervisor,
    trader,
    until,
)

from chandlery.core import signals as signal_format
from chandlery.core.clocks import now_ns
from chandlery.core.settings import KafkaSettings
from chandlery.core.signals import Signal, SignalStamps
from chandlery.stream.broker import EmbeddedBroker
from chandlery.stream.topics import ensure_topics
from chandlery.workers.segment import SignalRing

pytestmark = pytest.mark.broker
BTC, ETH = "BTC/USDT", "ETH/USDT"


def push(ring: SignalRing, given: Signal) -> None:
    assert ring.push(signal_format.encode(given))


def bell(rings_dir: str) -> None:
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    with sender, contextlib.suppress(BlockingIOError):  # enough bells wait there already
        sender.sendto(b"!", f"{rings_dir}/bell.sock")


def overwrite_with_garbage(path: Path) -> None:
    with path.open("r+b") as file:  # in place: the feed holds this very file
        file.write(os.urandom(path.stat().st_size))


async def test_rings_are_drained_in_order_and_exactly_once(tmp_path: Path, kafka_settings: KafkaSettings) -> None:
    await ensure_topics(kafka_settings)
    settings = feed_settings(tmp_path, kafka_settings)
    async with running_feed(settings) as feed, api(settings) as client:
        await put(client, assignment(1, trader("a", [BTC]), trader("b", [BTC])))
        rings = {name: make_ring(settings, name, slots=16) for name in ("a", "b")}
        for number in range(100):
            for name, ring in rings.items():
                await until("room in the ring", lambda ring=ring: ring.depth < ring.capacity)  # type: ignore[misc]
                push(ring, signal(name, number))
            bell(settings.rings_dir)
        await until("all drained", lambda: all(ring.depth == 0 for ring in rings.values()))
        told = feed.status().feed["signals"]
        assert told == {"emitted": 200, "published": 200, "unique": 200, "dropped": {}}
        # At its end the feed grants them a second; what is held here is that all are written, not how quickly.
        await until("completions written", lambda: not (feed._notes._waiting or feed._notes._flying))
    out, completions = await published(kafka_settings)
    for name in rings:
        assert [int(one.reason) for one in out if one.trader == f"desk/{name}"] == list(range(100))
    assert {one.id for one in completions} == {one.id for one in out}


async def test_the_tail_moves_only_after_the_acknowledgement(tmp_path: Path, kafka_settings: KafkaSettings) -> None:
    settings = feed_settings(tmp_path, kafka_settings)  # the topics aren't there yet: nothing can be acknowledged
    async with running_feed(settings), api(settings) as client:
        await put(client, assignment(1, trader("a", [BTC])))
        ring = make_ring(settings, "a")
        push(ring, signal("a", 1))
        bell(settings.rings_dir)
        assert ring.depth == 1
        await ensure_topics(kafka_settings)
        await until("drained", lambda: ring.depth == 0)
    out, _ = await published(kafka_settings)
    assert [one.reason for one in out] == ["1"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"incarnation": 2}, "fenced"),
        ({"trader": "desk/b"}, "bad_signal"),
        ({"id": "0" * 31 + "G"}, "bad_signal"),
        ({"symbol": ETH}, "bad_signal"),
        ({"interval": "5m"}, "bad_signal"),
        ({"strength": 1.5}, "bad_signal"),
        ({"price": "1e5"}, "bad_signal"),
        ({"reason": "x" * 201}, "bad_signal"),
    ],
)
async def test_signals_that_may_not_pass_are_dropped_and_counted(
    tmp_path: Path, kafka_settings: KafkaSettings, change: dict[str, Any], reason: str
) -> None:
    await ensure_topics(kafka_settings)
    settings = feed_settings(tmp_path, kafka_settings)
    async with running_feed(settings) as feed, api(settings) as client:
        await put(client, assignment(1, trader("a", [BTC])))
        ring = make_ring(settings, "a")
        push(ring, signal("a", 1, **change))
        push(ring, signal("a", 2))
        bell(settings.rings_dir)
        await until("drained", lambda: ring.depth == 0)
        assert feed.status().feed["signals"]["dropped"] == {reason: 1}
        assert feed.status().feed["rings"]["desk/a"]["last_error"].startswith(reason)
    out, _ = await published(kafka_settings)
    assert [one.reason for one in out] == ["2"]


async def test_a_standby_trader_is_fenced_and_a_repeated_signal_dropped(
    tmp_path: Path, kafka_settings: KafkaSettings
) -> None:
    await ensure_topics(kafka_settings)
    settings = feed_settings(tmp_path, kafka_settings)
    async with running_feed(settings) as feed, api(settings) as client:
        await put(client, assignment(1, trader("a", [BTC], mode="standby")))
        ring = make_ring(settings, "a")
        push(ring, signal("a", 1))
        await until("fenced", lambda: feed.status().feed["signals"]["dropped"] == {"fenced": 1})
        await put(client, assignment(2, trader("a", [BTC])))
        for number in (2, 3, 2):
            push(ring, signal("a", number))
        await until("drained", lambda: ring.depth == 0)
        assert feed.status().feed["signals"]["dropped"] == {"fenced": 1, "duplicate_signal": 1}
    out, _ = await published(kafka_settings)
    assert [one.reason for one in out] == ["2", "3"]


async def test_a_removed_traders_ring_is_drained_after_it_left(tmp_path: Path, kafka_settings: KafkaSettings) -> None:
    settings = feed_settings(tmp_path, kafka_settings)
    async with running_feed(settings) as feed, api(settings) as client:
        await put(client, assignment(1, trader("a", [BTC])))
        ring = make_ring(settings, "a")
        for number in range(5):
            push(ring, signal("a", number))
        await put(client, assignment(2))
    # The feed was restarted meanwhile, and the topics come late.
    await ensure_topics(kafka_settings)
    async with running_feed(settings) as feed:
        await until("drained", lambda: ring.depth == 0)
        assert feed.status().feed["signals"]["published"] == 5
        ring.close()
        os.unlink(f"{settings.rings_dir}/desk__a@1.ring")
        await until("forgotten", lambda: "desk/a" not in feed.status().feed["rings"])
    out, _ = await published(kafka_settings)
    assert [one.reason for one in out] == list("01234")


async def test_a_rings_unlinked_file_is_drained_to_its_end(tmp_path: Path, kafka_settings: KafkaSettings) -> None:
    settings = feed_settings(tmp_path, kafka_settings)
    async with running_feed(settings) as feed, api(settings) as client:
        await put(client, assignment(1, trader("a", [BTC])))
        ring = make_ring(settings, "a", slots=256)
        for number in range(200):
            push(ring, signal("a", number))
        await ensure_topics(kafka_settings)
        await until("attached", lambda: "desk/a" in feed.status().feed["rings"])
        os.unlink(f"{settings.rings_dir}/desk__a@1.ring")
        await until("all of it", lambda: feed.status().feed["signals"]["published"] == 200)
    out, _ = await published(kafka_settings)
    assert [int(one.reason) for one in out] == list(range(200))


async def test_garbage_in_a_ring_harms_nobody_else(tmp_path: Path, kafka_settings: KafkaSettings) -> None:
    await ensure_topics(kafka_settings)
    settings = feed_settings(tmp_path, kafka_settings)
    async with running_feed(settings) as feed, api(settings) as client, supervisor(settings) as control:
        control.say(sequence=1, hash="", traders={"desk/bad": {"state": "Active", "incarnation": 1}}, catalogue=[])
        await put(client, assignment(1, trader("bad", [BTC]), trader("good", [BTC])))
        bad, good = make_ring(settings, "bad"), make_ring(settings, "good")
        await until("attached", lambda: len(feed.status().feed["rings"]) == 2)
        bad.push(b"no signal at all")
        bad.push(b"\xff" * 1_000)
        await until("counted", lambda: feed.status().feed["signals"]["dropped"] == {"bad_signal": 2})
        overwrite_with_garbage(Path(settings.rings_dir) / "desk__bad@1.ring")
        await until("seen to be corrupt", lambda: feed.status().feed["events"].get("ring_corrupt") == 1)
        assert feed.status().traders["desk/bad"].reason == "RingCorrupt"
        await until("replacement asked", lambda: {"type": "replace-ring", "key": "desk/bad@1"} in control.heard)
        push(good, signal("good", 1))
        await until("the other drained", lambda: good.depth == 0)
        fresh = make_ring(settings, "bad")  # the supervisor replaces it
        assert fresh.replaced_because
        push(fresh, signal("bad", 2))
        await until("the fresh one drained", lambda: fresh.depth == 0)
        assert feed.status().traders["desk/bad"].reason == ""
    out, _ = await published(kafka_settings)
    assert sorted(one.reason for one in out) == ["1", "2"]


async def test_a_truncated_ring_is_corrupt_and_not_fatal(tmp_path: Path, kafka_settings: KafkaSettings) -> None:
    await ensure_topics(kafka_settings)
    settings = feed_settings(tmp_path, kafka_settings)
    async with running_feed(settings) as feed, api(settings) as client:
        await put(client, assignment(1, trader("a", [BTC])))
        make_ring(settings, "a").close()
        await until("attached", lambda: feed.status().feed["rings"])
        os.truncate(f"{settings.rings_dir}/desk__a@1.ring", 100)
        await until("corrupt", lambda: feed.status().feed["events"].get("ring_corrupt") == 1)
        assert (await get(client, "/v1/rings"))["desk/a"]["corrupt"]


async def test_every_signal_has_its_latency_account(tmp_path: Path, kafka_settings: KafkaSettings) -> None:
    await ensure_topics(kafka_settings)
    settings = feed_settings(tmp_path, kafka_settings)
    async with running_feed(settings) as feed, api(settings) as client:
        await put(client, assignment(1, trader("a", [BTC])))
        ring = make_ring(settings, "a")
        at = now_ns() - 9_000_000
        names = ("received", "aggregated", "emitted", "fed", "published", "woken", "decided", "signalled")
        stamps = SignalStamps(**{f"{name}_ns": at + index * 1_000_000 for index, name in enumerate(names)})
        push(ring, signal("a", 1, stamps=stamps))
        bell(settings.rings_dir)
        await until("drained", lambda: ring.depth == 0)
        newest = (await get(client, "/v1/signals?limit=5"))[0]
        assert newest["signal"]["reason"] == "1"
        assert newest["completion"]["id"] == newest["signal"]["id"]
        account = newest["account"]
        assert [stage[0] for stage in account["stages"]] == [*names[1:], "acknowledged"]
        assert sum(stage[1] for stage in account["stages"]) == pytest.approx(account["whole_us"])
        assert account["frame_to_signal_us"] > 7_000
        latency = feed.status().feed["latency"]
        assert latency["frame_to_signal"]["count"] == 1
        assert latency["visible_to_decided"]["p50"] == pytest.approx(2_000, rel=0.05)
        assert latency["stages"]["fed"]["count"] == 1


@pytest.mark.slow
async def test_a_broker_killed_and_back_loses_nothing(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path / "broker")
    await broker.start()
    try:
        kafka = KafkaSettings(bootstrap=broker.bootstrap, feed="killed")
        await ensure_topics(kafka)
        settings = feed_settings(tmp_path, kafka)
        async with running_feed(settings) as feed, api(settings) as client:
            async with candle_writer(kafka) as writer:
                await writer.closed(BTC, 0, 10)
            await put(client, assignment(1, trader("a", [BTC]), trader("b", [ETH])))
            rings = {"a": make_ring(settings, "a", slots=256), "b": make_ring(settings, "b", slots=256)}
            for name, symbol in (("a", BTC), ("b", ETH)):
                for number in range(20):
                    push(rings[name], signal(name, number, symbol))
            bell(settings.rings_dir)
            await until("candles", lambda: len(rows(settings, BTC)) == 10)
            broker.kill()
            for name, symbol in (("a", BTC), ("b", ETH)):
                for number in range(20, 250):
                    push(rings[name], signal(name, number, symbol))
            bell(settings.rings_dir)
            await until("noticed", lambda: not feed.status().feed["broker_connected"])
            assert any(ring.depth for ring in rings.values())
            await broker.start()
            await until("all drained", lambda: not any(ring.depth for ring in rings.values()), 60)
            async with candle_writer(kafka) as writer:
                await writer.write(writer.topics.candles, BTC, candle(10 * 60_000, close="10"), seq=11)
                await writer.flush()
            await until("candles go on", lambda: len(rows(settings, BTC)) == 11, 60)
            # The watch on the broker has a pause of its own, so it may come back after the data.
            await until("the watch is back", lambda: feed.status().feed["reconnects"] >= 1)
            told = feed.status().feed
            assert told["reconnects"] >= 1
            assert told["gaps"] == 0
            assert told["signals"]["published"] == 500
        out, _ = await published(kafka)
        for name in rings:
            mine = [int(one.reason) for one in out if one.trader == f"desk/{name}"]
            assert list(dict.fromkeys(mine)) == list(range(250)), "lost or out of order"
    finally:
        await broker.stop()
