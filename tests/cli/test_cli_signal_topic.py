"""Reading the signals topic ends, whatever Kafka does meanwhile; what one feed's topic doesn't tell, others do."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from aiokafka import TopicPartition

from chandlery.cli import signal_states, signal_topic, signalling
from chandlery.cli.collecting import Collected
from chandlery.cli.signal_states import with_states
from chandlery.cli.signal_topic import SignalTopic
from chandlery.console.model import FeedRow, SignalRow, View
from chandlery.core.errors import InputError, UnavailableError
from chandlery.core.settings import KafkaSettings
from chandlery.core.signals import Signal


class Silent:
    """A consumer whose broker has gone silent: it has ten records, and gives none."""

    _writer, _sync_task = None, None

    def __init__(self) -> None:
        # Its own client, of one connection.
        self._client, self._conns = self, {"node": self}
        self.closed = False

    async def beginning_offsets(self, partitions: list[Any]) -> dict[Any, int]:
        return dict.fromkeys(partitions, 0)

    async def end_offsets(self, partitions: list[Any]) -> dict[Any, int]:
        return dict.fromkeys(partitions, 10)

    def seek(self, partition: Any, offset: int) -> None:
        pass

    async def position(self, partition: Any) -> int:
        return 0

    async def getmany(self, *partitions: Any, timeout_ms: int) -> dict[Any, Any]:
        await asyncio.sleep(0)
        return {}

    async def stop(self) -> None:
        await asyncio.Event().wait()

    def close(self) -> None:
        self.closed = True


def silent() -> tuple[SignalTopic, Silent]:
    topic, consumer = SignalTopic(KafkaSettings(feed="market", bootstrap="nowhere:9092"), "market.signals"), Silent()
    topic._consumer, topic._partitions = consumer, [TopicPartition("market.signals", 0)]
    return topic, consumer


async def test_a_broker_that_goes_silent_is_told_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal_topic, "_ANSWER_S", 0.05)
    topic, _ = silent()
    async with asyncio.timeout(30):
        with pytest.raises(UnavailableError, match="no longer answers"):
            await topic.collect()


async def test_a_client_that_does_not_end_is_left() -> None:
    topic, consumer = silent()
    async with asyncio.timeout(30):
        await topic.__aexit__(None, None, None)
    assert consumer.closed


class Topic:
    """Of the topic ``there`` one signal; ``new`` isn't there yet, and the Kafka of ``away`` doesn't answer."""

    def __init__(self, _kafka: KafkaSettings, topic: str) -> None:
        self._topic = topic

    async def __aenter__(self) -> Topic:
        if self._topic == "new":
            raise InputError("no topic new")
        if self._topic == "away":
            raise UnavailableError("Kafka doesn't answer")
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def offsets_at(self, _append_ms: int) -> dict[int, int]:
        return {}

    async def ends(self) -> dict[int, int]:
        return {}

    async def collect(self, _since: dict[int, int] | None = None) -> Collected:
        collected = Collected()
        collected.put(
            Signal(
                "a", "x/one", "s", "c", "r", 0, "buy", "BTC/USDT", "1s", 0, 1, "1", 1.0, "", emitted_wall_ms=1, ttl_ms=1
            )
        )
        return collected


async def test_a_topic_that_can_not_be_read_takes_no_state_from_signals_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(signal_states, "SignalTopic", Topic)
    feeds = [FeedRow(name, "binance", signals_topic=name) for name in ("away", "new", "there")]
    listed = [SignalRow(name, "x/one", "buy", "BTC/USDT", "1s", "1", 0) for name in ("a", "b")]
    rows, problems = await with_states(View("run", "1", "s", 1, 0, feeds=feeds, signals=listed))
    assert [(row.id, row.state) for row in rows] == [("a", "expired"), ("b", "")]
    assert problems == ["away: Kafka doesn't answer", "new: no topic new"]


async def test_whatever_ends_the_reading_of_one_feed_ends_following_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __init__(self, *_: object) -> None:
            pass

        async def __aenter__(self) -> Broken:
            raise ValueError("a record that nobody thought of")

        async def __aexit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(signalling, "SignalTopic", Broken)
    begun = signalling._Begun(FeedRow(feed="market", source="synthetic"), {}, Collected())
    with pytest.raises(ValueError, match="nobody thought of"):
        async with asyncio.timeout(30):
            await anext(signalling._merged([begun], os.getpid()))


@pytest.mark.parametrize("last", [0, 20])
@pytest.mark.parametrize(("trader", "known"), [("one", True), ("x/one", True), ("nobody", False)])
async def test_a_deleted_trader_is_known_by_its_signals_also_where_none_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], last: int, trader: str, known: bool
) -> None:
    monkeypatch.setattr(signalling, "SignalTopic", Topic)
    view = View("run", "1", "s", 1, 0, feeds=[FeedRow("there", "binance", signals_topic="there")])
    shown = signalling._signals(view, follow=False, trader=trader, last=last, json=True)
    if not known:
        with pytest.raises(InputError, match='no Trader "nobody"'):
            await shown
        return
    await shown
    assert len(capsys.readouterr().out.splitlines()) == (1 if last else 0)
