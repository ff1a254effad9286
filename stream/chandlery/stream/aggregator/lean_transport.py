"""Faust's Kafka transport with a shorter way from the broker to the streams.

Measured with Faust's own on two cores at 1,000 records a second: every fetch crosses two threads that wait
for each other's GIL (5 ms a turn when both are busy), every record makes four tasks, and the loop sleeps a
second when all buffers are full. Here the consumer lives in the app's loop and records go over by batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from faust.transport.drivers import aiokafka as driver
from mode.utils.futures import maybe_async

from chandlery.core.kafka_login import keep_current
from chandlery.core.settings import KafkaSettings

# Longest wait for records: bounds how late a stop or a suspended flow is noticed.
_POLL_S: Final = 1.0
# Buffers drain at several thousand records a second: by then a full one has room again.
_BUFFER_FULL_S: Final = 0.005
_YIELD_EVERY: Final = 100


class InLoopConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's "thread" around aiokafka's consumer, without the thread."""

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, thread_loop=asyncio.get_running_loop(), **kwargs)

    def _create_consumer(self, loop: asyncio.AbstractEventLoop) -> Any:
        consumer = super()._create_consumer(loop)
        keep_current(consumer, _kafka_of(self.transport))
        return consumer

    async def start(self) -> None:
        self._thread_started.set()
        await self._default_start()

    async def stop(self) -> None:
        if self._stopped.is_set():
            return
        self._stopped.set()
        try:
            await self.on_thread_stop()
        finally:
            self._shutdown.set()
            await self._default_stop_children()
            await self._default_stop_futures()
            await self._default_stop_exit_stacks()

    async def call_thread(self, fun: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        return await maybe_async(fun(*args, **kwargs))

    def verify_event_path(self, now: float, tp: Any) -> None:
        """Nothing: :mod:`chandlery.stream.aggregator.watchdog` looks whether records are applied.

        Faust's own looks for what isn't done here by its ways, and would call a healthy app stuck, at every look from
        the fifth minute on: offsets go with the saved states, and nobody reads the states' topic after recovery.
        """

    async def on_partitions_revoked(self, revoked: set[Any]) -> None:
        await self.consumer.on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[Any], generation_id: int = 0) -> None:
        await self.consumer.on_partitions_assigned(assigned, generation_id)


class LeanConsumer(driver.Consumer):
    """Hands fetched records over batch by batch.

    What is being handed over when the flow is suspended is dropped, not sought back: whoever uses this
    consumer checks offsets itself, and seeks (see ``position``).
    """

    def _new_consumer_thread(self) -> InLoopConsumerThread:
        return InLoopConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def _drain_messages(self, fetcher: Any) -> None:
        try:
            while not (self.should_stop or fetcher.should_stop):
                await self._drain_once()
        except self.consumer_stopped_errors:
            if not self.transport.app.should_stop:
                raise
        except asyncio.CancelledError:
            if not self.transport.app.should_stop:
                raise

    async def _drain_once(self) -> None:
        if not self.flow_active:
            resumed: Any = self.can_resume_flow
            await self.wait(resumed)
            return
        active = self._get_active_partitions()
        if not active:
            await asyncio.sleep(_BUFFER_FULL_S)
            return
        generation = self.app.consumer_generation_id
        records = await self._getmany(active_partitions=active, timeout=_POLL_S)
        if not records:
            await asyncio.sleep(0)
        elif self.flow_active and generation == self.app.consumer_generation_id:
            await self.wait_first(self._deliver(records), self.suspend_flow.wait())
        else:
            self._put_back(records)

    def _put_back(self, records: Mapping[Any, list[Any]]) -> None:
        """Have records fetched again that came when a rebalance had begun or ended meanwhile.

        A saved state missed here would leave recovery waiting for it for good.
        """
        consumer = self._thread._consumer
        if consumer is None:
            return
        assignment = consumer._subscription.subscription.assignment
        for tp, batch in records.items():
            if tp not in consumer.assignment():
                continue
            state = assignment.state_value(tp)
            # Another position means that somebody has sought in between: theirs is the newer will.
            if state.has_valid_position and state.position == batch[-1].offset + 1:
                consumer.seek(tp, batch[0].offset)

    async def _deliver(self, records: Mapping[Any, Any]) -> None:
        for count, (tp, record) in enumerate(self.scheduler.iterate(records), 1):
            await self.callback(self._to_message(tp, record))
            if count % _YIELD_EVERY == 0:
                await asyncio.sleep(0)


class LoggedInProducer(driver.Producer):
    """Faust's producer, which nobody sends by: connected all the same, so it must get in."""

    def _new_producer(self, transactional_id: str | None = None) -> Any:
        producer = super()._new_producer(transactional_id)
        keep_current(producer, _kafka_of(self.transport))
        return producer


class LeanTransport(driver.Transport):
    """The transport of that consumer.

    Attributes:
        kafka: how Kafka is entered.
    """

    Consumer = LeanConsumer
    Producer = LoggedInProducer

    def __init__(self, url: Any, app: Any, kafka: KafkaSettings) -> None:
        super().__init__(url, app)
        self.kafka = kafka


def _kafka_of(transport: Any) -> KafkaSettings:
    kafka: KafkaSettings = transport.kafka
    return kafka
