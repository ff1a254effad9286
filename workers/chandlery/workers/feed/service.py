"""The feed as a whole: its parts put together, started, stopped in order."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aiokafka import AIOKafkaConsumer

from chandlery.core import clocks
from chandlery.core.assignment import Assignment, WorkerStatus
from chandlery.core.errors import InvariantError, LoginError, MachineError
from chandlery.core.kafka_login import problem_of
from chandlery.core.settings import FeedSettings
from chandlery.core.topics import topics_of
from chandlery.workers.control_messages import AssignmentMessage, StatusMessage
from chandlery.workers.feed import report
from chandlery.workers.feed.api import Api
from chandlery.workers.feed.assignments import AssignmentStore, Outcome
from chandlery.workers.feed.board import Receipt, SeriesBoard
from chandlery.workers.feed.catchup import CatchUp
from chandlery.workers.feed.clients import broker_watch, candle_consumer, forming_consumer, quieten_client
from chandlery.workers.feed.consumer import LiveConsumer
from chandlery.workers.feed.control import ControlServer
from chandlery.workers.feed.drain import Drain
from chandlery.workers.feed.histogram import LatencyBook
from chandlery.workers.feed.mounted import MountedAssignment
from chandlery.workers.feed.notes import Notes
from chandlery.workers.feed.pipe_traders import PipeTraders
from chandlery.workers.feed.positions import LivePositions
from chandlery.workers.feed.recall import Recall
from chandlery.workers.feed.ring_drain import RingDrain
from chandlery.workers.feed.router import Router
from chandlery.workers.feed.series_follower import SeriesFollower, first_segment
from chandlery.workers.feed.signal_lines import SignalLines
from chandlery.workers.feed.soundness import Soundness
from chandlery.workers.feed.status import VersionBoard, is_news, statuses, tell_corrupt, tell_refused, write_status
from chandlery.workers.feed.token import Token
from chandlery.workers.feed.tracing import Tracing
from chandlery.workers.ring_names import ring_file_name
from chandlery.workers.segment.placement import make_folder

if TYPE_CHECKING:
    from chandlery.workers.feed.metrics import MetricsServer

log = logging.getLogger("chandlery.feed")

HEARTBEAT_S: Final = 0.1
_TICKS_A_SECOND: Final = 10
#: A supervisor that doesn't answer a request for a fresh ring is asked again.
_ASK_AGAIN_TICKS: Final = 50
#: From SIGTERM to SIGKILL a process has 10 s: 5 for the rings, 1 for completions and traces, 2 each for two producers.
DRAIN_S: Final = 5.0
_NOTES_S: Final = 1.0


class Feed:
    """One worker's feed.

    Raises:
        MachineError: no room for the segment, or a socket can't be made (:class:`SegmentError` is one).
    """

    def __init__(self, settings: FeedSettings) -> None:
        self._settings = settings
        self._topics = topics_of(settings.kafka)
        self._rings_dir = Path(settings.rings_dir)
        # What can be wrong with the settings is found before anything is made.
        self._watch = broker_watch(settings.kafka)
        self._api = Api(self, settings.listen, Token(settings.token, settings.token_file))
        for folder in (settings.shm_dir, settings.rings_dir):
            make_folder(folder)
        self._counts: Counter[str] = Counter()
        self._versions = VersionBoard()
        lines = SignalLines()
        self._notes = Notes(settings.kafka, f"feed/{settings.worker}", self._counts, lines)
        self._router = Router(self._topics.candles_live, self._counts, self._notes.refuse)
        self._mount = MountedAssignment(settings.assignment_file, self.offer, self._counts)
        self._store = AssignmentStore(settings.worker, self._rings_dir / "assignment.json")
        self._store.restore()
        self._segment_path = str(Path(settings.shm_dir) / "segment")
        self._writer = first_segment(self._segment_path, settings, self._store.current)
        receipt = Receipt()
        self._board = SeriesBoard(
            self._writer,
            self._router,
            receipt,
            self._counts,
            most=settings.segment_series,
            grace_s=settings.series_grace_ms / 1_000,
        )
        self._soundness = Soundness(self._writer, self._board)
        self._pipes = PipeTraders(settings, self._segment_path, self._router, self._counts)
        self._closed_positions = LivePositions()
        self._forming_positions = LivePositions()
        self._forming_urgent = False

        def consumer(client: Callable[[], AIOKafkaConsumer], positions: LivePositions) -> LiveConsumer:
            return LiveConsumer(
                client,
                positions,
                self._router,
                self._board,
                receipt,
                live_topic=self._topics.candles_live,
                counts=self._counts,
                after_batch=self._pipes.changed,
            )

        self._closed = consumer(lambda: candle_consumer(settings.kafka), self._closed_positions)
        self._forming = consumer(
            lambda: forming_consumer(settings.kafka, urgent=self._forming_urgent), self._forming_positions
        )
        self._catchup = CatchUp(
            lambda: candle_consumer(settings.kafka),
            self._board,
            self._closed_positions,
            receipt,
            self._counts,
            self._notes.refuse,
            rows=settings.segment_rows,
            joined=self._joined,
            failed=self._failed,
        )
        self._series = SeriesFollower(
            settings,
            self._writer,
            self._board,
            self._closed_positions,
            self._forming_positions,
            self._forming,
            self._catchup,
            grown=self._pipes.follow_segment,
            changed=self._versions.bump,
            failed=self._failed,
            counts=self._counts,
        )
        self._tracing = Tracing(settings, receipt, self._router.clocks, lines=lines)
        self._router.tell, self._router.told_below = self._tracing.tick, self._tracing.ticks_below
        self._drain = Drain(
            settings.kafka,
            self._rings_dir,
            lambda: self._store.fences,
            self._notes,
            self._counts,
            self._ring_corrupt,
            self._tracing,
            lambda trader: self._recall.covers(trader),
        )
        self._recall = Recall(settings.kafka, self._drain.ids, self._counts, self._drain.look, self._drain.forming)
        self._control = ControlServer(
            self._rings_dir / "control.sock", self._counts, self._supervisor_says, self._versions.bump
        )
        self._metrics: MetricsServer | None = None
        self._metrics_problem = ""
        if settings.metrics_listen:
            from chandlery.workers.feed.metrics import MetricsServer  # 1 MB that nobody scraped does without

            self._metrics = MetricsServer(settings, self)
        self._supervisor = StatusMessage(0, "", {})
        self._rate = report.Rate()
        self._told: dict[str, Any] = {}
        self._problem_told: LoginError | None = None
        self._failure: asyncio.Future[None] | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def address(self) -> str:
        """Where the API listens, port 0 resolved."""
        return self._api.bound

    @property
    def metrics_address(self) -> str:
        """Where Prometheus finds the figures, port 0 resolved; empty: nowhere."""
        return self._metrics.bound if self._metrics is not None else ""

    @property
    def latency(self) -> LatencyBook:
        """Histograms of every stage."""
        return self._drain.latency

    # ---- life ----

    async def start(self) -> None:
        """Come up: everything but Kafka is there when this returns."""
        quieten_client()
        self._failure = asyncio.get_running_loop().create_future()
        try:
            await self._control.start()
            self._drain.listen()
        except OSError as error:
            raise MachineError(f"{self._rings_dir}: can't make the sockets: {error.strerror or error}") from error
        self._mount.look()
        self._follow()
        await self._api.start()
        if self._metrics is not None:
            try:
                await self._metrics.start()
            except MachineError as error:
                # Signals don't stand back behind what is told of them.
                self._metrics, self._metrics_problem = None, str(error)
                log.error("no figures for Prometheus", extra={"reason": str(error)})
        self._refresh_clock()
        self._spawn("watch", self._watch.run())
        self._spawn("notes", self._notes.run())
        self._spawn("traces", self._tracing.run())
        self._spawn("recall", self._recall.run())
        self._spawn("drain", self._drain.run())
        self._spawn("closed", self._closed.run())
        self._spawn("forming", self._forming.run())
        self._spawn("pipes", self._pipes.run())
        self._spawn("ticks", self._tick())
        log.info(
            "feed up",
            extra={"listen": self.address, "segment": self._segment_path, "sequence": self._store.sequence},
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set.

        Raises:
            ChandleryError: a part can't go on.
        """
        if self._failure is None:
            await self.start()
        assert self._failure is not None
        stopping = asyncio.create_task(stop.wait())
        ends: set[asyncio.Future[Any]] = {stopping, self._failure}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        if self._failure.done():
            self._failure.result()

    async def stop(self) -> None:
        """End in order: no more candles, rings drained, last status written, segment removed."""
        await self._cancel("closed")
        await self._cancel("forming")
        await self._catchup.stop()
        await self._series.stop()
        if self._watch.connected and "drain" in self._tasks:
            await self._drain_rings()
        await self._cancel("drain")
        async with asyncio.TaskGroup() as last:
            last.create_task(self._tracing.drain(_NOTES_S))
            if self._watch.connected and "notes" in self._tasks:
                last.create_task(self._notes.drain(_NOTES_S))
        for name in list(self._tasks):
            await self._cancel(name)
        self._tracing.end()
        if self._settings.final_status:
            write_status(Path(self._settings.final_status), self.status())
        self._versions.close()
        await self._api.stop()
        if self._metrics is not None:
            await self._metrics.stop()
        await self._control.stop()
        self._drain.close()
        self._writer.close()
        if self._failure is not None and self._failure.done() and (error := self._failure.exception()) is not None:
            # Who runs the feed has been told; of a loop that cancels everything at once nobody asks for it.
            log.debug("a part ended before the feed", extra={"reason": repr(error)})
        log.info("feed ended")

    async def _drain_rings(self) -> None:
        try:
            async with asyncio.timeout(DRAIN_S):
                while not self._drain.empty() and self._watch.connected:
                    await self._drain.settled()
        except TimeoutError:
            log.warning("rings not empty at the end", extra={"rings": len(self._drain.rings)})

    def _spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks[name] = task
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            if self._tasks.get(task.get_name()) is task:
                # Not by us. Half a feed would live on, and nobody would know.
                self._failed(InvariantError(f"{task.get_name()} was cut short"))
        elif (error := task.exception()) is not None:
            self._failed(error)

    def _failed(self, error: BaseException) -> None:
        if self._failure is not None and not self._failure.done():
            self._failure.set_exception(self._soundness.cause(error))

    async def _cancel(self, name: str) -> None:
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    # ---- assignment ----

    def offer(self, assignment: Assignment, source: str) -> Outcome:
        """Take an assignment in, from the API (``push``) or the mounted file (``mount``)."""
        outcome = self._store.offer(assignment)
        level = logging.INFO if outcome.verdict == "taken" else logging.DEBUG
        if outcome.verdict in ("invalid", "conflict"):
            level = logging.WARNING
        facts = {"sequence": assignment.sequence, "source": source, "outcome": outcome.verdict}
        log.log(level, "assignment", extra={**facts, "reason": outcome.message} if outcome.message else facts)
        if outcome.verdict == "taken":
            self._follow()
        return outcome

    def taken(self) -> dict[str, object]:
        """The API's answer to an assignment."""
        return {
            "received_sequence": self._store.sequence,
            "sequence": self._supervisor.sequence,
            "hash": self._supervisor.hash,
        }

    def _follow(self) -> None:
        """Make everything what the assignment says."""
        current = self._store.current
        if current is None:
            return
        self._recall.follow(current.traders)
        self._pipes.follow(current.traders)
        rung = {key: bell for key, bell in self._store.bells.items() if key not in self._pipes.keys}
        self._series.follow(current.traders, rung)
        urgent = any(trader.trigger == "EveryUpdate" and trader.mode != "suspended" for trader in current.traders)
        if urgent != self._forming_urgent:
            self._forming_urgent = urgent
            self._forming.renew()
        self._control.assign(AssignmentMessage(current, self._store.bells, self._segment_path))
        self._versions.bump()

    # ---- events ----

    def _joined(self) -> None:
        self._board.ring()
        self._pipes.changed()
        self._versions.touch()

    def _supervisor_says(self, message: StatusMessage) -> None:
        before = self._supervisor
        self._supervisor = message
        news = (
            (before.sequence, before.hash) != (message.sequence, message.hash)
            or before.catalogue != message.catalogue
            or is_news(before.traders, message.traders)
            or is_news(before.successors, message.successors)
        )
        if (message.sequence, message.hash) == (self._store.sequence, self._store.hash):
            fences = self._store.fences
            self._drain.bind({key: fence.until_ms for key, fence in fences.items() if fence.until_ms is not None})
        if news:
            self._versions.bump()
        else:
            self._versions.touch()

    def _ring_corrupt(self, key: str) -> None:
        self._control.replace_ring(key)
        self._versions.bump()

    def _refresh_clock(self) -> None:
        self._router.clocks.wall_offset = self._catchup.wall_offset = clocks.wall_offset_ns()

    async def _tick(self) -> None:
        ticks = 0
        while True:
            self._soundness.look()
            self._writer.heartbeat()
            ticks += 1
            if ticks % (_TICKS_A_SECOND // 2) == 0:
                self._mount.look()
            if ticks % _TICKS_A_SECOND == 0:
                self._each_second()
            if ticks % _ASK_AGAIN_TICKS == 0:
                for key, drain in self._drain.rings.items():
                    if drain.corrupt:
                        self._control.replace_ring(key)
            await asyncio.sleep(HEARTBEAT_S)

    def _each_second(self) -> None:
        self._refresh_clock()
        self._closed.each_second()
        self._forming.each_second()
        self._series.each_second()
        self._soundness.look_inside()
        self._rate.measure(self._closed.records + self._forming.records, asyncio.get_running_loop().time())
        for key in list(self._store.draining):
            ring = self._rings_dir / ring_file_name(key)
            if not ring.exists() and not self._drain.holds(key):
                self._store.forget(key)
        if self._watch.problem is not self._problem_told:
            self._problem_told = self._watch.problem
            self._versions.bump()
        told = report.summary(self._feed_report())
        if told != self._told:
            self._told = told
            self._versions.touch()
        self._versions.tick()

    # ---- what is told ----

    async def wait_newer(self, than: int, timeout_s: float) -> None:
        """Wait for a status newer than a version."""
        await self._versions.wait_newer(than, timeout_s)

    def status(self) -> WorkerStatus:
        """The worker's status of now."""
        traders, successors = statuses(self._store.current, self._supervisor, connected=self._control.connected)
        for key, drain in self._drain.rings.items():
            if drain.corrupt:
                tell_corrupt(key, drain.corrupt, traders, successors)
        tell_refused(self._store.current, self._board.refused, traders, successors)
        return WorkerStatus(
            worker=self._settings.worker,
            version=self._versions.version,
            sequence=self._supervisor.sequence,
            hash=self._supervisor.hash,
            received_sequence=self._store.sequence,
            supervisor_connected=self._control.connected,
            traders=traders,
            successors=successors,
            catalogue=self._supervisor.catalogue,
            feed=self._feed_report(),
        )

    def _feed_report(self) -> dict[str, Any]:
        tally = self._drain.tally
        return {
            "transport": self._settings.transport,
            "broker_connected": self._watch.connected,
            "broker_problem": problem_of(self._watch.problem),
            "metrics_problem": self._metrics_problem,
            "reconnects": self._watch.reconnects,
            **self._series.figures(),
            "records": self._closed.records + self._forming.records,
            "records_per_s": round(self._rate.per_s, 1),
            "lag": self._closed.behind() + self._forming.behind(),
            "behind_ms": max(self._closed.behind_ms(), self._forming.behind_ms()),
            "candles": report.candle_report(self._counts),
            "gaps": self._counts["gaps"],
            "held": self._counts["held"],
            "drops": report.drop_report(self._counts, self._notes.dead_letters, tally.dropped),
            "dead_letters": self._notes.dead_letters,
            "events": report.event_report(self._counts),
            "signals": {
                "emitted": tally.emitted,
                "published": tally.published,
                "unique": tally.unique,
                "dropped": dict(tally.dropped),
            },
            "lives": self._drain.lives(),
            "rings": {name: drain.gauges() for name, drain in self._shown_rings().items()},
            "latency": self._drain.latency.summary(),
            "traces": self._tracing.report(),
            "worker_pss_bytes": self._supervisor.pss_bytes if self._control.connected else {},
        }

    def segment_info(self) -> dict[str, Any]:
        """What ``chandlery debug segment`` shows: header, series, bells and who they are for."""
        bells = self._store.bells
        shown = self._store.shown(bells)
        readers = {name: bells[key] for key, name in shown.items()}
        piped = sorted(name for key, name in shown.items() if key in self._pipes.keys)
        series = {"room": self._series.room(), "absent": self._series.absent()}
        told = {"traders": readers, "piped": piped, **series}
        return {"path": self._segment_path, **self._writer.info(), **told}

    def rings_info(self) -> dict[str, Any]:
        """What ``chandlery debug signals`` shows: by Trader, a second incarnation by its key."""
        return {name: drain.info() for name, drain in self._shown_rings().items()}

    def _shown_rings(self) -> dict[str, RingDrain]:
        rings = self._drain.rings
        return {name: rings[key] for key, name in self._store.shown(rings).items()}

    def latency_info(self) -> dict[str, Any]:
        """Percentiles of every stage."""
        return self._drain.latency.summary()

    def signals(self, limit: int) -> list[dict[str, Any]]:
        """The newest acknowledged signals, newest first, each with its completion, its account, and the word on its life."""
        return report.signal_report(self._drain.newest.newest(limit))

    def healthy(self) -> str:
        """What the startup probe waits for and is missing; never Kafka."""
        missing = [
            name
            for name, path in (("segment", self._segment_path), ("control socket", self._rings_dir / "control.sock"))
            if not os.path.exists(path)
        ]
        return f"missing: {', '.join(missing)}" if missing else ""
