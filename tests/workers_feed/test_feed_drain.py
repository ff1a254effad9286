"""What the drain does when the producer fails under it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError, KafkaTimeoutError, OutOfOrderSequenceNumber
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.workers_feed.feed_setup import feed_settings, signal, trader, until

from chandlery.core import signals as signal_format
from chandlery.core.clocks import HostClocks
from chandlery.core.errors import InputError
from chandlery.core.settings import KafkaSettings
from chandlery.workers.feed import drain as drain_module
from chandlery.workers.feed.assignments import Fence
from chandlery.workers.feed.board import Receipt
from chandlery.workers.feed.drain import Drain
from chandlery.workers.feed.notes import Notes
from chandlery.workers.feed.tracing import Tracing
from chandlery.workers.segment import SignalRing

KAFKA = KafkaSettings("127.0.0.1:9", "none")


class Broker:
    """What the producers of one test wrote, and how they are to fail."""

    def __init__(self, fates: Iterator[str], partitions: int = 4) -> None:
        self.fates = fates
        self.partitions = partitions
        self.written: list[str] = []
        self.producers = 0

    def producer(self, _kafka: KafkaSettings) -> FakeProducer:
        self.producers += 1
        return FakeProducer(self)


class FakeProducer:
    """Acknowledges, refuses, fails later or never answers, as the broker's next fate says."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def start(self) -> None:
        if next(self._broker.fates, "ok") == "down":
            raise KafkaConnectionError("down")

    async def stop(self) -> None:
        return

    async def partitions_for(self, _topic: str) -> set[int]:
        return set(range(self._broker.partitions))

    async def send(
        self, _topic: str, value: bytes, *, key: bytes, partition: int, headers: list[tuple[str, bytes]]
    ) -> asyncio.Future[Any]:
        fate = next(self._broker.fates, "ok")
        if fate == "full":
            raise KafkaTimeoutError()
        if fate == "down":
            raise KafkaConnectionError("gone")
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if fate == "fail":
            asyncio.get_running_loop().call_soon(_fail, future)
        else:
            self._broker.written.append(signal_format.decode_signal(value).reason)
            asyncio.get_running_loop().call_soon(future.set_result, None)
        return future


def _fail(future: asyncio.Future[Any]) -> None:
    future.set_exception(OutOfOrderSequenceNumber())


def a_drain(folder: Path) -> tuple[Drain, SignalRing]:
    counts: Counter[str] = Counter()
    fences = {"desk/a@1": Fence.of(trader("a", ["BTC/USDT"]))}
    ring = SignalRing.create(f"{folder}/desk__a@1.ring", trader="desk/a", slots=64)
    untraced = Tracing(feed_settings(folder, KAFKA), Receipt(), HostClocks(), {})
    drain = Drain(KAFKA, folder, lambda: fences, Notes(KAFKA, "test", counts), counts, lambda _trader: None, untraced)
    return drain, ring


async def drained(drain: Drain, ring: SignalRing, check: Callable[[], bool]) -> None:
    task = asyncio.create_task(drain.run())
    try:
        await until("ring drained", lambda: task.done() or (ring.depth == 0 and check()))
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        drain.close()


@hypothesis_settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["ok", "ok", "ok", "full", "fail", "down"]), max_size=12))
def test_every_signal_is_acknowledged_in_order_whatever_fails(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, fates: list[str]
) -> None:
    broker = Broker(iter(fates))
    monkeypatch.setattr(drain_module, "signal_producer", broker.producer)
    monkeypatch.setattr(drain_module, "_RETRY_S", 0.0)

    async def scenario() -> None:
        drain, ring = a_drain(tmp_path_factory.mktemp("rings"))
        for number in range(10):
            assert ring.push(signal_format.encode(signal("a", number)))
        await drained(drain, ring, lambda: drain.tally.published == 10)
        assert set(broker.written) == {str(number) for number in range(10)}
        first_written = list(dict.fromkeys(broker.written))
        if "fail" not in fates:
            assert first_written == [str(number) for number in range(10)]
        assert drain.tally.emitted == drain.tally.published == 10

    asyncio.run(scenario())


async def test_a_slot_is_kept_until_everything_before_it_is_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    never: list[asyncio.Future[Any]] = []
    broker = Broker(iter(()))

    class OutOfOrder(FakeProducer):
        async def send(
            self, _topic: str, value: bytes, *, key: bytes, partition: int, headers: list[tuple[str, bytes]]
        ) -> asyncio.Future[Any]:
            if not never:  # the first one's acknowledgement doesn't come
                never.append(asyncio.get_running_loop().create_future())
                return never[0]
            return await super().send(_topic, value, key=key, partition=partition, headers=headers)

    monkeypatch.setattr(drain_module, "signal_producer", lambda _kafka: OutOfOrder(broker))
    drain, ring = a_drain(tmp_path)
    for number in range(3):
        ring.push(signal_format.encode(signal("a", number)))
    task = asyncio.create_task(drain.run())
    await until("later ones acknowledged", lambda: drain.tally.published == 2)
    assert ring.depth == 3
    never[0].set_result(None)
    await until("all released", lambda: ring.depth == 0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    drain.close()


async def test_a_topic_with_too_few_partitions_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain_module, "signal_producer", Broker(iter(()), partitions=2).producer)
    drain, ring = a_drain(tmp_path)
    ring.push(signal_format.encode(signal("a", 1)))
    with pytest.raises(InputError, match="2 partitions"):
        await drained(drain, ring, lambda: False)


class Flood:
    """A trader that fills its ring with garbage as fast as the feed empties it; it tires after a while."""

    def __init__(self, ring: SignalRing, monkeypatch: pytest.MonkeyPatch, most: int = 5_000) -> None:
        self.ring = ring
        self.pushed = 0
        self._most = most
        acknowledge = SignalRing.acknowledge

        def acknowledge_and_see_it_filled(of: SignalRing, upto: int) -> None:
            acknowledge(of, upto)
            self.fill()

        monkeypatch.setattr(SignalRing, "acknowledge", acknowledge_and_see_it_filled)

    def fill(self) -> None:
        while self.pushed < self._most and self.ring.push(b"garbage"):
            self.pushed += 1


async def test_a_flooded_ring_leaves_others_their_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain_module, "signal_producer", Broker(iter(())).producer)
    drain, ring = a_drain(tmp_path)
    flood = Flood(ring, monkeypatch)
    flood.fill()
    task = asyncio.create_task(drain.run())
    for _turn in range(12):  # at most 64 slots a turn
        await asyncio.sleep(0)
    assert drain.tally.dropped["bad_signal"] > 0
    assert flood.pushed < 1_000, "nothing else had a turn while the ring was emptied"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    drain.close()


async def test_a_ring_that_is_gone_but_flooded_on_is_emptied_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain_module, "signal_producer", Broker(iter(())).producer)
    drain, ring = a_drain(tmp_path)
    task = asyncio.create_task(drain.run())
    await until("ring found", lambda: drain.rings)
    flood = Flood(ring, monkeypatch)
    (tmp_path / "desk__a@1.ring").unlink()
    flood.fill()
    await until("ring left", lambda: not drain.holds("desk/a@1"))
    assert flood.pushed < 1_000, "it was emptied for as long as it was filled"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    drain.close()
