"""A worker's two processes, feed and supervisor, and the assignment that is kept delivered to it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from chandlery.cli.endpoint import Endpoint
from chandlery.cli.runtime.children import Child
from chandlery.cli.runtime.counting import WorkerEvidence
from chandlery.cli.runtime.delivery import FileDelivery
from chandlery.cli.runtime.options import UpOptions
from chandlery.cli.runtime.polling import WorkerWatch, until_answers
from chandlery.cli.runtime.ring_counts import RingCounts
from chandlery.cli.runtime.settings import feed_of, label_of, supervisor_of
from chandlery.cli.runtime.statedir import StateDir, write_atomically
from chandlery.cli.runtime.trader_restarts import TraderRestarts
from chandlery.core.assignment import Assignment, decode_assignment, decode_status
from chandlery.core.errors import MachineError, UnavailableError
from chandlery.core.manifests import Key, ManifestSet
from chandlery.core.resources import TraderPool
from chandlery.core.settings import FeedSettings, KafkaSettings, SupervisorSettings
from chandlery.operator.planner import WorkerNow, worker_name
from chandlery.operator.planner_standing import news_of

log = logging.getLogger("chandlery.up")

# The segment is made and the socket open within 1 s, Kafka or not; thirty times that on a busy machine.
START_TIMEOUT_S: Final = 30.0
# The feed waits for acknowledgements of what it sent: a broker restart is 4 s; then 5 s to end.
FEED_STOP_S: Final = 12.0
# Traders get 5 s to end their call, then SIGKILL; the supervisor itself 3 s.
SUPERVISOR_STOP_S: Final = 10.0


class WorkerGroup:
    """One worker.

    Attributes:
        pool: key of its pool. name: as the planner calls it. label: of its processes and files.
    """

    def __init__(
        self,
        pool: TraderPool,
        name: str,
        kafka: KafkaSettings,
        shm: Path,
        *,
        options: UpOptions,
        state: StateDir,
        variables: dict[str, str],
        on_change: Callable[[Child], None],
        on_status: Callable[[bool], None],
    ) -> None:
        self.pool = pool
        self.name = name
        self.label = label_of(pool.namespace, name)
        self.kafka = kafka
        self._shm = shm
        self._options = options
        self._state = state
        self.endpoint = Endpoint(state.socket(f"feed-{self.label}"))
        self.watch = WorkerWatch(self.endpoint, self._status_came)
        self.delivery = FileDelivery(name, state.assignment(self.label), self.endpoint)
        self.feed = self._child("feed", "chandlery.workers.feed", variables, on_change)
        self.supervisor = self._child("supervisor", "chandlery.workers.supervisor", variables, on_change)
        self._on_status = on_status
        self._news: object = None
        self._tasks: list[asyncio.Task[None]] = []
        self._answered = asyncio.Event()
        self._ready = self._was_ready = False
        self._since_ms = now_ms()
        self._rings = RingCounts(state.rings(self.label))
        self._restarts = TraderRestarts()

    # Start --------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start both processes and wait until the feed answers.

        Raises:
            ChandleryError: one ended at its start, or the feed doesn't answer.
        """
        self._state.rings(self.label).mkdir(parents=True, exist_ok=True)
        folder = self._shm / self.label
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MachineError(
                f"{folder}: can't make the segment's folder: {error.strerror}; "
                f"{folder.parents[1]} must be a tmpfs that this user may write: see chandlery doctor"
            ) from error
        self._rings.begin()
        self._final.unlink(missing_ok=True)
        feed = feed_of(self.name, self.label, self.pool, self.kafka, self._shm, self._options, self._state)
        supervisor = supervisor_of(self.name, self.label, self.pool, self._shm, self._options, self._state)
        self._write(self.feed.name, feed)
        self._write(self.supervisor.name, supervisor)
        await asyncio.gather(self.feed.start(), self.supervisor.start())
        for run, what in ((self.watch.run, "watch"), (self._deliver, "deliver to")):
            self._tasks.append(asyncio.create_task(run(), name=f"{what} {self.label}"))
        await until_answers(self.feed, self.watch.refresh, START_TIMEOUT_S)

    @property
    def is_ready(self) -> bool:
        """Whether its feed answers and its supervisor is there."""
        status = self.watch.status
        return status is not None and status.supervisor_connected and self.feed.pid > 0

    def now(self) -> WorkerNow:
        """The worker as the planner sees it."""
        ready = self.is_ready
        if ready != self._ready:
            self._ready, self._since_ms = ready, now_ms()
            self._was_ready = self._was_ready or ready
        return WorkerNow(self.delivery.assignment, ready, self._since_ms, self._was_ready, self.watch.status)

    def want(self, assignment: Assignment) -> None:
        """Keep this assignment delivered from now on."""
        self._rings.want([trader.key for trader in assignment.traders])
        self.delivery.want(assignment)

    # Stop ---------------------------------------------------------------------------------------------------

    async def stop_supervisor(self) -> bool:
        """End the supervisor and its traders; returns whether in order."""
        return await self.supervisor.stop(SUPERVISOR_STOP_S)

    async def stop_feed(self) -> bool:
        """End the feed; returns whether in order."""
        await self._end_tasks()
        in_order = await self.feed.stop(FEED_STOP_S)
        shutil.rmtree(self._shm / self.label, ignore_errors=True)
        return in_order

    async def close(self) -> None:
        """Let go of watches and connections."""
        await self._end_tasks()
        self._rings.close()
        await self.endpoint.close()
        if self._options.metrics is not None:
            self._options.metrics.forget(self.feed.name)

    # Counts -------------------------------------------------------------------------------------------------

    def ring_counts(self) -> dict[str, Counter[str]]:
        """Counters and depth of each incarnation's ring, read from the ring itself: fresher than any status."""
        return self._rings.now()

    @property
    def market(self) -> Key:
        """Key of the MarketFeed whose candles it has."""
        return self.pool.spec.feed.key(self.pool.namespace)

    def feed_counts(self) -> dict[str, Any]:
        """The ``feed`` part of the newest status."""
        return self.watch.status.feed if self.watch.status is not None else {}

    def evidence(self) -> WorkerEvidence:
        """What the worker says of its run: while its feed runs the newest status, after its end its last words."""
        status, whole = self.watch.status, self.feed.restarts == 0
        if self.feed.state == "ended":
            try:
                status = decode_status(self._final.read_bytes())
            except (OSError, msgspec.DecodeError):
                whole = False  # killed: what it knew is lost
        if status is not None:
            self._restarts.note(status)
        return WorkerEvidence(status.feed if status else {}, whole, self._restarts.by_trader, self._rings.grown())

    @property
    def _final(self) -> Path:
        return self._state.final(self.feed.name)

    # Inside -------------------------------------------------------------------------------------------------

    async def _deliver(self) -> None:
        """Keep the assignment delivered from the feed's first answer on.

        Before it there is nobody to deliver to, which is nothing to warn of: both start together. One that has said nothing
        for as long as a start may take is delivered to all the same, so that the log tells why each attempt fails.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_TIMEOUT_S):
                await self._answered.wait()
        await self.delivery.run()

    def _status_came(self) -> None:
        self._answered.set()
        self._rings.look()
        status = self.watch.status
        if status is not None:
            self._restarts.note(status)
        if status is not None and status.received_sequence < self.delivery.assignment.sequence:
            self.delivery.nudge()
        news = news_of(status) if status is not None else None
        has_news, self._news = news != self._news, news
        self._on_status(has_news)

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    def _child(self, role: str, module: str, variables: dict[str, str], on_change: Callable[[Child], None]) -> Child:
        name = f"{role}-{self.label}"
        command = [sys.executable, "-m", module, "--config", str(self._state.settings(name))]
        return Child(name, command, self._state.log(name), variables, on_change)

    def _write(self, name: str, settings: FeedSettings | SupervisorSettings) -> None:
        write_atomically(self._state.settings(name), msgspec.json.encode(settings))


def now_ms() -> int:
    """Monotonic, ms: the clock of the planner's delays."""
    return time.monotonic_ns() // 1_000_000


def wall_ms() -> int:
    """Wall clock, ms: since when candles are a new Trader's to decide."""
    return time.time_ns() // 1_000_000


async def refreshed(group: WorkerGroup) -> None:
    """Bring a worker's status up to date, if it answers."""
    with contextlib.suppress(UnavailableError):
        await group.watch.refresh()


def left_workers(state: StateDir, manifests: ManifestSet) -> dict[Key, dict[str, WorkerNow]]:
    """Workers of the run before, by the assignments they left: their traders go on as the same incarnation.

    Another incarnation would be fenced off from the signals that still stand in its ring.
    """
    found: dict[Key, dict[str, WorkerNow]] = {}
    for key, pool in manifests.pools.items():
        for number in range(pool.spec.workers.max):
            name = worker_name(pool.name, number)
            try:
                assignment = decode_assignment(state.assignment(label_of(pool.namespace, name)).read_bytes())
            except (OSError, msgspec.DecodeError):
                continue  # never there; or unreadable, which the delivery tells
            if assignment.traders:
                found.setdefault(key, {})[name] = WorkerNow(assignment, False, now_ms())
    return found
