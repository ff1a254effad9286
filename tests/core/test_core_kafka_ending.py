"""Who ends a Kafka client is harmed by nothing of what that end does, and keeps the cancellations that are its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.consumer.group_coordinator import NoGroupCoordinator

from chandlery.core.kafka_ending import end_client

#: So many turns of the loop after the client's end has begun, at most, it ends tasks of its own.
TURNS = 5


def consumer() -> AIOKafkaConsumer:
    """As after its start, but that no broker is there: with the task that follows committed offsets."""
    made = AIOKafkaConsumer(bootstrap_servers="127.0.0.1:1")
    made._coordinator = NoGroupCoordinator(made._client, made._subscription)
    return made


def producer() -> AIOKafkaProducer:
    """As after its start, but that no broker is there: with the task that sends."""
    made = AIOKafkaProducer(bootstrap_servers="127.0.0.1:1")
    made._sender._sender_task = asyncio.create_task(made._sender._sender_routine())
    return made


class Connection:
    """One whose end takes for ever, as a TLS connection's may."""

    _writer = None

    def __init__(self) -> None:
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.closings = 0

    def close(self, reason: object = None) -> asyncio.Future[None]:
        self.closings += 1
        return self.closed


class Ending:
    """A client that ends by a function."""

    def __init__(self, end: Callable[[], Awaitable[None]]) -> None:
        self.stop = end


async def swallowing() -> None:
    """As Kafka's client ends a task of its own, which doesn't end at once."""
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()


async def failing() -> None:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        raise OSError("gone") from None


async def failing_at_once() -> None:
    raise OSError("gone")


async def cut_short() -> None:
    """As where a task of the client's own is cancelled before its first step."""
    raise asyncio.CancelledError


@pytest.mark.parametrize("turns", range(TURNS))
@pytest.mark.parametrize("client", [consumer, producer])
async def test_who_is_cancelled_while_it_ends_a_client_is_cancelled(client: Callable[[], Any], turns: int) -> None:
    before, ended = asyncio.all_tasks(), client()
    task = asyncio.create_task(end_client(ended))
    await asyncio.sleep(0)
    for _ in range(turns):
        await asyncio.sleep(0)
    if task.cancel():
        with pytest.raises(asyncio.CancelledError):
            await task
    # And it ends nevertheless: nothing of it, and nothing that ends it, is left.
    async with asyncio.timeout(20):
        while left := asyncio.all_tasks() - before:
            await asyncio.wait(left)
    assert ended._closed


@pytest.mark.parametrize("end", [swallowing, failing])
async def test_what_swallows_a_cancellation_does_not_lose_it(end: Callable[[], Awaitable[None]]) -> None:
    begun, went_on = asyncio.Event(), False

    async def begin() -> None:
        begun.set()
        await end()

    async def work() -> None:
        nonlocal went_on
        with contextlib.suppress(OSError):
            await end_client(Ending(begin))
        went_on = True

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not went_on


@pytest.mark.parametrize("end", [swallowing, failing, failing_at_once, cut_short])
async def test_however_a_client_ends_who_ends_it_goes_on(end: Callable[[], Awaitable[None]]) -> None:
    await end_client(Ending(end), within_s=0.01)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_connection_whose_end_never_comes_harms_nobody() -> None:
    """Its end is given up, which cancels it; and whoever looks at it again must not take that for their own."""
    client = consumer()
    connection = Connection()
    client._client._conns["node", 0] = connection
    await end_client(client, within_s=0.5)  # its other steps are over by then, on a busy machine too
    assert connection.closed.cancelled()
    assert connection.closings


async def test_a_client_that_is_cut_short_leaves_no_connection_and_no_task() -> None:
    client = consumer()
    connection = Connection()
    client._client._conns["node", 0] = connection
    client._client._sync_task = following = asyncio.create_task(asyncio.Event().wait())
    client.stop = cut_short
    await end_client(client)
    assert connection.closings
    await asyncio.wait([following])
    assert following.cancelled()


@pytest.mark.parametrize("end", [failing_at_once, cut_short])
async def test_who_was_cancelled_before_goes_through_all_steps_of_its_end(end: Callable[[], Awaitable[None]]) -> None:
    steps: list[str] = []

    async def work() -> None:
        with contextlib.suppress(OSError):
            try:
                await asyncio.Event().wait()
            finally:
                for step in ("producer", "consumer"):
                    await end_client(Ending(end))
                    steps.append(step)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert steps == ["producer", "consumer"]


async def test_a_producer_that_still_has_records_goes_on_behind_who_ends_it_and_ends_when_they_are_taken() -> None:
    taken, ended = asyncio.Event(), asyncio.Event()

    class Producer(Ending):
        def flush(self) -> None:
            """It has this, as Kafka's has."""

    async def flushing() -> None:
        await taken.wait()
        ended.set()

    await end_client(Producer(flushing), within_s=0.01)
    assert not ended.is_set()
    taken.set()
    await asyncio.wait_for(ended.wait(), 20)


async def test_a_producer_whose_end_fails_leaves_no_connection_and_no_task() -> None:
    client = AIOKafkaProducer(bootstrap_servers="127.0.0.1:1")
    connection = Connection()
    client.client._conns["node", 0] = connection
    client.client._sync_task = following = asyncio.create_task(asyncio.Event().wait())
    client.stop = failing_at_once
    await end_client(client)
    assert connection.closings
    await asyncio.wait([following], timeout=20)
    assert following.cancelled()
