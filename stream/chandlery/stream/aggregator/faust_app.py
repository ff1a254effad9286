"""The Faust app: group membership, assignment, the stream of records, and recovery of saved states.

What is not Faust's here, and why, stands in the modules that do it: sending (``outputs``), checkpoints
(``checkpoints``), positions (``position``), the consumer's inner loop (``lean_transport``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, Protocol

import faust
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata

from chandlery.core.settings import AggregatorSettings
from chandlery.core.topics import AGGREGATOR_CLIENT, aggregator_group, topics_of
from chandlery.stream.aggregator.changelog import changelog_name
from chandlery.stream.aggregator.lean_transport import LeanTransport

log = logging.getLogger("chandlery.aggregator")

# Kafka's least session for brokers as they come (group.min.session.timeout.ms 6 s); below it Faust hangs at
# its start without a word. A restart doesn't wait for it (see ``instance``), only a takeover by another worker.
_SESSION_S: Final = 6.0
_HEARTBEAT_S: Final = 0.5
# Longer than the session, as Faust demands, and than a broker's restart after SIGKILL (4–5 s).
_REQUEST_S: Final = 20.0
_COMMIT_S: Final = 1.0
_BUFFERED_RECORDS: Final = 4_096


class Record(Protocol):
    """What the stream gives for a record (Faust's ``Message``)."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: float
    headers: Any


class AggregatorApp(faust.App):
    """A Faust app that says when a rebalance is over and the states are recovered.

    Attributes:
        on_recovered: called then, in the app's loop, before the streams' first record.
    """

    on_recovered: Callable[[], None] | None = None

    def on_rebalance_end(self) -> None:
        """Called by Faust when recovery is complete."""
        super().on_rebalance_end()
        if self.on_recovered is not None:
            self.on_recovered()


class FaustSide:
    """Everything that the aggregator asks of Faust.

    Attributes:
        app: the Faust app.
    """

    def __init__(
        self,
        settings: AggregatorSettings,
        instance: str,
        *,
        on_record: Callable[[Record], Awaitable[None]],
        on_revoked: Callable[[], Awaitable[None]],
        on_recovered: Callable[[], None],
    ) -> None:
        """Build the app; nothing is connected before ``app.start()``.

        Args:
            instance: static member name in the consumer group.
            on_record: called for each record of the trades topic, one at a time.
            on_revoked: called before partitions are given up.
            on_recovered: called when saved states are recovered after partitions were assigned.
        """
        kafka = settings.kafka
        self.trades = topics_of(kafka).trades
        self.changelog = changelog_name(kafka)
        # Faust's annotations name interfaces that lack half of what its documentation tells to use.
        self.app: Any = AggregatorApp(
            aggregator_group(kafka),
            broker=[f"kafka://{address.strip()}" for address in kafka.bootstrap.split(",")],
            broker_client_id=AGGREGATOR_CLIENT,
            datadir=settings.data_dir,
            store="memory://",
            autodiscover=False,
            web_enabled=False,
            topic_allow_declare=False,
            topic_disable_leader=True,
            topic_partitions=kafka.partitions,
            stream_wait_empty=False,
            table_standby_replicas=0,
            stream_buffer_maxsize=_BUFFERED_RECORDS,
            stream_recovery_delay=0.0,
            broker_commit_interval=_COMMIT_S,
            broker_session_timeout=_SESSION_S,
            broker_heartbeat_interval=_HEARTBEAT_S,
            broker_request_timeout=_REQUEST_S,
            consumer_auto_offset_reset="earliest",
            consumer_group_instance_id=instance,
        )
        self.app.transport = LeanTransport(self.app.conf.broker_consumer, self.app, kafka)
        self.app.producer_transport = self.app.transport
        self.app.on_recovered = on_recovered
        raw: dict[str, Any] = {
            "key_type": bytes,
            "value_type": bytes,
            "key_serializer": "raw",
            "value_serializer": "raw",
        }
        trades = self.app.topic(self.trades, partitions=kafka.partitions, **raw)
        saved = self.app.topic(self.changelog, partitions=kafka.partitions, **raw)
        self._table = self.app.Table(
            "states", key_type=bytes, value_type=bytes, partitions=kafka.partitions, changelog_topic=saved
        )

        @self.app.agent(trades, name="aggregate")
        async def aggregate(stream: Any) -> None:
            events: AsyncIterator[Any] = stream.noack().events()
            async for event in events:
                await on_record(event.message)

        async def revoked(*_: object, **__: object) -> None:
            await on_revoked()

        # Faust keeps only weak references to signal handlers.
        self._keep = (aggregate, revoked)
        self.app.on_partitions_revoked.connect(revoked)

    def recovered_states(self) -> dict[bytes, bytes]:
        """Newest value of each key of the changelog, of the partitions assigned."""
        return dict(self._table.data.items())

    def assigned_partitions(self) -> list[int]:
        """Partitions of the trades topic that are this worker's."""
        return sorted(tp.partition for tp in self.app.consumer.assignment() if tp.topic == self.trades)

    async def seek(self, partition: int, offset: int) -> None:
        """Make ``offset`` the next record that the consumer fetches."""
        await self.app.consumer.seek_wait({self._tp(partition): offset})

    async def commit(self, offsets: dict[int, int]) -> None:
        """Tell the group how far the input is done: for people's tools, recovery doesn't read it.

        Not by Faust: its commits go by acknowledged events, stall for good at a gap in the offsets, and end
        the app when a rebalance comes between.
        """
        assigned = set(self.assigned_partitions())
        mine = {
            TopicPartition(self.trades, partition): OffsetAndMetadata(offset, "")
            for partition, offset in offsets.items()
            if partition in assigned
        }
        if not mine or self.app.rebalancing:
            return
        try:
            async with asyncio.timeout(_COMMIT_S):
                await self._kafka_consumer().commit(mine)
        except (KafkaError, TimeoutError) as error:
            # The next checkpoint commits more.
            log.info("offsets not committed", extra={"error": repr(error)})

    def end_offset(self, partition: int) -> int | None:
        """Offset of the next record to be appended, as far as known."""
        end: int | None = self.app.consumer.highwater(self._tp(partition))
        return end

    def leave_group(self) -> None:
        """Have the consumer tell the group that it leaves, when the app stops.

        aiokafka keeps a static member in the group when it closes, so that it may come back; a worker that is
        stopped in order gives its partitions to the others at once.
        """
        consumer = self._kafka_consumer()
        if consumer is not None and consumer._coordinator is not None:
            consumer._coordinator._group_instance_id = None

    def _kafka_consumer(self) -> Any:
        """aiokafka's consumer, None before the start."""
        return self.app.consumer._thread._consumer

    def _tp(self, partition: int) -> Any:
        return faust.types.TP(self.trades, partition)
