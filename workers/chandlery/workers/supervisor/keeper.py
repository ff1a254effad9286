"""Keeps the process of one incarnation of a Trader as its specification says: starts, watches, restarts, explains."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from chandlery.core.assignment import READY_STATES, TraderAssignment, TraderState, TraderStatus
from chandlery.core.clocks import now_ns
from chandlery.core.errors import SegmentError, UnavailableError
from chandlery.core.transports import Transport
from chandlery.core.wire import UNDECODABLE
from chandlery.workers.segment import Heritage, SignalRing
from chandlery.workers.supervisor import watch
from chandlery.workers.supervisor.backoff import Backoff
from chandlery.workers.supervisor.changes import compare
from chandlery.workers.supervisor.exits import Ending, Verdict, explain
from chandlery.workers.supervisor.nursery_client import NurseryClient, TraderProcess
from chandlery.workers.trader.messages import (
    MAX_LINE_BYTES,
    FailureReport,
    Launch,
    Live,
    StateReport,
    decode_report,
    encode,
)

_log = logging.getLogger("chandlery")
#: SIGTERM ends a trader at once unless its strategy holds the interpreter; a worker's own grace period is 40 s.
TERM_S: Final = 2.0
#: Words that a process said just before its end are in the socket already; a grandchild may hold it open.
LAST_WORDS_S: Final = 1.0

#: Counters of the ring that a status repeats as they are.
COUNTERS: Final = (
    "calls", "signals", "reruns", "stale", "lapped", "cooled_down", "informative_missing", "errors", "blocked",
)  # fmt: skip


class Place(NamedTuple):
    """Where a worker's things are: the same for all its traders of one transport, but for the bell."""

    transport: Transport
    segment: str
    bell_socket: str
    strategies_dir: str
    log_level: str


class Keeper:
    """One incarnation of a Trader.

    Args:
        heritage: what a specification's ring shall begin with, asked when it is made.

    Attributes:
        spec: what is wanted. ring: its signal ring, once made. has_ring: whether it has been made.
    """

    def __init__(
        self,
        spec: TraderAssignment,
        bell: int,
        place: Place,
        ring_path: str,
        nursery: NurseryClient,
        hang_timeout_ms: int,
        changed: Callable[[], None],
        heritage: Callable[[TraderAssignment], Heritage | None] = lambda _: None,
    ) -> None:
        self.spec = spec
        self.ring: SignalRing | None = None
        self.has_ring = False
        self.ring_path = ring_path
        self._bell = bell
        self._place = place
        self._nursery = nursery
        self._hang_timeout_ms = hang_timeout_ms
        self._changed = changed
        self._heritage = heritage
        self._again = asyncio.Event()
        self._backoff = Backoff()
        self._process: TraderProcess | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._started_ns = 0
        self._verdict: Verdict | None = None
        self._failure: FailureReport | None = None
        #: Counts what the process is told; the newest that it, or the lack of one, has answered.
        self._orders = 1
        self._settled = 0
        self._stopping = False
        self._ring_given_up = False
        self._status = TraderStatus(state="Pending", generation=spec.generation, incarnation=spec.incarnation)

    # -- what the supervisor asks

    @property
    def settled(self) -> bool:
        """Whether this specification has been answered: READY by the process itself, or a reason why not."""
        return self._settled == self._orders

    @property
    def pid(self) -> int:
        return 0 if self._process is None else self._process.pid

    def apply(self, spec: TraderAssignment, bell: int, place: Place) -> None:
        """Take over a specification of the same Trader: in the running process where that can be."""
        change = compare(self.spec, spec)
        moved = (bell, place.segment) != (self._bell, self._place.segment)
        self.spec, self._bell, self._place = spec, bell, place
        if self._status.until_ms != spec.until_ms:
            # What was taken in is another end: the same one told again later has to be answered again.
            self._status.until_ms = None
        if change in ("restart", "replace"):
            _log.info("trader changed", extra=self._facts(change=change))
            self._backoff.forget()
            self._status.attempt = 0
            self._orders += 1
            self._again.set()
        elif change == "tell" or moved:
            if change == "tell":
                self._orders += 1
            self._tell()
            if self._process is None:
                # Stalled or in backoff: what it waits for has not changed, so its answer holds for this one too.
                self._set(self._status.state, self._status.reason, self._status.message)

    def retry(self) -> None:
        """Try a stalled Trader again: something outside its specification has changed."""
        if self._status.state == "Stalled":
            self._again.set()

    def replace_ring(self) -> None:
        """Start the process again with an empty ring: the feed can't trust what this one holds."""
        _log.error("signal ring given up: the feed can't trust it", extra=self._facts())
        self._ring_given_up = True
        self._again.set()

    def status(self) -> TraderStatus:
        """The Trader's status, counters read from its ring."""
        status = msgspec.structs.replace(self._status)
        status.pid = self.pid
        if self.ring is not None:
            with contextlib.suppress(SegmentError):
                counters = self.ring.info()["counters"]
                for name in COUNTERS:
                    setattr(status, name, counters[name])
                status.last_open_time_ms = counters["last_open_time_ms"]
        return status

    def watch(self) -> None:
        """Look at memory and heartbeat; kills where a limit is passed."""
        process = self._process
        if process is None or self._verdict is not None:
            return
        self._status.rss_bytes, verdict = watch.excess(process.pid, self.spec.memory_bytes)
        if verdict is None and self.ring is not None:
            verdict = self._hang(self.ring)
        if verdict is not None:
            self.end(verdict)

    @property
    def is_ending(self) -> bool:
        """Whether its process has been killed and isn't gone yet."""
        return self._process is not None and self._verdict is not None

    def end(self, verdict: Verdict) -> None:
        """Kill its process, which then starts again after its backoff."""
        process = self._process
        if process is not None and self._verdict is None:
            self._verdict = verdict
            self._nursery.kill(process.pid, signal.SIGKILL)

    def _hang(self, ring: SignalRing) -> Verdict | None:
        try:
            return watch.hang(
                now_ns=now_ns(),
                started_ns=self._started_ns,
                busy_since_ns=ring.get("busy_since_ns"),
                heartbeat_ns=ring.get("heartbeat_ns"),
                hang_timeout_ms=self._hang_timeout_ms,
            )
        except SegmentError as error:
            return Verdict("RingUnsound", str(error))

    # -- its life

    async def run(self) -> None:
        """Keep the process until cancelled; cancelling stops it."""
        try:
            while True:
                self._again.clear()
                if self.spec.mode == "suspended":
                    self._keep_heritage()
                    self._set("Suspended")
                    await self._again.wait()
                    continue
                started_s = time.monotonic()
                ending = await self._live()
                if ending is not None:
                    await self._after(ending, time.monotonic() - started_s)
        finally:
            self._stopping = True
            await self._stop()
            if self.ring is not None:
                self.ring.close()
                self.ring = None

    async def _live(self) -> Ending | None:
        """One process from start to end; None when it ended because it was asked to."""
        self._verdict = None
        self._failure = None
        try:
            self._make_ring()
            self._process = await self._nursery.spawn()
        except (SegmentError, UnavailableError) as error:
            return Ending("StartFailed", str(error))
        process = self._process
        self._status.attempt += 1
        self._set("Init")
        _log.info("trader started", extra=self._facts(pid=process.pid))
        reader, self._writer = await asyncio.open_connection(sock=process.line, limit=MAX_LINE_BYTES)
        self._status.transport = self._place.transport
        self._send(self._launch())
        listening = asyncio.create_task(self._listen(reader))
        asked = asyncio.create_task(self._again.wait())
        try:
            either: set[asyncio.Future[Any]] = {process.ended, asked}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not process.ended.done():
                await self._stop()
                return None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORDS_S):
                    await asyncio.shield(listening)
            return explain(process.ended.result(), self._failure, self._verdict)
        finally:
            asked.cancel()
            listening.cancel()
            if process.ended.done():
                self._part()

    def _keep_heritage(self) -> None:
        """Have a ring although nothing runs: who goes on later finds in it how far the ones before had come."""
        try:
            self._make_ring()
        except SegmentError as error:
            _log.warning("no signal ring for a suspended trader", extra=self._facts(error=str(error)))

    def _make_ring(self) -> None:
        if self.ring is not None:
            self.ring.close()
            self.ring = None
        if self._ring_given_up:
            Path(self.ring_path).unlink(missing_ok=True)
            self._ring_given_up = False
        trader, uid = self.spec.trader, self.spec.uid
        self.ring = SignalRing.create(self.ring_path, trader=trader, uid=uid, heritage=self._heritage(self.spec))
        self.has_ring = True
        if self.ring.replaced_because:
            _log.warning("signal ring replaced", extra=self._facts(because=self.ring.replaced_because))
        if self.ring.forgot_because:
            _log.warning("signal ring's positions forgotten", extra=self._facts(because=self.ring.forgot_because))
        # The predecessor's counters would tell of a hang that is over.
        self._started_ns = now_ns()

    async def _after(self, ending: Ending, ran_s: float) -> None:
        """Wait until the next start is due: a change where stalled, the backoff's end otherwise."""
        self._status.last_error = ending.message
        if ending.stalled:
            self._set("Stalled", ending.reason, ending.message)
            _log.error("trader stalled", extra=self._facts(reason=ending.reason, error=ending.message))
            await self._again.wait()
            return
        pause_s = self._backoff.failed(ran_s)
        self._status.restarts += 1
        reason = "CrashLoop" if self._backoff.crash_loop else ending.reason
        self._set("Backoff", reason, f"{ending.message}; starts again in {pause_s:g} s")
        _log.error("trader ended", extra=self._facts(reason=reason, error=ending.message, pause_s=pause_s))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._again.wait()

    async def _stop(self) -> None:
        """End the process: SIGTERM, and SIGKILL when that doesn't help."""
        process = self._process
        if process is None:
            return
        self._set("Stopping")
        self._nursery.kill(process.pid, signal.SIGTERM)
        try:
            async with asyncio.timeout(TERM_S):
                await asyncio.shield(process.ended)
        except TimeoutError:
            self._nursery.kill(process.pid, signal.SIGKILL)
            await process.ended
        _log.info("trader stopped", extra=self._facts(pid=process.pid, code=process.ended.result()))
        self._part()

    def _part(self) -> None:
        self._process = None
        self._status.rss_bytes = 0
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    # -- its line

    def _launch(self) -> Launch:
        place = self._place
        return Launch(
            assignment=self.spec,
            transport=place.transport,
            segment=place.segment,
            bell=self._bell,
            ring=self.ring_path,
            bell_socket=place.bell_socket,
            strategies_dir=place.strategies_dir,
            log_level=place.log_level,
            orders=self._orders,
        )

    def _tell(self) -> None:
        spec, place = self.spec, self._place
        self._send(
            Live(
                spec.generation,
                spec.mode,
                place.segment,
                self._bell,
                from_ms=spec.from_ms,
                until_ms=spec.until_ms,
                orders=self._orders,
            )
        )

    def _send(self, message: Launch | Live) -> None:
        if self._writer is not None:
            self._writer.write(encode(message) + b"\n")

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        """Take in what the process says. It may say anything: what isn't a report is logged and dropped."""
        while True:
            try:
                line = await reader.readline()
                if not line:
                    return
                report = decode_report(line)
            except (OSError, ValueError, *UNDECODABLE) as error:
                _log.warning("trader said what is no report", extra=self._facts(error=str(error)))
                if isinstance(error, OSError):
                    return
                continue
            if isinstance(report, FailureReport):
                self._failure = report
            elif self._wanted():
                self._note(report)

    def _wanted(self) -> bool:
        """Whether the process that runs is the one that shall run: what others say is past."""
        ending = self._stopping or self._again.is_set() or self._verdict is not None
        return self._process is not None and not ending

    def _note(self, report: StateReport) -> None:
        self._status.code = report.code
        self._status.warm_have = report.warm_have
        self._status.warm_need = report.warm_need
        self._status.generation = report.generation
        self._status.incarnation = report.incarnation
        if report.orders == self._orders:
            self._status.until_ms = self.spec.until_ms
        self._set(report.state, message=report.message, orders=report.orders)

    # -- its state

    def _set(self, state: TraderState, reason: str = "", message: str = "", orders: int = 0) -> None:
        status = self._status
        before = (status.state, status.reason, self._settled)
        status.state, status.reason, status.message = state, reason, message
        if state in READY_STATES:
            self._settled = max(self._settled, orders)
        else:
            status.generation, status.incarnation = self.spec.generation, self.spec.incarnation
            if state in ("Stalled", "Backoff", "Suspended"):
                self._settled = self._orders
                status.until_ms = self.spec.until_ms
        if (state, reason, self._settled) != before:
            _log.info("trader state", extra=self._facts(state=state, reason=reason))
        self._changed()

    def _facts(self, **more: object) -> dict[str, object]:
        return {
            "trader": self.spec.trader,
            "generation": self.spec.generation,
            "incarnation": self.spec.incarnation,
            "attempt": self._status.attempt,
            **more,
        }
