"""The supervisor: what is assigned against what runs, and the account of both."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from chandlery.core.assignment import TraderAssignment, TraderStatus, content_hash, trader_of
from chandlery.core.errors import InvariantError, SegmentError
from chandlery.core.settings import SupervisorSettings
from chandlery.core.transports import transport_of
from chandlery.workers.control_messages import AssignmentMessage, StatusMessage
from chandlery.workers.ring_names import HALF_MADE_RING_FILES, RING_FILES, key_in, ring_file_name
from chandlery.workers.segment import Heritage, SignalRing
from chandlery.workers.supervisor import ceiling, watch
from chandlery.workers.supervisor.catalogue_reader import follow_catalogue
from chandlery.workers.supervisor.ceiling import Ceiling
from chandlery.workers.supervisor.changes import compare
from chandlery.workers.supervisor.feed_link import FeedLink
from chandlery.workers.supervisor.heritage import adopt_earlier_names, heritage, is_heir
from chandlery.workers.supervisor.keeper import Keeper, Place
from chandlery.workers.supervisor.leaving import Leaving
from chandlery.workers.supervisor.memory_shares import FORK_SERVER, SUPERVISOR, MemoryShares
from chandlery.workers.supervisor.nursery_client import NurseryClient

_log = logging.getLogger("chandlery")
#: At most 20 statuses a second, at least one a second while counters move.
LEAST_GAP_S: Final = 0.05
MOST_GAP_S: Final = 1.0

Statuses = tuple[dict[str, TraderStatus], dict[str, TraderStatus]]


def uid_in(ring: Path) -> str:
    """Uid of the Trader whose ring it is; empty where an older version made it, or it is unsound."""
    try:
        with SignalRing.attach(str(ring)) as found:
            return found.uid
    except SegmentError:
        return ""


def _see_leave(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("a ring could not be let go", extra={"what": task.get_name(), "error": repr(error)})


def _sizes(keepers: Mapping[str, Keeper]) -> dict[str, int]:
    """What the end of each trader's process would free, bytes."""
    sizes = ((key, watch.own_bytes(keeper.pid)) for key, keeper in keepers.items() if keeper.pid)
    return {key: size for key, size in sizes if size}


class Supervisor:
    """Applies assignments by their differences and reports when all of one is answered."""

    def __init__(self, settings: SupervisorSettings) -> None:
        self._settings = settings
        self._rings = Path(settings.rings_dir)
        self._nursery = NurseryClient()
        self._shares = MemoryShares(self._processes)
        # By incarnation: ``namespace/name@3``.
        self._keepers: dict[str, Keeper] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._leaving: dict[str, tuple[Leaving, asyncio.Task[None]]] = {}
        #: Of Traders that were removed: their processes still stop.
        self._parting: dict[asyncio.Task[None], Keeper] = {}
        self._catalogue: list[dict[str, Any]] = []
        self._looks = ceiling.Looks()
        self._message: AssignmentMessage | None = None
        self._applied: tuple[int, str] = (0, "")
        self._stopping = False
        self._change = asyncio.Event()
        self._defect: asyncio.Future[None]
        self._link = FeedLink(str(self._rings / "control.sock"), self._take, self._replace_ring, self._change.set)

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT; then stop the traders and leave the rings to the feed."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        self._defect = loop.create_future()
        self._nursery.start()
        tasks: list[asyncio.Task[None]] = [
            asyncio.create_task(self._link.run(), name="feed link"),
            asyncio.create_task(self._watch(), name="watch"),
            asyncio.create_task(self._publish(), name="publish"),
            asyncio.create_task(self._shares.run(), name="memory"),
            asyncio.create_task(follow_catalogue(self._settings.strategies_dir, self._set_catalogue), name="catalogue"),
        ]
        stopping = asyncio.create_task(stop.wait(), name="stop")
        try:
            await self._until_stopped(stopping, [*tasks, self._defect])
        finally:
            stopping.cancel()
            await self._stop_traders()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._nursery.close()
        _log.info("supervisor stopped")

    async def _until_stopped(self, stopping: asyncio.Task[bool], tasks: list[asyncio.Future[None]]) -> None:
        """Wait for the stop; a task that fails ends the supervisor with its error instead of living on half."""
        waiting: set[asyncio.Future[Any]] = {stopping, *tasks}
        while not stopping.done():
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()

    async def _stop_traders(self) -> None:
        self._stopping = True
        _log.info("supervisor stops its traders", extra={"traders": len(self._tasks)})
        tasks = [*self._tasks.values(), *(task for _, task in self._leaving.values())]
        for task in tasks:
            task.cancel()
        # Those on their way out have the same time as all: the end of the fork server would be that of their processes.
        await asyncio.gather(*tasks, *self._parting, return_exceptions=True)
        self._send_status()
        await self._link.flush()

    # -- assignments

    def _take(self, message: AssignmentMessage) -> None:
        if self._stopping:
            return  # the feed tells the next supervisor
        assignment = message.assignment
        facts = {"sequence": assignment.sequence, "hash": assignment.hash, "traders": len(assignment.traders)}
        held = 0 if self._message is None else self._message.assignment.sequence
        if assignment.sequence < held:
            _log.warning("assignment refused: older than the one held", extra={**facts, "held": held})
            return
        if content_hash(assignment.traders) != assignment.hash:
            _log.error("assignment refused: its hash differs from its content", extra=facts)
            return
        _log.info("assignment taken", extra=facts)
        wanted = {spec.key: spec for spec in assignment.traders}
        first = self._message is None
        self._message = message
        if first:
            self._clear_away(wanted)
        for key in [key for key in self._keepers if key not in wanted]:
            self._remove(key)
        for spec in wanted.values():
            self._apply(spec, message.bells.get(spec.key, 0))
        self._change.set()

    def _place(self, spec: TraderAssignment) -> Place:
        settings = self._settings
        assert self._message is not None
        transport = transport_of(spec.transport, settings.transport, for_all=settings.transport_for_all)
        return Place(
            transport=transport,
            segment=str(self._rings / "windows.sock") if transport == "Pipe" else self._message.segment,
            bell_socket=str(self._rings / "bell.sock"),
            strategies_dir=settings.strategies_dir,
            log_level=settings.log_level,
        )

    def _apply(self, spec: TraderAssignment, bell: int) -> None:
        keeper = self._keepers.get(spec.key)
        if keeper is not None and compare(keeper.spec, spec) == "replace":
            self._remove(spec.key)
            keeper = None
        if keeper is not None:
            keeper.apply(spec, bell, self._place(spec))
            return
        keeper = Keeper(
            spec,
            bell,
            self._place(spec),
            str(self._rings / ring_file_name(spec.key)),
            self._nursery,
            self._settings.hang_timeout_ms,
            self._change.set,
            self._heritage,
        )
        task = asyncio.create_task(self._keep(keeper), name=spec.key)
        task.add_done_callback(self._see_end)
        self._keepers[spec.key] = keeper
        self._tasks[spec.key] = task

    def _heritage(self, spec: TraderAssignment) -> Heritage | None:
        return heritage(self._rings, spec) if self._is_heir(spec) else None

    def _is_heir(self, spec: TraderAssignment) -> bool:
        return is_heir(spec, self._keepers)

    def _inherited(self, trader: str, uid: str) -> bool:
        """Whether nobody here still has to look into the rings of a Trader's earlier incarnations."""
        heirs = [keeper for keeper in self._keepers.values() if (keeper.spec.trader, keeper.spec.uid) == (trader, uid)]
        return all(keeper.has_ring or not self._is_heir(keeper.spec) for keeper in heirs)

    async def _keep(self, keeper: Keeper) -> None:
        """Run a keeper, once whoever had its ring has left, and whoever leaves of the same name runs no more."""
        spec = keeper.spec
        before = self._leaving.get(spec.key)
        if before is not None:
            leaving, task = before
            if leaving.uid == spec.uid:
                leaving.keep_ring.set()
            await asyncio.wait([task])  # however that ended, it has
        for leaving in [leaving for key, (leaving, _) in self._leaving.items() if trader_of(key) == spec.trader]:
            await leaving.process_end()
        await keeper.run()

    def _replace_ring(self, key: str) -> None:
        keeper = self._keepers.get(key)
        if keeper is not None:
            keeper.replace_ring()

    def _see_end(self, task: asyncio.Task[None]) -> None:
        """A keeper never ends by itself: if it does, that is a defect, and the supervisor ends with it."""
        if not task.cancelled() and task.exception() is not None and not self._defect.done():
            self._defect.set_exception(InvariantError(f"keeper of {task.get_name()} failed: {task.exception()!r}"))

    def _remove(self, key: str) -> None:
        keeper = self._keepers.pop(key)
        spec = keeper.spec
        _log.info("trader removed", extra={"trader": key, "generation": spec.generation})
        kept = self._tasks.pop(key)
        kept.cancel()
        self._parting[kept] = keeper
        kept.add_done_callback(self._parting.pop)
        kept.add_done_callback(lambda _: self._change.set())  # an assignment may have waited for just this end
        inherited = functools.partial(self._inherited, spec.trader, spec.uid)
        self._let_go(key, Leaving(key, spec.uid, keeper.ring_path, kept, inherited))

    def _clear_away(self, wanted: Mapping[str, TraderAssignment]) -> None:
        """Rings of Traders that were removed, or removed and made anew, while no supervisor ran, or whose supervisor
        ended before they went: who bears the name now waits until what they signalled is drained."""
        for half_made in self._rings.glob(HALF_MADE_RING_FILES):
            half_made.unlink()  # nobody has read it, nor put anything into it
        adopt_earlier_names(self._rings, wanted.values())
        for path in self._rings.glob(RING_FILES):
            uid, key = uid_in(path), key_in(path)
            if key not in wanted or (uid and uid != wanted[key].uid):
                ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                ended.set_result(None)
                _log.info("ring of no trader found", extra={"trader": key, "uid": uid})
                inherited = functools.partial(self._inherited, trader_of(key), uid)
                self._let_go(key, Leaving(key, uid, str(path), ended, inherited))

    def _let_go(self, key: str, leaving: Leaving) -> None:
        _, before = self._leaving.get(key, (None, None))
        task = asyncio.create_task(self._leave(key, leaving, before), name=f"{key} leaving")
        task.add_done_callback(_see_leave)
        self._leaving[key] = (leaving, task)

    async def _leave(self, key: str, leaving: Leaving, before: asyncio.Task[None] | None) -> None:
        try:
            if before is not None:
                # Who came and went while the one before was still leaving: both have the same ring's path.
                await asyncio.wait([before])
            await leaving.run()
        finally:
            if self._leaving.get(key, (None,))[0] is leaving:
                del self._leaving[key]
            self._change.set()

    # -- watching and telling

    async def _watch(self) -> None:
        while True:
            for keeper in self._keepers.values():
                keeper.watch()
            container = ceiling.own_ceiling()
            if container is None:
                self._looks.begin_anew()
            else:
                self._keep_below(container)
            await asyncio.sleep(watch.PERIOD_S)

    def _keep_below(self, container: Ceiling) -> None:
        """End the trader that has most, before the kernel ends the container with all of them."""
        parting = {keeper.spec.key: keeper for keeper in self._parting.values() if keeper.pid}
        if any(keeper.is_ending for keeper in (*parting.values(), *self._keepers.values())):
            self._looks.begin_anew()
            return  # what it has isn't free yet
        # One that was removed has up to two seconds to stop: before one that stays ends, it has to go at once.
        candidates = parting or self._keepers
        found = self._looks.who_goes(container, lambda: _sizes(candidates))
        if found is not None:
            facts = {"trader": found.name, "left_bytes": found.left_bytes, "own_bytes": found.own_bytes}
            _log.error("trader ended: its container is full", extra={**facts, "because": found.verdict.because})
            candidates[found.name].end(found.verdict)

    def _set_catalogue(self, catalogue: list[dict[str, Any]]) -> None:
        self._catalogue = catalogue
        broken = [entry["name"] for entry in catalogue if entry.get("errors")]
        _log.info("catalogue read", extra={"strategies": len(catalogue) - len(broken), "broken": broken})
        for keeper in self._keepers.values():
            keeper.retry()
        self._change.set()

    async def _publish(self) -> None:
        last: tuple[int, Statuses, dict[str, int]] | None = None
        while True:
            changed = True
            try:
                async with asyncio.timeout(MOST_GAP_S):
                    await self._change.wait()
            except TimeoutError:
                changed = False
            self._change.clear()
            self._acknowledge()
            now = (self._applied[0], self._statuses(), self._shares.own())
            if changed or now != last:
                # What a feed that doesn't read has not taken is told once a second until it has.
                last = now if self._send_status(now[1]) else None
            await asyncio.sleep(LEAST_GAP_S)

    def _acknowledge(self) -> None:
        """The assignment counts as applied once every Trader of it has answered and the others are gone."""
        if self._message is None:
            return
        assignment = self._message.assignment
        wanted = (assignment.sequence, assignment.hash)
        if wanted == self._applied or not all(keeper.settled for keeper in self._keepers.values()):
            return
        if self._stopping_processes():
            return
        self._applied = wanted
        outcomes = {name: keeper.status().state for name, keeper in self._keepers.items()}
        _log.info("assignment applied", extra={"sequence": wanted[0], "hash": wanted[1], "outcomes": outcomes})

    def _stopping_processes(self) -> bool:
        return any(not leaving.process_ended for leaving, _ in self._leaving.values())

    def _statuses(self) -> Statuses:
        """Of each Trader the lower incarnation here, and the higher one where there are two."""
        traders: dict[str, TraderStatus] = {}
        successors: dict[str, TraderStatus] = {}
        for keeper in sorted(self._keepers.values(), key=lambda keeper: keeper.spec.incarnation):
            told = successors if keeper.spec.trader in traders else traders
            status = told[keeper.spec.trader] = keeper.status()
            status.pss_bytes = self._shares.of(keeper.spec.key, status.pid)
        return traders, successors

    def _processes(self) -> dict[str, int]:
        """Whose share in memory is told, and their pids."""
        own = {SUPERVISOR: os.getpid(), FORK_SERVER: self._nursery.pid}
        running = {key: keeper.pid for key, keeper in self._keepers.items()}
        return {name: pid for name, pid in (own | running).items() if pid}

    def _send_status(self, statuses: Statuses | None = None) -> bool:
        """Tell the feed; whether there was one to take it."""
        sequence, content = self._applied
        traders, successors = self._statuses() if statuses is None else statuses
        return self._link.send(
            StatusMessage(sequence, content, traders, self._catalogue, successors, self._shares.own())
        )
