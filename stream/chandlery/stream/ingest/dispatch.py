"""The adaptive linger: when what waits is sent.

A channel (the way to one broker) carries one request at a time, and begins at most one in
:data:`SPACING_S`. Idle, it takes what has just come, at once; while a request is in flight, or the last one was
just begun, everything waits, and goes with the next one, packed. So a quiet market sees no delay and a busy one
sees fewer, larger requests: each costs the broker and every reader behind it about the same, full or not.
What closes a candle is waited for by everybody who decides on closed ones: it doesn't keep the distance.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from chandlery.core.clocks import ExchangeClock, wall_offset_ns
from chandlery.stream.ingest.clock import Clock
from chandlery.stream.ingest.counts import Counts
from chandlery.stream.ingest.packer import Lane, Packed
from chandlery.stream.ingest.sink import MAX_BATCH_BYTES, Batch, OutgoingRecord, Sink

# Key, header and framing of one record: 84 bytes of stamps, two names, varints; rounded up.
_RECORD_OVERHEAD_BYTES: Final = 160
#: Sources that can pause do so above this many waiting trades: a tenth of a second at full speed.
ROOM_TRADES: Final = 20_000
#: … or above this many waiting bytes of history.
ROOM_BYTES: Final = 8_000_000
#: Sources that can't pause lose trades above this: about 200 bytes each, so 200 MB.
CAP_TRADES: Final = 1_000_000
_LATENCY_SAMPLES: Final = 4_096
#: Least time between the beginnings of two requests of a channel. A busy market's trade waits half of it on
#: average; on two cores with everything on them the shorter queues behind are worth more: 1,000 trades a second
#: through the whole chain take 1.5 cores with 3 ms, 1.15 with 6 ms.
SPACING_S: Final = 0.006


class Dispatcher:
    """Sends what the lanes hold, one request a channel at a time.

    Args:
        lanes: every symbol's lane.
        sink: where records go.
        counts: counts ``appended``, ``records`` and ``heartbeats``.
        clock: for the time from received to acknowledged.
        failed: called with what the sink raised; nothing is sent after that.
    """

    def __init__(
        self,
        lanes: Mapping[str, Lane],
        sink: Sink,
        counts: Counts,
        clock: Clock,
        failed: Callable[[BaseException], None],
    ) -> None:
        self._lanes = lanes
        self._sink = sink
        self._counts = counts
        self._clock = clock
        self._failed = failed
        self._dirty: dict[int, dict[str, None]] = {}
        self._sending: set[int] = set()
        self._partitions_sending: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        #: Channels that are idle but keep their distance, and the partitions of their last request.
        self._resting: dict[int, tuple[asyncio.TimerHandle, Sequence[int]]] = {}
        #: Partitions where something waits that closes a candle.
        self._urgent: set[int] = set()
        self._scheduled = False
        self._acknowledged = asyncio.Event()
        self._started = False
        self._exchange = ExchangeClock()
        self.latencies_ns: list[int] = []

    def start(self) -> None:
        """Begin to send; until then everything waits."""
        self._started = True
        self._schedule()

    @property
    def waiting_trades(self) -> int:
        """Trades received and not yet acknowledged."""
        return self._counts.received - self._counts.appended - self._counts.dropped.total()

    def wake(self, lane: Lane, *, urgent: bool = False) -> None:
        """Say that a lane has something; ``urgent``: it closes a candle, so it keeps no distance."""
        self._dirty.setdefault(lane.partition, {})[lane.symbol] = None
        if urgent:
            self._urgent.add(lane.partition)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled and self._started:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        for channel in {self._sink.channel(partition) for partition in self._urgent} & self._resting.keys():
            self._release(channel)
        ready: dict[int, list[int]] = {}
        for partition in self._dirty:
            channel = self._sink.channel(partition)
            # A leader may have moved while its partition's last batch was on its old way.
            if channel not in self._sending and partition not in self._partitions_sending:
                ready.setdefault(channel, []).append(partition)
        for channel, partitions in ready.items():
            self._sending.add(channel)
            self._partitions_sending.update(partitions)
            task = asyncio.create_task(self._deliver(channel, partitions))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _deliver(self, channel: int, partitions: Sequence[int]) -> None:
        loop = asyncio.get_running_loop()
        next_s = loop.time() + SPACING_S
        offset_ns = wall_offset_ns()
        packed: list[tuple[Lane, Packed]] = []
        try:
            await self._sink.send([self._pack(partition, packed, offset_ns) for partition in partitions])
            self._count(packed)
        except Exception as error:  # noqa: BLE001 - handed on: whatever it is, it ends the run
            self._failed(error)
            return
        self._resting[channel] = (loop.call_at(next_s, self._rested, channel), partitions)
        self._acknowledged.set()
        if self._urgent:
            self._schedule()

    def _rested(self, channel: int) -> None:
        self._release(channel)
        if self._dirty:
            self._flush()

    def _release(self, channel: int) -> None:
        """Let a channel that has kept its distance, or needn't, begin its next request."""
        timer, partitions = self._resting.pop(channel)
        timer.cancel()
        self._sending.discard(channel)
        self._partitions_sending.difference_update(partitions)
        self._acknowledged.set()

    def _pack(self, partition: int, packed: list[tuple[Lane, Packed]], offset_ns: int) -> Batch:
        """Take records off a partition's lanes, in turn, until the batch is full."""
        records: list[OutgoingRecord] = []
        size = 0
        dirty = self._dirty[partition]
        while dirty:
            symbol = next(iter(dirty))
            lane = self._lanes[symbol]
            if records and size + lane.next_bytes > MAX_BATCH_BYTES:
                break
            del dirty[symbol]
            record = lane.pop()
            self._exchange.see(record.stamps, offset_ns)
            records.append(OutgoingRecord(lane.key, record.value, record.stamps.pack(offset_ns)))
            packed.append((lane, record))
            size += len(record.value) + _RECORD_OVERHEAD_BYTES
            if lane:
                dirty[symbol] = None
        if not dirty:
            del self._dirty[partition]
            self._urgent.discard(partition)
        return Batch(partition, records)

    def _count(self, packed: Sequence[tuple[Lane, Packed]]) -> None:
        counts = self._counts
        now_ns = self._clock.monotonic_ns()
        for lane, record in packed:
            lane.acknowledged(record)
            counts.records += 1
            counts.appended += record.trades
            counts.heartbeats += record.heartbeat
            if record.trades:
                self.latencies_ns.append(now_ns - record.received_ns)
                counts.appending.record((now_ns - record.received_ns) / 1_000)
        del self.latencies_ns[:-_LATENCY_SAMPLES]

    async def room(self) -> None:
        """Return when fewer trades and bytes wait than a source may pile up."""
        while self.waiting_trades > ROOM_TRADES or self._waiting_bytes() > ROOM_BYTES:
            self._acknowledged.clear()
            await self._acknowledged.wait()

    def _waiting_bytes(self) -> int:
        return sum(lane.waiting_bytes for lane in self._lanes.values())

    @property
    def idle(self) -> bool:
        """Whether everything given has been acknowledged."""
        return not self._dirty and self._sending <= self._resting.keys()

    async def drained(self) -> None:
        """Return when everything given has been acknowledged."""
        while not self.idle:
            self._acknowledged.clear()
            await self._acknowledged.wait()

    async def delivered(self, lane: Lane) -> None:
        """Return when everything that one lane was given so far has been acknowledged, however busy the others are."""
        while lane or self._is_sending(lane.partition):
            self._acknowledged.clear()
            await self._acknowledged.wait()

    def _is_sending(self, partition: int) -> bool:
        rested = any(partition in partitions for _, partitions in self._resting.values())
        return partition in self._partitions_sending and not rested

    async def close(self) -> None:
        """Give up what is still in flight."""
        for channel in list(self._resting):
            self._release(channel)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
