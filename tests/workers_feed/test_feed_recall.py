"""A worker's pod is replaced, and nobody is there to tell: each closed candle is decided, each signal there once."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaConnectionError, TopicAuthorizationFailedError
from hypothesis import given
from hypothesis import strategies as st
from tests.workers_feed.feed_setup import (
    MINUTE,
    api,
    assignment,
    candle_writer,
    feed_settings,
    make_ring,
    published,
    put,
    running_feed,
    signal,
    trader,
    until,
)
from tests.workers_feed.handover_desk import BTC, ETH, TRADER, House, LiveMarket, all_decided, house, spec

from chandlery.core import signals as signal_format
from chandlery.core.assignment import TraderAssignment, WorkerStatus
from chandlery.core.intervals import parse_interval
from chandlery.core.settings import KafkaSettings
from chandlery.stream.topics import ensure_topics
from chandlery.workers.feed import clients, recall
from chandlery.workers.feed.admission import RecentIds
from chandlery.workers.feed.recall import Recall, decides_again_from_ms
from chandlery.workers.trader.recall import recall_from_ms


def minute_of_now() -> int:
    return int(time.time() * 1000) // MINUTE


# -- a whole pod


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def lose_pod(worker: House) -> None:
    """kill -9 of all its processes; of its volumes only what the assignment is kept in is there again."""
    status = await worker.status()
    pids = [one.pid for one in (*status.traders.values(), *status.successors.values())]
    await worker.kill("supervisor")
    await worker.kill("feed")
    await until("its traders gone", lambda: not any(map(alive, pids)))
    kept = Path(worker.settings.rings_dir, "assignment.json")
    body = msgspec.json.decode(kept.read_bytes())
    shutil.rmtree(worker.settings.rings_dir)
    shutil.rmtree(worker.settings.shm_dir)
    # As the ConfigMap brings it: without what the feed kept beside it.
    kept.parent.mkdir()
    kept.write_bytes(msgspec.json.encode({"assignment": body["assignment"], "bells": {}}))


async def acknowledged(worker: House) -> WorkerStatus:
    async def settled() -> WorkerStatus | None:
        status = await worker.status()
        return status if status.sequence == worker.sequence else None

    found = await until("the kept assignment acknowledged", settled)
    assert isinstance(found, WorkerStatus)
    return found


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.parametrize(
    ("transport", "rolled_out"), [("SharedMemory", False), ("SharedMemory", True), ("Pipe", False)]
)
async def test_a_pod_that_is_lost_alone_loses_and_doubles_no_candle_s_signal(
    kafka_settings: KafkaSettings, transport: str, rolled_out: bool
) -> None:
    await ensure_topics(kafka_settings)
    first = minute_of_now() - 60
    symbols = (BTC, ETH)
    one = spec(1, symbols=list(symbols), signal_ttl_ms=45 * MINUTE, since_ms=(first + 5) * MINUTE + 7)
    if rolled_out:
        one.from_ms = one.since_ms = (first + 5) * MINUTE
    async with candle_writer(kafka_settings) as writer, house("w-0", kafka_settings, transport=transport) as worker:
        market = LiveMarket(writer, first, symbols)
        await market.close(5)
        await worker.applied(one)
        await worker.reaches(1, "Active")
        await market.close(25)
        for symbol in symbols:
            await all_decided(kafka_settings, first + 5, first + 29, symbol)
        for _ in range(2):  # the pod after it is lost as well
            await lose_pod(worker)
            await market.close(6)
            await worker.start("feed")
            await worker.start("supervisor")
            await acknowledged(worker)
            for symbol in symbols:
                await all_decided(kafka_settings, first + 5, market.next - 1, symbol)
            await market.close(3)
        for symbol in symbols:
            found = await all_decided(kafka_settings, first + 5, market.next - 1, symbol)
            assert found == {minute: [1] for minute in range(first + 5, market.next)}
        status = await worker.status()
        assert status.feed["drops"]["duplicate_signal"] >= 20, "decided again, and not published again"
        assert status.feed["drops"].get("fenced", 0) == 0
    out, _ = await published(kafka_settings)
    assert [identity for identity, records in Counter(one.id for one in out).items() if records > 1] == []
    assert len(out) == len(symbols) * (market.next - first - 5)


# -- the ids


async def settled(feed_recall: Recall, *traders: TraderAssignment) -> None:
    """Follow an assignment until everybody may pass."""
    feed_recall.follow(traders)
    task = asyncio.create_task(feed_recall.run())
    try:
        await until("all known", lambda: all(feed_recall.covers(one.trader) for one in traders))
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def owner(name: str, **changes: Any) -> TraderAssignment:
    wanted: dict[str, Any] = {"signal_ttl_ms": 10 * MINUTE, "since_ms": (minute_of_now() - 60) * MINUTE, **changes}
    return trader(name, [BTC, ETH], **wanted)


async def publish(kafka: KafkaSettings, *given: signal_format.Signal) -> None:
    async with candle_writer(kafka) as writer:
        for one in given:
            await writer.raw(writer.topics.signals, one.symbol.encode(), signal_format.encode(one), one.symbol)
        completion = signal_format.Completion(given[0].id, given[0].trader, 1, 1)
        await writer.raw(writer.topics.signals, BTC.encode(), signal_format.encode(completion), BTC)
        await writer.raw(writer.topics.signals, BTC.encode(), b"no signal", BTC)
        await writer.flush()


@pytest.mark.broker
async def test_the_ids_of_its_own_traders_on_candles_within_their_ttl_are_remembered(
    kafka_settings: KafkaSettings,
) -> None:
    await ensure_topics(kafka_settings)
    now = minute_of_now() * MINUTE
    mine = [signal("a", now - age * MINUTE, symbol) for age in (1, 5, 9) for symbol in (BTC, ETH)]
    old, others = signal("a", now - 40 * MINUTE), signal("b", now - MINUTE)
    ancient = signal("a", 7)  # of a replay
    await publish(kafka_settings, old, ancient, others, *mine)
    ids, counts = RecentIds(), Counter[str]()
    await settled(Recall(kafka_settings, ids, counts), owner("a"))
    assert counts == {"recalled_ids": len(mine)}
    assert not any(ids.add(one.id) for one in mine)
    assert all(ids.add(one.id) for one in (old, ancient, others))


@pytest.mark.broker
async def test_a_trader_that_comes_later_is_looked_up_when_it_comes_and_again_when_it_comes_back(
    kafka_settings: KafkaSettings,
) -> None:
    await ensure_topics(kafka_settings)
    now = minute_of_now() * MINUTE
    await publish(kafka_settings, signal("a", now), signal("b", now))
    ids, counts = RecentIds(), Counter[str]()
    looked = Recall(kafka_settings, ids, counts)
    await settled(looked, owner("a"))
    await settled(looked, owner("a"), owner("b"))
    assert counts == {"recalled_ids": 2}
    await publish(kafka_settings, signal("a", now - MINUTE))
    await settled(looked, owner("a"), owner("b"))
    await settled(looked, owner("a", incarnation=2, from_ms=now), owner("b"))
    assert counts == {"recalled_ids": 2}, "what it signals here is known here"
    await settled(looked, owner("b"))
    await settled(looked, owner("a"), owner("b"))
    assert counts == {"recalled_ids": 3}


@pytest.mark.broker
async def test_more_than_can_be_looked_at_is_cut_and_counted(
    kafka_settings: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ensure_topics(kafka_settings)
    monkeypatch.setattr(recall, "MOST_RECORDS", 6)
    now = minute_of_now() * MINUTE
    await publish(kafka_settings, *(signal("a", now - at, BTC) for at in range(20)))
    counts = Counter[str]()
    await settled(Recall(kafka_settings, RecentIds(), counts), msgspec.structs.replace(owner("a"), symbols=[BTC]))
    assert counts == {"recall_cut": 1, "recalled_ids": 4}, "the newest six: four of them are signals"


@pytest.mark.broker
async def test_recalled_ids_that_had_to_make_room_are_counted(kafka_settings: KafkaSettings) -> None:
    await ensure_topics(kafka_settings)
    now = minute_of_now() * MINUTE
    await publish(kafka_settings, *(signal("a", now - at * MINUTE, BTC) for at in range(6)))
    counts = Counter[str]()
    await settled(Recall(kafka_settings, RecentIds(recalled_limit=2), counts), owner("a"))
    assert counts == {"recalled_ids": 6, "recall_forgotten": 4}


@pytest.mark.broker
async def test_an_empty_topic_and_one_with_nothing_newer_are_looked_at_in_no_time(
    kafka_settings: KafkaSettings,
) -> None:
    await ensure_topics(kafka_settings)
    ids, counts = RecentIds(), Counter[str]()
    await settled(Recall(kafka_settings, ids, counts), owner("a"))
    now = minute_of_now() * MINUTE
    await publish(kafka_settings, signal("a", now))
    await settled(Recall(kafka_settings, ids, counts), owner("a", from_ms=now + 60 * MINUTE))
    assert not counts


def spoilt(monkeypatch: pytest.MonkeyPatch, spoil: Callable[[AIOKafkaConsumer, int], None]) -> None:
    """Have something done to the consumer of each look, by the look's number."""
    looks = itertools.count()
    make = clients.candle_consumer

    def made(kafka: KafkaSettings) -> AIOKafkaConsumer:
        consumer = make(kafka)
        spoil(consumer, next(looks))
        return consumer

    monkeypatch.setattr(recall, "candle_consumer", made)


async def silence(*_: TopicPartition, timeout_ms: int) -> dict[TopicPartition, list[object]]:
    await asyncio.sleep(timeout_ms / 1000)
    return {}


@pytest.mark.broker
async def test_a_look_during_which_kafka_was_away_is_begun_anew(
    kafka_settings: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ensure_topics(kafka_settings)
    published_id = signal("a", minute_of_now() * MINUTE)
    await publish(kafka_settings, published_id)

    def spoil(consumer: AIOKafkaConsumer, look: int) -> None:
        monkeypatch.setattr(recall, "MOST_S", 0.3 if look < 2 else 10.0)
        if look < 2:
            monkeypatch.setattr(consumer, "getmany", silence)

    spoilt(monkeypatch, spoil)
    ids, counts = RecentIds(), Counter[str]()
    await settled(Recall(kafka_settings, ids, counts), owner("a"))
    assert counts == {"recall_retries": 2, "recalled_ids": 1}
    assert not ids.add(published_id.id)


@pytest.mark.broker
async def test_a_look_is_cut_where_records_flow_and_don_t_end(
    kafka_settings: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ensure_topics(kafka_settings)
    await publish(kafka_settings, signal("a", minute_of_now() * MINUTE))

    def spoil(consumer: AIOKafkaConsumer, _: int) -> None:
        async def position(_: TopicPartition) -> int:
            return 0

        async def flow(*partitions: TopicPartition, timeout_ms: int) -> dict[TopicPartition, list[object]]:
            await asyncio.sleep(0.001)
            return {partitions[0]: []}

        monkeypatch.setattr(consumer, "position", position)
        monkeypatch.setattr(consumer, "getmany", flow)
        monkeypatch.setattr(recall, "MOST_S", 1.0)

    spoilt(monkeypatch, spoil)
    counts = Counter[str]()
    await settled(Recall(kafka_settings, RecentIds(), counts), owner("a"))
    assert counts == {"recall_cut": 1}


@pytest.mark.broker
@pytest.mark.parametrize("there", [True, False])
async def test_a_broker_that_gives_nothing_holds_nobody_up_for_ever(
    kafka_settings: KafkaSettings, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    if there:
        await ensure_topics(kafka_settings)
        await publish(kafka_settings, signal("a", minute_of_now() * MINUTE))
    monkeypatch.setattr(recall, "MOST_S", 0.3)
    monkeypatch.setattr(recall, "PATIENCE_S", 1.0)
    spoilt(monkeypatch, lambda consumer, _: monkeypatch.setattr(consumer, "getmany", silence))
    counts = Counter[str]()
    await settled(Recall(kafka_settings, RecentIds(), counts), owner("a"))
    assert counts["recall_cut"] == 1
    assert counts["recall_retries"] >= 1


async def test_while_no_broker_lets_it_in_it_goes_on_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall, "PATIENCE_S", 0.0)
    monkeypatch.setattr(recall, "_RETRY_S", 0.0)
    counts = Counter[str]()
    looked = Recall(KafkaSettings(bootstrap="127.0.0.1:1", feed="none"), RecentIds(), counts)
    looked.follow([owner("a")])
    task = asyncio.create_task(looked.run())
    await until("looked three times", lambda: counts["recall_retries"] >= 3)
    assert not looked.covers("desk/a")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.broker
async def test_a_consumer_that_does_not_end_holds_no_look_up(
    kafka_settings: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ensure_topics(kafka_settings)
    ends: list[Callable[[], Awaitable[None]]] = []

    async def hang() -> None:
        await asyncio.Event().wait()

    def spoil(consumer: AIOKafkaConsumer, _: int) -> None:
        ends.append(consumer.stop)
        monkeypatch.setattr(consumer, "stop", hang)

    spoilt(monkeypatch, spoil)
    counts = Counter[str]()
    await settled(Recall(kafka_settings, RecentIds(), counts), owner("a"))
    assert not counts
    for end in ends:
        await end()


@pytest.mark.broker
async def test_no_signal_passes_before_its_trader_s_ids_are_known_and_those_of_others_do(
    kafka_settings: KafkaSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ensure_topics(kafka_settings)
    now = minute_of_now() * MINUTE
    twice, once = signal("a", now - MINUTE), signal("a", now)
    async with candle_writer(kafka_settings) as writer:
        await writer.raw(writer.topics.signals, BTC.encode(), signal_format.encode(twice), BTC)
        await writer.flush()
    may_look, looks = asyncio.Event(), Recall._look

    async def look(self: Recall, wanted: dict[str, int]) -> None:
        await may_look.wait()
        await looks(self, wanted)

    monkeypatch.setattr(Recall, "_look", look)
    settings = feed_settings(tmp_path, kafka_settings)
    async with running_feed(settings) as feed, api(settings) as client:
        await put(client, assignment(1, owner("a"), trader("b", [BTC])))
        rings = {name: make_ring(settings, name) for name in ("a", "b")}
        for one in (twice, once):
            assert rings["a"].push(signal_format.encode(one))
        assert rings["b"].push(signal_format.encode(signal("b", now)))
        await until("b's signal published", lambda: feed.status().feed["signals"]["published"] == 1)
        assert rings["a"].depth == 2
        may_look.set()
        await until("a's ring empty", lambda: rings["a"].depth == 0)
        told = feed.status().feed
        assert told["signals"]["dropped"] == {"duplicate_signal": 1}
        assert told["events"]["recalled_ids"] == 1
    out, _ = await published(kafka_settings)
    assert Counter(one.id for one in out if one.trader == TRADER) == {twice.id: 1, once.id: 1}


async def test_while_kafka_can_t_be_read_it_waits_and_where_it_may_not_be_read_it_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers: list[Exception] = [KafkaConnectionError(), KafkaConnectionError(), TopicAuthorizationFailedError()]

    async def look(self: Recall, _: dict[str, int]) -> None:
        assert not self.covers("desk/a")
        raise answers.pop(0)

    monkeypatch.setattr(Recall, "_look", look)
    monkeypatch.setattr(recall, "_RETRY_S", 0.0)
    counts = Counter[str]()
    await settled(Recall(KafkaSettings(bootstrap="127.0.0.1:1", feed="none"), RecentIds(), counts), owner("a"))
    assert (answers, counts) == ([], {"recall_refused": 1, "recall_retries": 2})


async def test_who_owns_no_earlier_candle_waits_for_nothing() -> None:
    nowhere = KafkaSettings(bootstrap="127.0.0.1:1", feed="none")
    looked = Recall(nowhere, RecentIds(), Counter())
    traders = [
        trader("a", [BTC], signal_ttl_ms=MINUTE),
        owner("b", signal_ttl_ms=0),
        owner("c", mode="standby"),
        owner("d", mode="suspended"),
    ]
    looked.follow([*traders, owner("e")])
    assert [looked.covers(one.trader) for one in traders] == [True] * 4
    assert not looked.covers("desk/e")
    assert looked.covers("desk/gone"), "what a Trader left in its ring when it went"
    looked.follow(traders)
    assert looked.covers("desk/e")


@given(
    text=st.sampled_from(["1s", "1m", "4h", "1d", "1w", "1M"]),
    since_ms=st.integers(1, 2_000_000_000_000),
    ttl_ms=st.integers(1, 10**10),
    wall_ms=st.integers(10**11, 2_000_000_000_000),
    later_ms=st.integers(0, 10**8),
)
def test_the_ids_of_every_candle_that_a_trader_may_decide_again_are_looked_for(
    text: str, since_ms: int, ttl_ms: int, wall_ms: int, later_ms: int
) -> None:
    given_ = trader("a", [BTC], text, since_ms=since_ms, signal_ttl_ms=ttl_ms)
    looked_from_ms = decides_again_from_ms(given_, wall_ms)
    assert looked_from_ms is not None
    assert looked_from_ms <= recall_from_ms(given_, parse_interval(text), 0, wall_ms + later_ms)
