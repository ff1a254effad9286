"""The local instance: the planner's plan kept running as processes of this machine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

import msgspec

from chandlery.cli.runtime.api import InstanceApi, Written, Wrong
from chandlery.cli.runtime.broker import Broker
from chandlery.cli.runtime.catalogue import Catalogue
from chandlery.cli.runtime.checking import Checking
from chandlery.cli.runtime.children import Child
from chandlery.cli.runtime.console_process import ConsoleProcess
from chandlery.cli.runtime.counting import WorkerEvidence
from chandlery.cli.runtime.cutting import cut
from chandlery.cli.runtime.desired import Wanted, check_again, read_again, waiting_changes
from chandlery.cli.runtime.feedgroup import FeedGroup
from chandlery.cli.runtime.feedstarts import FeedStarts
from chandlery.cli.runtime.folder import Folder, scan
from chandlery.cli.runtime.history import HistoryShare, history_left
from chandlery.cli.runtime.options import UpOptions
from chandlery.cli.runtime.readiness import Readiness
from chandlery.cli.runtime.reaping import Reaper
from chandlery.cli.runtime.say import Say
from chandlery.cli.runtime.settings import kafka_of
from chandlery.cli.runtime.statedir import RUN_VARIABLE, RunRecord, StateDir, write_atomically
from chandlery.cli.runtime.strategies import Strategies
from chandlery.cli.runtime.uplog import log_to
from chandlery.cli.runtime.version import own_version
from chandlery.cli.runtime.watch import changes
from chandlery.cli.runtime.workergroup import WorkerGroup, left_workers, now_ms, refreshed, wall_ms
from chandlery.console.model import View
from chandlery.core.errors import ChandleryError, MachineError
from chandlery.core.manifests import Key
from chandlery.core.resources import MarketFeed
from chandlery.core.settings import KafkaSettings
from chandlery.operator.planner import Current, Memory, Plan, WorkerNow, desired_of, plan
from chandlery.stream.topics import end_offsets, ensure_topics
from chandlery.workers.supervisor.catalogue_reader import Fingerprint

log = logging.getLogger("chandlery.up")

# A predecessor that was killed: its processes had SIGTERM from the kernel and end by themselves, the longest
# within the reaper's 16 s, which kills what is left; 4 s more for that.
_PREDECESSOR_TIMEOUT_S: Final = 20.0
# Forkserver, numpy and TA-Lib take 1-3 s, a process per Trader 0.05 s; beyond 20 s the market starts without.
_READY_TIMEOUT_S: Final = 20.0
# What can fail a plan is a full disk: no need to hurry, nor to fill the log.
_PLAN_AGAIN_S: Final = 2.0
#: Tasks that end by themselves; the others go on for as long as the run, or not at all.
_PASSING: Final = ("start", "end worker")


class LocalRuntime:
    """Everything that one ``chandlery up`` runs.

    Attributes:
        feeds, workers: running groups, by key of the feed, by key of the pool and name of the worker.
        wanted, plan: of now. notices: what a person should know now.
        console: REST API and console; None: not asked for. strategies: what is known of them.
        feed_starts: feeds that did not start, and when they are tried again.
        signals_from: end offsets of each feed's signals topic when the run began.
    """

    def __init__(
        self, options: UpOptions, wanted: Wanted, catalogue: Catalogue, say: Say, *, seen: Fingerprint | None = None
    ) -> None:
        """Describe a run. catalogue, seen: the strategies there are, and their folder before these were read."""
        self.options = options
        self.wanted = wanted
        self.state = StateDir(options.state)
        self.run = ""
        self.session = time.time_ns() // 1_000_000
        self.phase = "starting"
        self.feeds: dict[Key, FeedGroup] = {}
        self.feed_starts = FeedStarts()
        self.workers: dict[tuple[Key, str], WorkerGroup] = {}
        self.ended_workers: list[WorkerEvidence] = []
        self._endings: set[asyncio.Task[None]] = set()
        self.broker = Broker(options, self.state)
        self.console = ConsoleProcess(options, options.console, self.state) if options.console is not None else None
        self.plan: Plan | None = None
        self.readiness = Readiness()
        self.signals_from: dict[Key, dict[int, int]] = {}
        self.strategies = Strategies(options.strategies, catalogue, seen)
        self._checking = Checking(self.strategies, self._want, self._spawn)
        self._say = say
        self._folder = Folder(tuple(path for path in options.manifests if path != "-"))
        self._problem_notices: list[str] = []
        self._ended_notices: list[str] = []
        self._plan_notices: list[str] = []
        self._memory = Memory()
        self._remembered = b""
        self._replan = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._starting: asyncio.Task[Any] | None = None
        self._api: InstanceApi | None = None
        self._reaper = Reaper()
        self._feed_turns: defaultdict[Key, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._worker_turns: defaultdict[Path, asyncio.Lock] = defaultdict(asyncio.Lock)

    # Start --------------------------------------------------------------------------------------------------

    async def start(self, view: Callable[[], View], written: Written, wrong: Wrong) -> None:
        """Start everything; returns when all desired traders are Ready, or the time for that is over.

        Args:
            view, written, wrong: what the instance's socket answers.

        Raises:
            ChandleryError: it can't start; what was started must be ended by :meth:`abort`.
        """
        self._starting = asyncio.current_task()
        try:
            await self._start(view, written, wrong)
        finally:
            self._starting = None

    async def _start(self, view: Callable[[], View], written: Written, wrong: Wrong) -> None:
        await self._take_state()
        if self.console is not None:
            self.console.choose()
        self._api = InstanceApi(self.state.socket("up"), view, written, wrong)
        await self._api.start()
        self.state.write_run(
            RunRecord(os.getpid(), self.run, own_version(), self.session, str(self.state.socket("up")))
        )
        self._read_memory()
        # The folder's first look before the plan: what changes from here on is seen as a change.
        self._folder.advance(scan(self._folder.roots), time.monotonic())
        await self.broker.start(self._say)
        self._say("starting feeds and workers")
        await self._apply(await self._next_plan(), wait=True)
        await self._wait_ready()
        for group in self.feeds.values():
            await group.go()
        self.phase = "running"
        self._spawn(self._follow_manifests(), "follow manifests")
        self._spawn(self.strategies.follow(self._strategies_changed), "follow strategies")
        self._spawn(self._keep_planning(), "plan")
        self._spawn(self.broker.keep(), "keep broker")
        if self.console is not None:
            await self.console.start()

    async def _take_state(self) -> None:
        self.state.acquire()
        log_to(self.state.log("up"), self.options.log_level)
        self.run = self.state.new_run()
        deadline = time.monotonic() + _PREDECESSOR_TIMEOUT_S
        while left := self.state.leftovers():
            if time.monotonic() > deadline:
                raise MachineError(
                    f"processes of an earlier run over {self.state.root} don't end: kill {' '.join(map(str, left))}"
                )
            self._say(f"waiting for {len(left)} process(es) of an earlier run to end")
            await asyncio.sleep(0.1)
        for line in self.state.sweep():
            self._say(f"removed {line}")
        # From here on every process that is started belongs to this run, whoever starts it.
        os.environ[RUN_VARIABLE] = self.run
        self._reaper.start(self.run, self.state.shm(self.run), self.state.run_file)

    async def _wait_ready(self) -> None:
        """Wait for all traders, and then for history to have reached the segments, as long as there is time for it."""
        deadline = time.monotonic() + _READY_TIMEOUT_S
        history = HistoryShare()
        while time.monotonic() < deadline:
            self.note_ready()
            wanted = self._placed()
            ready = sum(map(self.readiness.was_ready, wanted))
            if ready < len(wanted):
                self._say("waiting for the traders", ready / len(wanted))
            else:
                left = await history_left(self.feeds.values(), self.workers.values())
                if left == 0:
                    return
                self._say("reading history", history.of(left))
            await asyncio.sleep(0.05)

    def _placed(self) -> list[str]:
        verdicts = self.plan.verdicts.values() if self.plan else ()
        return [verdict.trader for verdict in verdicts if verdict.runs_as_asked]

    def note_ready(self) -> None:
        """Take note of which traders are Ready by the newest statuses."""
        if self.plan is not None:
            self.readiness.note(self.plan.verdicts, (group.watch.status for group in self.workers.values()))

    # Plan ---------------------------------------------------------------------------------------------------

    async def _next_plan(self) -> Plan:
        workers: dict[Key, dict[str, WorkerNow]] = {}
        for (pool, name), group in self.workers.items():
            workers.setdefault(pool, {})[name] = group.now()
        if not workers:
            workers = left_workers(self.state, self.wanted.manifests)
        unknown = {key: group.note_unknown_symbols() for key, group in self.feeds.items()}
        desired = desired_of(self.wanted.manifests, self.wanted.found, unknown_symbols=unknown)
        made = plan(desired, Current(workers, self._memory), now_ms=now_ms(), wall_ms=wall_ms())
        self._memory = made.memory
        remembered = msgspec.json.encode(made.memory)
        if remembered != self._remembered:
            write_atomically(self.state.root / "memory.json", remembered)
            self._remembered = remembered
        self._note_rollouts(made)
        self.plan = made
        return made

    def _note_rollouts(self, made: Plan) -> None:
        before = self.plan.verdicts if self.plan is not None else {}
        for name, verdict in made.verdicts.items():
            last = before.get(name)
            if verdict.rollout is not None and (last is None or last.rollout != verdict.rollout):
                facts = {"trader": name, "phase": verdict.rollout.phase, "generation": verdict.rollout.generation}
                log.info("rollout: " + verdict.rollout.message, extra=facts)
            if verdict.failed is not None and (last is None or last.failed != verdict.failed):
                log.error("rollout failed", extra={"trader": name, "problem": verdict.message})

    async def _apply(self, made: Plan, *, wait: bool) -> None:
        """Make what runs what the plan says: assignments at once, what takes longer beside that."""
        self._drop_workers(made)
        self.feed_starts.keep({key for key, feed in made.feeds.items() if feed.symbols and feed.intervals})
        starting: list[Coroutine[Any, Any, None]] = []
        for key, feed in made.feeds.items():
            if feed.symbols and feed.intervals:
                starting.append(self._run_feed(key, set(feed.symbols), set(feed.intervals)))
        for key, pool in made.pools.items():
            for name, assignment in pool.workers.items():
                group = self.workers.get((key, name))
                if group is None and pool.feed is not None:
                    group = self._new_worker(made, key, name)
                    group.want(assignment)
                    starting.append(self._start_worker(group))
                elif group is not None:
                    group.want(assignment)
        tasks = [self._spawn(each, "start") for each in starting]
        if wait:
            await self._all(tasks)

    async def _all(self, tasks: list[asyncio.Task[None]]) -> None:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION) if tasks else (set(), set())
        for task in done:
            task.result()

    def _new_worker(self, made: Plan, key: Key, name: str) -> WorkerGroup:
        pool = made.pools[key]
        assert pool.feed is not None
        group = WorkerGroup(
            pool.pool, name, self._kafka(pool.feed), self.state.shm(self.run),
            options=self.options, state=self.state, variables={},
            on_change=self._child_changed, on_status=self._status_came,
        )  # fmt: skip
        self.workers[key, name] = group
        return group

    def _drop_workers(self, made: Plan) -> None:
        for key, name in list(self.workers):
            if key not in made.pools or name not in made.pools[key].workers:
                ending = self._spawn(self._end_worker(self.workers.pop((key, name))), "end worker")
                self._endings.add(ending)
                ending.add_done_callback(self._endings.discard)

    # A worker that goes and comes again has the same sockets and the same shared memory: one after the other.

    async def _start_worker(self, group: WorkerGroup) -> None:
        async with self._worker_turns[group.endpoint.socket]:
            await group.start()

    async def _end_worker(self, group: WorkerGroup) -> None:
        async with self._worker_turns[group.endpoint.socket]:
            await group.stop_supervisor()
            await refreshed(group)
            await group.stop_feed()
            self.ended_workers.append(group.evidence())
            await group.close()

    async def _run_feed(self, key: Key, symbols: set[str], intervals: set[str]) -> None:
        # One at a time: a second growth must see what the first one did, and a start be over before.
        async with self._feed_turns[key]:
            group = self.feeds.get(key)
            if group is None:
                await self._try_feed(key, symbols, intervals)
                return
            more_symbols, more_intervals = group.grow(symbols, intervals)
            if more_symbols or more_intervals:
                await group.follow(symbols=more_symbols, intervals=more_intervals)

    async def _try_feed(self, key: Key, symbols: set[str], intervals: set[str]) -> None:
        """Start a feed. While the instance runs a failed start waits for its next turn; at the start it ends all."""
        feed = self.wanted.manifests.feeds.get(key)
        if feed is None or not self.feed_starts.is_due(key, feed):
            return
        self.feed_starts.begin(key)
        group = self.feeds[key] = self._new_feed(feed)
        group.grow(symbols, intervals)
        try:
            await self._start_feed(key, group)
        except (ChandleryError, OSError) as error:
            if self.phase != "running":
                raise
            # Nothing of it may go on by itself: the next attempt begins with processes of its own.
            await group.stop_ingest()
            await group.stop_aggregator()
            await group.close()
            del self.feeds[key]
            self.feed_starts.fail(key, feed, str(error))
            log.error("feed does not start", extra={"feed": group.label, "problem": str(error)})
            self._replan.set()
        else:
            group.started = True
            self.feed_starts.succeed(key)

    async def _start_feed(self, key: Key, group: FeedGroup) -> None:
        await ensure_topics(group.kafka)
        if key not in self.signals_from:
            self.signals_from[key] = await end_offsets(group.kafka, group.topics.signals)
        if group.continuous:
            # What the aggregator counted before this run must be known before ingest adds to it.
            await group.start_aggregator()
            await group.start_ingest()
        else:
            await asyncio.gather(group.start_aggregator(), group.start_ingest())
        if self.phase == "running":
            await group.go()

    def _new_feed(self, feed: MarketFeed) -> FeedGroup:
        return FeedGroup(
            feed, self.wanted.manifests.folder_of(feed), self.broker.bootstrap,
            session=time.time_ns() // 1_000_000, options=self.options, state=self.state, variables={},
            on_change=self._child_changed,
        )  # fmt: skip

    def _kafka(self, key: Key) -> KafkaSettings:
        return kafka_of(self.wanted.manifests.feeds[key], self.broker.bootstrap, self.options)

    # While running ------------------------------------------------------------------------------------------

    async def _follow_manifests(self) -> None:
        # What was edited since the first reading, while everything started, is a change like any other.
        await self._read_manifests()
        async for _ in changes(self._folder):
            await self._read_manifests()

    async def _read_manifests(self) -> None:
        while True:
            kept, previous, catalogue = set(self._folder.kept), self.wanted.manifests, self.catalogue
            read = await asyncio.to_thread(read_again, self.options.manifests, kept, previous, catalogue)
            if previous is self.wanted.manifests:  # else what had waited for an answer began to count meanwhile
                break
        await self._checking.take(read, catalogue, previous)

    def _strategies_changed(self) -> None:
        # The manifests stay as they were read: whether a file of theirs is gone is the folder's to say.
        self._want(check_again(self.wanted, self.catalogue))

    def _want(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self._problem_notices = [str(problem) for problem in wanted.other_problems()]
        feeds, pools = (group.feed for group in self.feeds.values()), (group.pool for group in self.workers.values())
        self._problem_notices += waiting_changes(wanted.manifests, feeds, pools)
        for problem in [*wanted.refused, *wanted.found]:
            log.warning("manifest problem", extra={"problem": str(problem)})
        self._replan.set()

    @property
    def notices(self) -> list[str]:
        """What a person should know now."""
        feeds = [self.feed_starts.why(key) for key in self.feed_starts.failed]
        console = self.console.notices if self.console is not None else []
        manifests = [*self._folder.notices, *self.strategies.notices, *self._ended_notices, *self._problem_notices]
        return [*manifests, *self._checking.notices, *self._plan_notices, *feeds, *self.broker.notices, *console]

    @property
    def catalogue(self) -> Catalogue:
        """What is known of strategies."""
        return self.strategies.catalogue

    async def _keep_planning(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._planning_pause_s()):
                    await self._replan.wait()
            self._replan.clear()
            try:
                await self._apply(await self._next_plan(), wait=False)
            except (ChandleryError, OSError) as error:
                log.error("planning failed; trying again", extra={"problem": str(error)})
                self._plan_notices = [f"changes wait, for planning failed: {error}"]
                self._replan.set()
                await asyncio.sleep(_PLAN_AGAIN_S)
            else:
                self._plan_notices = []

    def _planning_pause_s(self) -> float:
        """How long to wait at most for the next plan, s: what the planner and failed feeds ask for, at most 5."""
        again_ms = self.plan.plan_again_ms if self.plan else None
        asked = [5.0, self.feed_starts.next_s(), None if again_ms is None else (again_ms - now_ms()) / 1000]
        return max(0.1, min(each for each in asked if each is not None))

    def _status_came(self, has_news: bool) -> None:
        self.note_ready()
        if has_news:  # at the start too: the first plan while it runs shall know of it
            self._replan.set()  # what hands over goes on with what its worker tells

    def _child_changed(self, child: Child) -> None:
        for group in self.feeds.values():
            if child is group.ingest and child.state == "backoff":
                group.note_ingest_end()
        if any(child is group.feed for group in self.workers.values()):
            self._replan.set()  # its worker is, or is not, Ready any more

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._settled)
        return task

    def _settled(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        self.note_end(task)

    def note_end(self, task: asyncio.Task[Any]) -> None:
        """Tell of a task that ended by an error: what it did isn't done any more."""
        if not task.cancelled() and (error := task.exception()) is not None and self.phase == "running":
            log.error(f"{task.get_name()}: {error}", exc_info=error if not isinstance(error, ChandleryError) else None)
            told = self._problem_notices if task.get_name() in _PASSING else self._ended_notices
            told.append(f"{task.get_name()}: {error}")

    # End ----------------------------------------------------------------------------------------------------

    async def quiesce(self, *, at_once: bool = False) -> None:
        """Stop following manifests and planning: from here on things only end.

        Workers on their way out finish it, within 10 s for the supervisor and 12 s for the feed, unless ``at_once``.
        """
        self.phase = "stopping"
        if at_once:
            await cut(lambda: self._tasks)
            return
        for task in self._tasks - self._endings:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def children(self) -> list[Child]:
        """Every process of the instance but the broker's."""
        found = [child for group in self.feeds.values() for child in (group.aggregator, group.ingest)]
        found += [child for group in self.workers.values() for child in (group.feed, group.supervisor)]
        return [*found, self.console.child] if self.console is not None and self.console.started else found

    async def abort(self) -> None:
        """End everything at once, in whatever state it is; nothing of the run is left."""
        await self._end_start()
        await self.quiesce(at_once=True)
        for child in self.children():
            child.kill()
        self.broker.kill()
        await asyncio.gather(*(child.stop(1.0) for child in self.children()), return_exceptions=True)
        await self.close()

    async def _end_start(self) -> None:
        """End a start that is under way: what it began after the end of all else would be left behind."""
        await cut(lambda: [self._starting] if self._starting is not None else [])

    async def close(self) -> None:
        """Let go of sockets, shared memory and the state folder, when every process has ended."""
        closing = [group.close() for group in self.feeds.values()] + [group.close() for group in self.workers.values()]
        await asyncio.gather(*closing)
        await self.strategies.close()
        if self.console is not None:
            self.console.let_go()
        if self._api is not None:
            await self._api.stop()
        if self.run:
            await asyncio.to_thread(self.state.end_run, self.run)
        self._reaper.dismiss()
        self.state.release()

    def _read_memory(self) -> None:
        try:
            self._memory = msgspec.json.decode((self.state.root / "memory.json").read_bytes(), type=Memory)
        except FileNotFoundError:
            return
        except (OSError, msgspec.DecodeError) as error:
            log.warning("planner's memory unreadable, beginning anew", extra={"why": str(error)})
