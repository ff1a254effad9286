"""Faust's Kafka transport with a leaner way from the consumer to the streams.

Faust's own loop makes four tasks a message and sleeps a second when all buffers are full; measured here at
1,000 records a second that is half a core, and catching up is held at the buffer's length a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from faust.transport.drivers import aiokafka as driver

# Longest wait for records: bounds how late a stop or a suspended flow is noticed.
_POLL_S: Final = 1.0
# Buffers drain at several thousand records a second: this is what a full one has room for again.
_BUFFER_FULL_S: Final = 0.005
_YIELD_EVERY: Final = 100


class LeanConsumer(driver.Consumer):  # type: ignore[misc]
    """Hands fetched records over batch by batch.

    What is fetched while the flow is suspended is dropped, not sought back: whoever uses this consumer checks
    offsets itself, and seeks (see ``position``).
    """

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
            await self.wait(self.can_resume_flow)
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

    async def _deliver(self, records: Mapping[Any, Any]) -> None:
        for count, (tp, record) in enumerate(self.scheduler.iterate(records), 1):
            await self.callback(self._to_message(tp, record))
            if count % _YIELD_EVERY == 0:
                await asyncio.sleep(0)


class LeanTransport(driver.Transport):  # type: ignore[misc]
    """The transport of that consumer."""

    Consumer = LeanConsumer
