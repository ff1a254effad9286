"""The aggregator's process: its parts, their start, and their end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from aiokafka.conn import create_conn

from chandlery.core.behind import Behind
from chandlery.core.broker_watch import BrokerWatch
from chandlery.core.clocks import HEADER_NAME, HostClocks, Stamps, now_ns, wall_offset_ns
from chandlery.core.errors import LoginError, UnavailableError
from chandlery.core.histogram import Histogram
from chandlery.core.kafka_login import problem_of
from chandlery.core.settings import AggregatorSettings
from chandlery.core.topics import Topics, partition_of, topics_of
from chandlery.stream.aggregation import AggregationPlan
from chandlery.stream.aggregator.changelog import ensure_changelog
from chandlery.stream.aggregator.checkpoints import Checkpoints
from chandlery.stream.aggregator.faust_app import FaustSide, Record
from chandlery.stream.aggregator.instance import Instance
from chandlery.stream.aggregator.outputs import Outputs
from chandlery.stream.aggregator.partition import Outgoing, PartitionState
from chandlery.stream.aggregator.position import SeekPatience, Verdict, judge, next_existing_offset
from chandlery.stream.aggregator.status import RateMeter, Status, all_symbols, partition_status, totals_of
from chandlery.stream.aggregator.watchdog import Watchdog
from chandlery.stream.aggregator.web import StatusServer
from chandlery.stream.final_status import write_final_status
from chandlery.stream.metrics_server import MetricsServer
from chandlery.stream.topics import ensure_topics

if TYPE_CHECKING:
    from prometheus_client import Metric

    from chandlery.core.telemetry.exposition import Labelled

log = logging.getLogger("chandlery.aggregator")

# Clocks drift apart by less than 0.1 ms a second.
_CLOCK_PERIOD_S: Final = 1.0
# Of the 10 s that a stopping process is usually granted: 4 for the last checkpoint, 4 to leave.
_LAST_CHECKPOINT_S: Final = 4.0
_LEAVE_S: Final = 4.0
# The broker logs each login that it refuses, and a Secret is mended by a person.
_LOGIN_RETRY_S: Final = 1.0


class Aggregator:
    """Applies the records of its partitions, appends what comes out, and saves its states."""

    def __init__(self, settings: AggregatorSettings) -> None:
        """Build the parts; nothing is connected.

        Raises:
            InputError: a setting is wrong.
            MachineError: ``data_dir`` can't be used.
        """
        self._settings = settings
        self._plan = AggregationPlan(
            settings.intervals,
            lateness_ms=settings.allowed_lateness_ms,
            max_fill_candles=settings.max_fill_candles,
        )
        self._topics: Topics = topics_of(settings.kafka)
        self._instance = Instance(settings.data_dir)
        self._outputs = Outputs.to(settings.kafka)
        self._watch = BrokerWatch(settings.kafka, create_conn)
        self._faust = FaustSide(
            settings,
            self._instance.name,
            on_record=self._on_record,
            on_revoked=self._on_revoked,
            on_recovered=self._on_recovered,
        )
        self._applying = asyncio.Lock()
        self._checkpoints = Checkpoints(self._outputs, self._faust.changelog, self._applying, self._faust.commit)
        self._web = StatusServer(settings.status_listen, self.status, self._families)
        self._metrics = MetricsServer(settings.metrics_listen, self._families)
        self._labelled: Labelled | None = None
        #: From a trade's receipt to its candle's being computed.
        self._aggregating = Histogram()
        self._partitions: dict[int, PartitionState] = {}
        self._behind: defaultdict[int, Behind] = defaultdict(Behind)
        self._ready = False
        self._problem: LoginError | None = None
        self._draining = False
        self._patience = SeekPatience()
        self._seeking: asyncio.Task[None] | None = None
        self._failure: asyncio.Future[None] | None = None
        self._rate = RateMeter()
        self._clocks = HostClocks()
        self._records = 0
        self._offset_gaps = 0
        self._healed = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Run until ``stop`` is set or something fails.

        Raises:
            ChandleryError: what failed; the last checkpoint stands, a restart goes on from there.
        """
        loop = asyncio.get_running_loop()
        self._failure = loop.create_future()
        await self._web.start()
        try:
            await self._metrics.start()
            try:
                if await self._started(stop):
                    await self._run_until(stop)
            finally:
                await self._end()
        finally:
            await self._metrics.stop()
            await self._web.stop()
        log.info("stopped", extra={"records": self._records, "checkpoints": self._checkpoints.taken})

    def status(self) -> Status:
        """The status now."""
        symbols = all_symbols(self._partitions)
        partitions = {
            number: partition_status(state, self._checkpoints.committed.get(number, 0), self._faust.end_offset(number))
            for number, state in sorted(self._partitions.items())
        }
        return Status(
            ready=self._ready,
            kafka_problem=problem_of(self._problem or self._watch.problem),
            instance=self._instance.name,
            intervals=[step.interval.text for step in self._plan.steps],
            symbols=symbols,
            totals=totals_of(symbols),
            partitions=partitions,
            lag=self._lag(),
            behind_ms=self._behind_ms(),
            records=self._records,
            records_per_s=round(self._rate.sample(self._records), 1),
            outputs=self._outputs.appended,
            checkpoints=self._checkpoints.taken,
            dead_letters=sum(state.dead_letters for state in self._partitions.values()),
            offset_gaps=self._offset_gaps,
            healed=self._healed,
            reconnects=self._watch.reconnects,
        )

    # --- its life -----------------------------------------------------------------------------------------

    async def _started(self, stop: asyncio.Event) -> bool:
        """Start, unless asked to stop first: Kafka may be long in coming."""
        starting = asyncio.create_task(self._start())
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                return False
            await starting
        finally:
            for task in (starting, stopping):
                task.cancel()
            await asyncio.gather(starting, stopping, return_exceptions=True)
        return True

    async def _start(self) -> None:
        await self._enter()
        await ensure_changelog(self._settings.kafka)
        await self._outputs.start()
        await self._faust.app.start()
        log.info("started", extra={"instance": self._instance.name, "intervals": self._settings.intervals})

    async def _enter(self) -> None:
        """Make the topics. A login that is refused is tried again here: a restart wouldn't mend it any sooner."""
        while True:
            try:
                await ensure_topics(self._settings.kafka)
            except LoginError as error:
                if str(error) != str(self._problem):
                    log.error("can't enter Kafka", extra={"reason": error.reason, "problem": str(error)})
                self._problem = error
                await asyncio.sleep(_LOGIN_RETRY_S)
            else:
                self._problem = None
                return

    async def _run_until(self, stop: asyncio.Event) -> None:
        """Raise what ends the process, or return when asked to stop."""
        assert self._failure is not None
        app = self._faust.app
        tasks: list[asyncio.Task[Any]] = [
            asyncio.create_task(stop.wait(), name="stop"),
            asyncio.create_task(self._outputs.failed.wait(), name="outputs"),
            asyncio.create_task(app.wait_until_stopped(), name="faust"),
            asyncio.create_task(self._checkpoint_forever(), name="checkpoints"),
            asyncio.create_task(self._each_second(), name="seconds"),
            asyncio.create_task(self._watch.run(there=True), name="broker"),
        ]
        try:
            await asyncio.wait([*tasks, self._failure], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                if not task.done():
                    task.cancel()
        if self._failure.done():
            self._failure.result()
        for task in tasks:
            if task.done() and not task.cancelled() and task.get_name() in ("checkpoints", "seconds", "broker"):
                task.result()
        self._outputs.check()
        if not stop.is_set():
            raise UnavailableError(f"the consumer ended: {app.crash_reason!r}") from app.crash_reason

    async def _end(self) -> None:
        """The last checkpoint, then out of the group; after a failure the last one stands as it is."""
        self._draining = True
        healthy = not self._outputs.failed.is_set() and self._failure is not None and not self._failure.done()
        try:
            if healthy and self._partitions:
                async with asyncio.timeout(_LAST_CHECKPOINT_S):
                    await self._checkpoints.take(self._partitions)
        except (UnavailableError, TimeoutError) as error:
            log.warning("no last checkpoint: the next start goes on from the one before", extra={"error": repr(error)})
        write_final_status(self._settings.final_status, self.status)
        self._ready = False
        if self._faust.app.started:
            self._faust.leave_group()
        try:
            async with asyncio.timeout(_LEAVE_S):
                await self._faust.app.stop()
                await self._outputs.stop(_LEAVE_S)
        except TimeoutError:
            log.warning("Kafka didn't let go in time; the group notices by its session timeout")

    def _fail(self, error: BaseException) -> None:
        if self._failure is not None and not self._failure.done():
            self._failure.set_exception(error)

    def _families(self) -> Iterable[Metric]:
        # Prometheus' client is only imported where somebody asks.
        from chandlery.core.telemetry.exposition import Labelled
        from chandlery.stream.aggregator.metrics import MOST_SYMBOLS, families

        if self._labelled is None:
            self._labelled = Labelled(MOST_SYMBOLS)
        return families(self.status(), self._aggregating, self._labelled)

    async def _checkpoint_forever(self) -> None:
        period_s = self._settings.checkpoint_ms / 1000
        while True:
            await asyncio.sleep(period_s)
            self._rate.sample(self._records)
            if self._ready:
                await self._checkpoints.take(self._partitions)

    async def _each_second(self) -> None:
        """Follow the wall clock, and end an aggregator that does nothing."""
        watchdog = Watchdog(time.monotonic())
        while True:
            await asyncio.sleep(_CLOCK_PERIOD_S)
            self._clocks.wall_offset = wall_offset_ns()
            self._look_behind()
            wrong = watchdog.look(time.monotonic(), ready=self._ready, records=self._records, lag=self._lag())
            if wrong:
                raise UnavailableError(wrong)

    # --- partitions ---------------------------------------------------------------------------------------

    async def _on_revoked(self) -> None:
        """Save what is done before another worker takes it up."""
        partitions, self._partitions = self._partitions, {}
        self._behind.clear()
        self._ready = False
        if self._seeking is not None:
            self._seeking.cancel()
        try:
            await self._checkpoints.take(partitions, commit=False)
        except UnavailableError as error:
            self._fail(error)

    def _on_recovered(self) -> None:
        """Take up the saved states of the partitions now assigned, then seek to where they end."""
        try:
            saved = self._faust.recovered_states()
            self._partitions = {
                number: PartitionState.restore(number, self._plan, self._topics, saved)
                for number in self._faust.assigned_partitions()
            }
        except Exception as error:  # noqa: BLE001 - Faust would log it and go on without the states
            self._fail(error)
            return
        for state in self._partitions.values():
            self._checkpoints.committed[state.partition] = state.next_offset
            if state.healed:
                self._healed += 1
                log.warning(
                    "a saved state is older than its manifest: applying again from there",
                    extra={"partition": state.partition, "state": state.healed, "offset": state.next_offset},
                )
        log.info("partitions taken up", extra={str(state.partition): state.next_offset for state in self._all()})
        self._seeking = asyncio.get_running_loop().create_task(self._seek_all(self._partitions))

    async def _seek_all(self, partitions: Mapping[int, PartitionState]) -> None:
        try:
            for state in partitions.values():
                self._patience.sought(state.partition, time.monotonic())
                await self._faust.seek(state.partition, state.next_offset)
            # The client may take a cancellation for one of its own: then these are another's by now.
            if partitions is self._partitions:
                self._ready = True
        except Exception as error:  # noqa: BLE001 - without the seek nothing would come, and nobody would know
            self._fail(error)

    def _lag(self) -> int:
        """Records known to wait."""
        return sum(self._waiting(state) for state in self._partitions.values())

    def _waiting(self, state: PartitionState) -> int:
        end = self._faust.end_offset(state.partition)
        return max(0, end - state.next_offset) if end is not None else 0

    def _look_behind(self) -> None:
        now_ms = time.time_ns() // 1_000_000
        for state in self._partitions.values():
            self._behind[state.partition].look(now_ms, waits=self._waiting(state) > 0)

    def _behind_ms(self) -> int:
        """For how long the oldest record that waits has waited."""
        now_ms = time.time_ns() // 1_000_000
        ages = (
            self._behind[state.partition].ms(now_ms, waits=self._waiting(state) > 0)
            for state in self._partitions.values()
        )
        return max(ages, default=0)

    def _all(self) -> list[PartitionState]:
        return [state for _, state in sorted(self._partitions.items())]

    # --- records ------------------------------------------------------------------------------------------

    async def _on_record(self, record: Record) -> None:
        try:
            state = self._partitions.get(record.partition)
            if state is None or self._draining:
                # Not taken up yet, or no longer: it comes again, to us after the seek or to another worker.
                return
            if record.offset != state.next_offset and not await self._is_next(record, state):
                return
            await self._apply(record, state)
        except Exception as error:  # noqa: BLE001 - Faust would log it and go on with the next record
            self._fail(error)
            self._draining = True

    async def _is_next(self, record: Record, state: PartitionState) -> bool:
        """What to do with a record that isn't the next one; True when nothing is between after all."""
        if judge(record.offset, state.next_offset) is Verdict.REPEATED:
            return False
        if self._patience.waiting(record.partition, time.monotonic()):
            return False
        exists = await next_existing_offset(
            self._settings.kafka, self._topics.trades, record.partition, state.next_offset
        )
        if self._partitions.get(record.partition) is not state:
            return False
        if exists > state.next_offset:
            self._offset_gaps += 1
            log.warning(
                "records are gone that were never applied: retention is shorter than the aggregator was away",
                extra={"partition": record.partition, "from": state.next_offset, "to": exists},
            )
            state.skip_to(exists)
        if exists == record.offset:
            return True
        self._patience.sought(record.partition, time.monotonic())
        await self._faust.seek(record.partition, exists)
        return False

    async def _apply(self, record: Record, state: PartitionState) -> None:
        async with self._applying:
            if self._partitions.get(record.partition) is not state or record.offset != state.next_offset:
                return
            self._patience.arrived(record.partition)
            outgoing = state.take(record.offset, record.key, record.value)
            self._records += 1
            self._behind[record.partition].took(round(record.timestamp * 1000), time.time_ns() // 1_000_000)
            if outgoing:
                await self._append(record, outgoing)

    async def _append(self, record: Record, outgoing: list[Outgoing]) -> None:
        offset_ns = self._clocks.wall_offset
        stamps = _stamps_of(record, self._clocks)
        stamps.aggregated_ns = now_ns()
        if stamps.received_ns:
            self._aggregating.record((stamps.aggregated_ns - stamps.received_ns) / 1_000)
        for each in outgoing:
            if not each.is_candles:
                number = record.partition
                if each.topic == self._topics.dead_letters:
                    number = partition_of(each.key.decode(), self._settings.kafka.partitions)
                await self._outputs.append(each.topic, number, each.key, each.value)
                continue
            stamps.emitted_ns = now_ns()
            header = (HEADER_NAME, stamps.pack(offset_ns))
            await self._outputs.append(each.topic, record.partition, each.key, each.value, [header])


def _stamps_of(record: Record, clocks: HostClocks) -> Stamps:
    """The record's stamps, with the broker's append time."""
    headers: Mapping[str, bytes] = record.headers if isinstance(record.headers, Mapping) else dict(record.headers or ())
    stamps = clocks.unpack(headers.get(HEADER_NAME))
    stamps.appended_ns = round(record.timestamp * 1000) * 1_000_000
    return stamps
