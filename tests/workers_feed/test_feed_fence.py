"""The fence: of each incarnation only what is its own reaches the broker, and what doesn't is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.workers_feed.feed_setup import (
    api,
    assignment,
    feed_settings,
    get,
    make_ring,
    published,
    put,
    running_feed,
    signal,
    supervisor,
    trader,
    until,
)

from chandlery.core import signals as signal_format
from chandlery.core.assignment import content_hash
from chandlery.core.settings import KafkaSettings
from chandlery.stream.topics import ensure_topics
from chandlery.workers.segment import SignalRing

pytestmark = pytest.mark.broker
BTC = "BTC/USDT"


def push(ring: SignalRing, number: int, incarnation: int = 1) -> None:
    """Signal on the candle that opens at ``number``."""
    given = signal("a", number, incarnation=incarnation, code=f"c{incarnation}", id=f"{incarnation:016x}{number:016x}")
    assert ring.push(signal_format.encode(given))


async def drained(*rings: SignalRing) -> None:
    await until("drained", lambda: all(ring.depth == 0 for ring in rings))


async def sent(kafka: KafkaSettings) -> list[tuple[int, int]]:
    """(incarnation, open time) of all that was published."""
    out, _ = await published(kafka)
    return sorted((one.incarnation, one.open_time_ms) for one in out)


async def test_each_incarnation_has_a_ring_and_a_fence_of_its_own(
    tmp_path: Path, kafka_settings: KafkaSettings
) -> None:
    await ensure_topics(kafka_settings)
    settings = feed_settings(tmp_path, kafka_settings)
    async with running_feed(settings) as feed, api(settings) as client:
        old, new = trader("a", [BTC]), trader("a", [BTC], incarnation=2, mode="standby")
        await put(client, assignment(1, old, new))
        rings = make_ring(settings, "a"), make_ring(settings, "a", incarnation=2)
        push(rings[0], 1)
        push(rings[1], 1, incarnation=2)  # it stands by
        push(rings[1], 2, incarnation=1)  # says that it is the other one
        await drained(*rings)
        assert feed.status().feed["signals"]["dropped"] == {"fenced": 2}
        shown = feed.status().feed["rings"]
        assert shown.keys() == {"desk/a", "desk/a@2"}
        assert shown["desk/a@2"]["last_error"] == "fenced: the trader is standby"
        assert (await get(client, "/v1/segment"))["traders"] == {"desk/a": 0, "desk/a@2": 1}
        new.mode, new.from_ms = "active", 5
        await put(client, assignment(2, old, new))
        push(rings[1], 4, incarnation=2)
        push(rings[1], 5, incarnation=2)
        await drained(*rings)
        assert feed.status().feed["signals"]["dropped"] == {"fenced": 3}
    assert await sent(kafka_settings) == [(1, 1), (2, 5)]


async def test_a_beginning_that_lies_behind_fences_no_later_session_off(
    tmp_path: Path, kafka_settings: KafkaSettings
) -> None:
    await ensure_topics(kafka_settings)
    settings = feed_settings(tmp_path, kafka_settings)
    async with running_feed(settings) as feed, api(settings) as client:
        await put(client, assignment(1, trader("a", [BTC], from_ms=5)))
        ring = make_ring(settings, "a")
        push(ring, 4)
        await drained(ring)
        assert feed.status().feed["signals"]["dropped"] == {"fenced": 1}
        ring.set("begun_from_ms", 5)
        push(ring, 4)
        await drained(ring)
    assert await sent(kafka_settings) == [(1, 4)]


async def test_an_end_holds_once_the_process_has_acknowledged_it(tmp_path: Path, kafka_settings: KafkaSettings) -> None:
    await ensure_topics(kafka_settings)
    settings = feed_settings(tmp_path, kafka_settings)
    async with running_feed(settings) as feed, api(settings) as client, supervisor(settings) as control:
        spec = trader("a", [BTC], until_ms=5)
        await put(client, assignment(1, spec))
        ring = make_ring(settings, "a")
        push(ring, 5)  # decided before it was told: its status tells, and the bound moves
        await drained(ring)
        control.say(sequence=1, hash=content_hash([spec]), traders={})
        await until("acknowledged", lambda: feed.status().sequence == 1)
        push(ring, 4)
        push(ring, 6)
        await drained(ring)
        assert feed.status().feed["signals"]["dropped"] == {"fenced": 1}
        assert "it decides until 5" in feed.status().feed["rings"]["desk/a"]["last_error"]
        spec.until_ms = 7
        await put(client, assignment(2, spec))
        push(ring, 6, incarnation=1)
        await drained(ring)
    assert await sent(kafka_settings) == [(1, 4), (1, 5), (1, 6)]


async def test_what_stands_in_the_ring_at_the_acknowledgement_was_decided_before(
    tmp_path: Path, kafka_settings: KafkaSettings
) -> None:
    settings = feed_settings(tmp_path, kafka_settings)  # the topics aren't there yet: nothing leaves the rings
    async with running_feed(settings) as feed, api(settings) as client, supervisor(settings) as control:
        spec = trader("a", [BTC], until_ms=5)
        await put(client, assignment(1, spec))
        ring = make_ring(settings, "a")
        push(ring, 5)
        control.say(sequence=1, hash=content_hash([spec]), traders={})
        await until("acknowledged", lambda: feed.status().sequence == 1)
        await ensure_topics(kafka_settings)
        await drained(ring)
        assert feed.status().feed["signals"]["dropped"] == {}
    assert await sent(kafka_settings) == [(1, 5)]


@pytest.mark.parametrize("restarted", [False, True])
async def test_what_an_incarnation_left_is_sent_by_the_rules_that_it_had(
    tmp_path: Path, kafka_settings: KafkaSettings, restarted: bool
) -> None:
    settings = feed_settings(tmp_path, kafka_settings)  # the topics aren't there yet
    rings: list[SignalRing] = []

    async def removed() -> None:
        async with running_feed(settings), api(settings) as client:
            await put(client, assignment(1, trader("a", [BTC], from_ms=3), trader("a", [BTC], incarnation=2)))
            rings.extend([make_ring(settings, "a"), make_ring(settings, "a", incarnation=2)])
            push(rings[0], 2)
            push(rings[0], 3)
            push(rings[1], 3, incarnation=2)
            await put(client, assignment(2, trader("a", [BTC], incarnation=2)))
            if not restarted:
                await ensure_topics(kafka_settings)
                await drained(*rings)

    await removed()
    if restarted:
        await ensure_topics(kafka_settings)
        async with running_feed(settings):
            await drained(*rings)
    assert await sent(kafka_settings) == [(1, 3), (2, 3)]


async def test_both_incarnations_are_told_of(tmp_path: Path, kafka_settings: KafkaSettings) -> None:
    settings = feed_settings(tmp_path, kafka_settings)
    async with running_feed(settings) as feed, api(settings) as client, supervisor(settings) as control:
        old, new = trader("a", [BTC]), trader("a", [BTC], incarnation=2, mode="standby")
        await put(client, assignment(1, new, old))
        told = feed.status()
        assert told.traders["desk/a"].state == told.successors["desk/a"].state == "Pending"
        version = told.version
        status: dict[str, Any] = {"desk/a": {"state": "Active", "incarnation": 1}}
        control.say(sequence=1, hash="", traders=status, successors={"desk/a": {"state": "Warm", "incarnation": 2}})
        await until("told", lambda: feed.status().successors["desk/a"].state == "Warm")
        assert feed.status().version > version, "a successor's state is news"
