"""History of new series: an own consumer that reads the closed topic from far enough back, then joins.

One job reads one partition of one closed topic for all series that became wanted together. It ends when it
stands at or beyond the live consumer's position: from there on the live records reach the series. Whatever
both have read is harmless, because a series knows what it has.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from chandlery.core.assignment import SeriesRef
from chandlery.core.clocks import now_ns, unpack_stamps
from chandlery.core.errors import InvariantError
from chandlery.core.kafka_ending import end_client
from chandlery.workers.feed.board import Receipt, SeriesBoard
from chandlery.workers.feed.candle_rows import stamps_header
from chandlery.workers.feed.positions import LivePositions
from chandlery.workers.feed.router import RawRecord, Refuse, Track, decode_record

log = logging.getLogger("chandlery.feed.catchup")

#: A log this short is read whole, without looking for the start first.
READ_WHOLE_RECORDS: Final = 20_000
#: First stretch looked at from the end; each further one is twice as long, so at most half is read in vain.
FIRST_STRETCH_RECORDS: Final = 10_000
#: A pause after a failed attempt; the broker restarts in about 4 s.
_RETRY_S: Final = 0.5
#: Records applied before other tasks get their turn (about 10 µs each: 5 ms).
_TURN_RECORDS: Final = 500

ConsumerFactory = Callable[[], AIOKafkaConsumer]


@dataclass(slots=True)
class Depth:
    """How far back the closed candles of one series reach (pure; fed with stretches from newest to oldest).

    Attributes:
        need: closed candles wanted. have: found so far. start: offset to read from, -1 while unknown.
    """

    need: int
    have: int = 0
    start: int = -1
    _newest_in_stretch: int = -1

    def begin_stretch(self) -> None:
        """A stretch of older records begins."""
        self._newest_in_stretch = -1

    def see(self, open_time_ms: int) -> None:
        """Count a closed candle; repetitions within the stretch count once."""
        if open_time_ms > self._newest_in_stretch:
            self._newest_in_stretch = open_time_ms
            self.have += 1

    def end_stretch(self, low: int, *, beginning: bool) -> None:
        """The stretch that began at offset ``low`` is read."""
        if self.start < 0 and (beginning or self.have >= self.need):
            self.start = low


@dataclass(slots=True)
class Job:
    """Series of one partition that catch up together.

    Attributes:
        position: next offset to read, -1 before the start is known. end: of the log when the job began.
    """

    partition: TopicPartition
    tracks: dict[SeriesRef, Track]
    position: int = -1
    end: int = 0
    starts: dict[SeriesRef, int] = field(default_factory=dict)

    def record_keys(self) -> set[bytes]:
        """Record keys of the job's symbols."""
        return {ref.symbol.encode() for ref in self.tracks}


class CatchUp:
    """Runs the catch-up jobs.

    Args:
        consumer: makes a consumer without group. rows: closed candles wanted a series.
        joined: called when a job's series have joined. failed: called with a defect of ours.
    """

    def __init__(
        self,
        consumer: ConsumerFactory,
        board: SeriesBoard,
        live: LivePositions,
        receipt: Receipt,
        counts: Counter[str],
        refuse: Refuse,
        *,
        rows: int,
        joined: Callable[[], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._consumer = consumer
        self._board = board
        self._live = live
        self._receipt = receipt
        self._counts = counts
        self._refuse = refuse
        self._rows = rows
        self._joined = joined
        self._failed = failed
        self.wall_offset = 0
        self.jobs: dict[asyncio.Task[None], Job] = {}
        # Each job holds fetched records of up to a few MB; four keep the memory bounded.
        self._slots = asyncio.Semaphore(4)
        self._stopped = False

    def catching_up(self) -> list[SeriesRef]:
        """Series that have not joined yet."""
        return sorted(
            ref
            for job in self.jobs.values()
            for ref, track in job.tracks.items()
            if not track.joined and self._board.tracks.get(ref) is track
        )

    def start(self, partition: TopicPartition, tracks: dict[SeriesRef, Track]) -> None:
        """Begin a job for series of one partition; nothing happens once they are stopped."""
        if self._stopped:
            return  # the feed looks for series that may come each second until its rings are drained
        job = Job(partition, tracks)
        task = asyncio.create_task(self._run(job))
        self.jobs[task] = job
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self.jobs.pop(task, None)
        if task.cancelled():
            if not self._stopped:
                self._failed(InvariantError("a catch-up was cut short: its series would never come"))
        elif (error := task.exception()) is not None:
            self._failed(error)

    async def stop(self) -> None:
        """Give up all jobs, for good."""
        self._stopped = True
        tasks = list(self.jobs)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, job: Job) -> None:
        async with self._slots:
            while True:
                try:
                    await self._attempt(job)
                except KafkaError as error:
                    self._counts["catchup_retries"] += 1
                    log.debug("catch-up interrupted", extra={"reason": repr(error), "position": job.position})
                    await asyncio.sleep(_RETRY_S)
                else:
                    return

    async def _attempt(self, job: Job) -> None:
        consumer = self._consumer()
        try:
            await consumer.start()
            tp = job.partition
            consumer.assign([tp])
            if job.position < 0:
                await self._find_start(consumer, job)
            consumer.seek(tp, job.position)
            await self._read_and_join(consumer, job)
        finally:
            await end_client(consumer)

    async def _find_start(self, consumer: AIOKafkaConsumer, job: Job) -> None:
        tp = job.partition
        beginning: int = (await consumer.beginning_offsets([tp]))[tp]
        job.end = (await consumer.end_offsets([tp]))[tp]
        if job.end - beginning <= READ_WHOLE_RECORDS:
            job.starts = {ref: beginning for ref in job.tracks}
        else:
            job.starts = await self._look_back(consumer, job, beginning)
        job.position = min(job.starts.values(), default=beginning)

    async def _look_back(self, consumer: AIOKafkaConsumer, job: Job, beginning: int) -> dict[SeriesRef, int]:
        """First offset to read for each series: stretches from the end backwards, nothing kept but counts."""
        depths = {ref: Depth(self._rows) for ref in job.tracks}
        sessions: dict[str, int] = {}
        wanted = job.record_keys()
        high, stretch = job.end, FIRST_STRETCH_RECORDS
        while high > beginning and any(depth.start < 0 for depth in depths.values()):
            low = max(beginning, high - stretch)
            older: set[str] = set()
            for depth in depths.values():
                depth.begin_stretch()
            async for record in _between(consumer, job.partition, low, high):
                if record.key in wanted:
                    _look_at(record, depths, sessions, older)
            for ref, depth in depths.items():
                # Records of an older session are of no use: nothing before them is either.
                depth.end_stretch(low, beginning=low == beginning or ref.symbol in older)
            high, stretch = low, stretch * 2
        return {ref: depth.start if depth.start >= 0 else beginning for ref, depth in depths.items()}

    async def _read_and_join(self, consumer: AIOKafkaConsumer, job: Job) -> None:
        tp = job.partition
        keys = job.record_keys()
        while not self._try_join(job):
            batches = await consumer.getmany(tp, timeout_ms=100)
            records: list[ConsumerRecord] = batches.get(tp, [])
            for first in range(0, len(records), _TURN_RECORDS):
                turn = records[first : first + _TURN_RECORDS]
                self._receipt.fed_ns = now_ns()
                for record in turn:
                    if record.key is None or record.key in keys:
                        self._take(job, record)
                job.position = turn[-1].offset + 1
                await asyncio.sleep(0)
            if not records:
                # Nothing to read: the position may still move over records that no reader is shown.
                job.position = max(job.position, await consumer.position(tp))

    def _take(self, job: Job, record: RawRecord) -> None:
        decoded, reason = decode_record(record)
        if decoded is None:
            self._refuse(record, reason)
            return
        stamps = unpack_stamps(stamps_header(record.headers), self.wall_offset)
        for update in decoded.updates:
            ref = SeriesRef(decoded.symbol, update.interval)
            track = job.tracks.get(ref)
            if track is None or update.state == "forming" or record.offset < job.starts[ref]:
                continue
            if self._board.tracks.get(ref) is not track:
                continue  # no longer wanted
            try:
                track.sequence.apply(decoded.session, update, stamps)
            except ValueError as error:
                self._refuse(record, str(error))

    def _try_join(self, job: Job) -> bool:
        """Join if nothing lies between this job and the live records. No await: positions can't move."""
        tp = job.partition
        if job.position < job.end:
            return False
        live = self._live.get(tp)
        if live is not None and job.position < live:
            return False
        if live is None and any(self._board.tracks.get(ref) is track for ref, track in job.tracks.items()):
            self._live.add(tp, job.position)
        for ref, track in job.tracks.items():
            self._board.join(ref, track)
        self._joined()
        log.info(
            "series caught up",
            extra={"topic": tp.topic, "partition": tp.partition, "series": len(job.tracks), "offset": job.position},
        )
        return True


def _look_at(record: RawRecord, depths: dict[SeriesRef, Depth], sessions: dict[str, int], older: set[str]) -> None:
    """Count a record's closed candles for the series that look for their start."""
    decoded, _reason = decode_record(record)  # the reading pass reports what can't be decoded
    if decoded is None:
        return
    newest = sessions.setdefault(decoded.symbol, decoded.session)
    if decoded.session < newest:
        older.add(decoded.symbol)
        return
    if decoded.session > newest:
        # A session began within this stretch: what was counted before it is of no use.
        sessions[decoded.symbol] = decoded.session
        older.add(decoded.symbol)
    for update in decoded.updates:
        depth = depths.get(SeriesRef(decoded.symbol, update.interval))
        if depth is not None and update.state != "forming":
            depth.see(update.open_time_ms)


async def _between(  # type: ignore[no-untyped-def]
    consumer: AIOKafkaConsumer, tp: TopicPartition, low: int, high: int
):
    """Records from offset ``low`` up to, not including, ``high``."""
    consumer.seek(tp, low)
    while True:
        batches = await consumer.getmany(tp, timeout_ms=100)
        for record in batches.get(tp, []):
            if record.offset >= high:
                return
            yield record
        if await consumer.position(tp) >= high:
            return
