"""Parts of the feed that are told to end while Kafka's client ends tasks of its own: they end, and nothing begins anew."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from pathlib import Path
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaConnectionError
from tests.workers_feed.feed_setup import feed_settings

from chandlery.core.assignment import SeriesRef
from chandlery.core.errors import InvariantError
from chandlery.core.settings import KafkaSettings
from chandlery.workers.feed.catchup import CatchUp
from chandlery.workers.feed.consumer import LiveConsumer
from chandlery.workers.feed.positions import LivePositions
from chandlery.workers.feed.router import Track
from chandlery.workers.feed.service import Feed


class Client:
    """A consumer whose end takes until it is cancelled, and is over then: as Kafka's where it ends a task of its own."""

    def __init__(self) -> None:
        self.begun, self.ending = asyncio.Event(), asyncio.Event()

    async def start(self) -> None:
        self.begun.set()

    def unsubscribe(self) -> None:
        """Nothing is wanted."""

    def assign(self, _partitions: list[TopicPartition]) -> None:
        raise KafkaConnectionError

    async def stop(self) -> None:
        self.ending.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()


class Clients:
    """Gives them, and knows how many it gave."""

    def __init__(self) -> None:
        self.given: list[Client] = []

    def __call__(self) -> AIOKafkaConsumer:
        self.given.append(Client())
        return cast(AIOKafkaConsumer, self.given[-1])


UNUSED: Any = None
PARTITION = TopicPartition("candles", 0)


def catchup(clients: Clients, failures: list[BaseException]) -> CatchUp:
    return CatchUp(
        clients, UNUSED, UNUSED, UNUSED, Counter(), UNUSED, rows=1, joined=lambda: None, failed=failures.append
    )


def tracks() -> dict[SeriesRef, Track]:
    return {}


async def test_the_live_consumer_ends_though_its_client_takes_the_cancellation_for_one_of_its_own() -> None:
    clients = Clients()
    live = LiveConsumer(
        clients, LivePositions(), UNUSED, UNUSED, UNUSED, Counter(), live_topic="live", after_batch=lambda: None
    )
    running = asyncio.create_task(live.run())
    await asyncio.sleep(0)
    live.renew()
    await clients.given[0].ending.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert len(clients.given) == 1


async def test_a_catch_up_ends_though_its_client_takes_the_cancellation_for_one_of_its_own() -> None:
    clients, failures = Clients(), list[BaseException]()
    jobs = catchup(clients, failures)
    jobs.start(PARTITION, tracks())
    await asyncio.sleep(0)
    await clients.given[0].ending.wait()
    await jobs.stop()
    assert (len(clients.given), jobs.jobs, failures) == (1, {}, [])


async def test_no_catch_up_begins_once_they_are_stopped() -> None:
    clients = Clients()
    jobs = catchup(clients, [])
    await jobs.stop()
    jobs.start(PARTITION, tracks())
    assert jobs.jobs == {}


async def test_a_catch_up_that_nobody_here_cut_short_is_told() -> None:
    clients, failures = Clients(), list[BaseException]()
    jobs = catchup(clients, failures)
    jobs.start(PARTITION, tracks())
    (job,) = jobs.jobs
    job.cancel()
    await asyncio.wait([job])
    assert [type(failure) for failure in failures] == [InvariantError]
    await jobs.stop()


async def test_a_feed_does_not_live_on_without_a_part_that_nobody_here_cut_short(tmp_path: Path) -> None:
    feed = Feed(feed_settings(tmp_path, KafkaSettings(bootstrap="127.0.0.1:1", feed="market")))
    try:
        await feed.start()
        running = asyncio.create_task(feed.run(asyncio.Event()))
        feed._tasks["closed"].cancel()
        with pytest.raises(InvariantError, match="closed was cut short"):
            await running
    finally:
        await feed.stop()


async def test_a_client_that_starts_while_others_settings_are_asked_for_is_made_anew() -> None:
    """As for the first Trader that decides on every update, assigned to a worker that has just been started."""

    class Renewing(Client):
        async def start(self) -> None:
            if len(clients.given) == 1:
                live.renew()
            else:
                second.set()

        async def stop(self) -> None:
            self.ending.set()

    class RenewingClients(Clients):
        def __call__(self) -> AIOKafkaConsumer:
            self.given.append(Renewing())
            return cast(AIOKafkaConsumer, self.given[-1])

    second = asyncio.Event()
    clients = RenewingClients()
    live = LiveConsumer(
        clients, LivePositions(), UNUSED, UNUSED, UNUSED, Counter(), live_topic="live", after_batch=lambda: None
    )
    running = asyncio.create_task(live.run())
    await asyncio.wait_for(second.wait(), 20)
    assert clients.given[0].ending.is_set()
    running.cancel()
    await asyncio.wait([running])
    assert len(clients.given) == 2


async def test_a_feed_whose_loop_ends_altogether_says_nothing_of_its_parts(tmp_path: Path) -> None:
    feed = Feed(feed_settings(tmp_path, KafkaSettings(bootstrap="127.0.0.1:1", feed="market")))
    await feed.start()
    failure: Any = feed._failure
    parts = list(feed._tasks.values())
    for task in parts:
        task.cancel()
    await asyncio.wait(parts)
    assert failure._log_traceback, "asyncio would log it, as an error that nobody asked for"
    await feed.stop()
    assert not failure._log_traceback
