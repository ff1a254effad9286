"""The live consumers: batches of candle records into the router, doorbells rung once a batch.

There are two, one for the closed topics and one for forming candles, so that a closed candle never waits behind
forming ones, and forming ones that nobody decides on can be fetched at leisure.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Final

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from chandlery.core.behind import Behind
from chandlery.core.clocks import now_ns
from chandlery.core.kafka_ending import end_client
from chandlery.workers.feed.board import Receipt, SeriesBoard
from chandlery.workers.feed.positions import LivePositions
from chandlery.workers.feed.router import Router

log = logging.getLogger("chandlery.feed.consumer")

#: Records of ``candles-live`` read again at the start, so that quiet symbols have a forming candle too.
LIVE_LOOK_BACK_RECORDS: Final = 1_000
#: Closed records taken in before the doorbells ring and other tasks get their turn (about 5 ms).
_TURN_RECORDS: Final = 500
_RETRY_S: Final = 0.5
#: Longest wait for a batch; a changed assignment is noticed after it at the latest.
_POLL_MS: Final = 100


class LiveConsumer:
    """Consumes the partitions of :class:`LivePositions`, closed topics before the live one.

    Attributes:
        records: taken in since the start. assigned: partitions consumed now.
    """

    def __init__(
        self,
        consumer: Callable[[], AIOKafkaConsumer],
        positions: LivePositions,
        router: Router,
        board: SeriesBoard,
        receipt: Receipt,
        counts: Counter[str],
        *,
        live_topic: str,
        after_batch: Callable[[], None],
    ) -> None:
        self._consumer = consumer
        self._positions = positions
        self._router = router
        self._board = board
        self._receipt = receipt
        self._counts = counts
        self._live_topic = live_topic
        self._after_batch = after_batch
        self._unplaced: set[TopicPartition] = set()
        self._client: AIOKafkaConsumer | None = None
        self._renew = False
        self._ages: defaultdict[TopicPartition, Behind] = defaultdict(Behind)
        self.records = 0
        self.assigned = 0

    def follow_live(self, partitions: set[TopicPartition]) -> None:
        """Consume these partitions of the live topic, from a little before their end."""
        self._unplaced = {tp for tp in partitions if self._positions.get(tp) is None}

    def renew(self) -> None:
        """Make the client anew at the next batch: the factory has other settings now."""
        self._renew = True

    async def run(self) -> None:
        """Consume until cancelled; whatever the broker does, go on from where we stand."""
        while True:
            # Before the client is made: what is asked for while it starts is asked of the next one.
            self._renew = False
            consumer = self._consumer()
            try:
                await consumer.start()
                self._client = consumer
                await self._consume(consumer)
            except KafkaError as error:
                self._counts["consumer_restarts"] += 1
                log.debug("consumer restarts", extra={"reason": repr(error)})
                await asyncio.sleep(_RETRY_S)
            finally:
                self._client = None
                await end_client(consumer)

    async def _consume(self, consumer: AIOKafkaConsumer) -> None:
        assigned = -1
        while not self._renew:
            if self._unplaced:
                await self._place_live(consumer)
            if assigned != self._positions.revision:
                assigned = self._positions.revision
                self._assign(consumer)
            if not self.assigned:
                await asyncio.sleep(_POLL_MS / 1_000)
                continue
            batches = await consumer.getmany(timeout_ms=_POLL_MS)
            # Partitions that came or went meanwhile may stand elsewhere than this batch: it is read again.
            if batches and assigned == self._positions.revision:
                self._receipt.fed_ns = now_ns()
                await self._take_in(batches)

    def _assign(self, consumer: AIOKafkaConsumer) -> None:
        positions = self._positions.all()
        self.assigned = len(positions)
        if not positions:
            consumer.unsubscribe()
            return
        # The client forgets all positions with a new assignment; both calls are synchronous, so no fetch can
        # start from anywhere else.
        consumer.assign(list(positions))
        for tp, offset in positions.items():
            consumer.seek(tp, offset)

    async def _place_live(self, consumer: AIOKafkaConsumer) -> None:
        """Find where to begin in new partitions of the live topic."""
        partitions = list(self._unplaced)
        beginnings = await consumer.beginning_offsets(partitions)
        ends = await consumer.end_offsets(partitions)
        for tp in partitions:
            if tp in self._unplaced:  # still wanted after the waits
                self._positions.add(tp, max(beginnings[tp], ends[tp] - LIVE_LOOK_BACK_RECORDS))
                self._unplaced.discard(tp)

    async def _take_in(self, batches: dict[TopicPartition, list[ConsumerRecord]]) -> None:
        """Closed candles first: forming ones of the same batch then find their predecessors."""
        revision = self._positions.revision
        for tp, records in batches.items():
            if tp.topic != self._live_topic:
                await self._take_closed(tp, records, revision)
        for tp, records in batches.items():
            if tp.topic == self._live_topic and revision == self._positions.revision:
                self._router.live(records)
                self._advance(tp, records)
        self._board.ring()
        self._after_batch()

    async def _take_closed(self, tp: TopicPartition, records: list[ConsumerRecord], revision: int) -> None:
        for first in range(0, len(records), _TURN_RECORDS):
            if first:
                await asyncio.sleep(0)
            if revision != self._positions.revision:
                return  # assigned anew while other tasks had their turn: the rest is read again
            turn = records[first : first + _TURN_RECORDS]
            self._router.closed(turn)
            self._advance(tp, turn)
            self._board.ring()

    def _advance(self, tp: TopicPartition, records: list[ConsumerRecord]) -> None:
        self.records += len(records)
        self._positions.advance(tp, records[-1].offset + 1)
        self._ages[tp].took(records[-1].timestamp, time.time_ns() // 1_000_000)

    def behind(self) -> int:
        """Records that the broker has and the segment not yet, as far as fetches have told."""
        return sum(self._waiting().values())

    def behind_ms(self) -> int:
        """For how long the oldest of them has waited."""
        now_ms = time.time_ns() // 1_000_000
        return max((self._ages[tp].ms(now_ms, waits=left > 0) for tp, left in self._waiting().items()), default=0)

    def each_second(self) -> None:
        """Note which partitions stand at their ends."""
        now_ms = time.time_ns() // 1_000_000
        waiting = self._waiting()
        for tp, left in waiting.items():
            self._ages[tp].look(now_ms, waits=left > 0)
        for tp in self._ages.keys() - waiting.keys():
            del self._ages[tp]

    def _waiting(self) -> dict[TopicPartition, int]:
        """Records that wait, by partition; while there is no client, nothing is known."""
        consumer = self._client
        if consumer is None:
            return {}
        assigned = consumer.assignment()
        waiting: dict[TopicPartition, int] = {}
        for tp, position in self._positions.all().items():
            high = consumer.highwater(tp) if tp in assigned else None
            waiting[tp] = max(0, high - position) if high is not None else 0
        return waiting
