"""All signal rings of the worker, drained to the ``signals`` topic."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, KafkaTimeoutError

from chandlery.core import clocks
from chandlery.core import signals as signal_format
from chandlery.core.assignment import trader_of
from chandlery.core.errors import InputError
from chandlery.core.latency import account
from chandlery.core.settings import KafkaSettings
from chandlery.core.signals import Completion, Life, Signal, completed
from chandlery.core.topics import partition_of, topics_of
from chandlery.workers.feed.admission import RecentIds
from chandlery.workers.feed.assignments import Fence
from chandlery.workers.feed.clients import signal_producer, stop_quickly
from chandlery.workers.feed.forming_signals import FormingSignals
from chandlery.workers.feed.histogram import LatencyBook
from chandlery.workers.feed.newest_signals import NewestSignals
from chandlery.workers.feed.notes import Notes
from chandlery.workers.feed.ring_drain import TURN_SLOTS, InFlight, RingDrain, Tally
from chandlery.workers.feed.tracing import Tracing
from chandlery.workers.ring_names import ring_file_name

log = logging.getLogger("chandlery.feed.drain")

#: Rings are looked at this often even if no bell rings (a trader may die between writing and ringing).
POLL_S: Final = 0.1
RECENT_SIGNALS: Final = 1_000
_RETRY_S: Final = 0.25


class Drain:
    """Drains every ring for which there is a fence.

    Args:
        fences: those of now, by incarnation (``namespace/name@3``); asked again on every pass.
        corrupted: called with the incarnation whose ring can't be trusted.
        tracing: is told of each signal that was acknowledged.
        covers: whether it is known what a Trader has on the topic already; before that nothing is taken from its ring.

    Attributes:
        ids: of the newest signals, so that none is sent twice. forming: signals that wait for the close of their candle.
        tally, latency: counts and histograms. newest: signals with what is known of them.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        rings_dir: Path,
        fences: Callable[[], dict[str, Fence]],
        notes: Notes,
        counts: Counter[str],
        corrupted: Callable[[str], None],
        tracing: Tracing,
        covers: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._kafka = kafka
        self._topic = topics_of(kafka).signals
        self._dir = rings_dir
        self._fences = fences
        self._notes = notes
        self._counts = counts
        self._corrupted = corrupted
        self._tracing = tracing
        self._covers = covers
        self.ids = RecentIds()
        self.forming = FormingSignals()
        self._wake = asyncio.Event()
        self._broken = asyncio.Event()
        self._moved = asyncio.Event()
        self._bell: socket.socket | None = None
        self.rings: dict[str, RingDrain] = {}
        self._bounds: dict[str, int] = {}
        #: Rings whose file is gone or replaced, with signals still under way.
        self._leaving: list[RingDrain] = []
        self.tally = Tally()
        self.latency = LatencyBook()
        self.newest = NewestSignals(RECENT_SIGNALS)
        self.producer_restarts = 0

    def listen(self) -> None:
        """Open ``bell.sock``: one datagram of any content means "look at the rings"."""
        path = self._dir / "bell.sock"
        path.unlink(missing_ok=True)
        self._bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._bell.bind(str(path))
        asyncio.get_running_loop().add_reader(self._bell.fileno(), self._heard)

    def close(self) -> None:
        """Close ``bell.sock`` and let go of all rings."""
        if self._bell is not None:
            asyncio.get_running_loop().remove_reader(self._bell.fileno())
            self._bell.close()
            self._bell = None
            (self._dir / "bell.sock").unlink(missing_ok=True)
        for drain in [*self.rings.values(), *self._leaving]:
            drain.close()

    def _heard(self) -> None:
        if self._bell is not None:
            try:
                while self._bell.recv(64):
                    pass
            except BlockingIOError:
                pass
        self.look()

    def look(self) -> None:
        """Look at the rings now."""
        self._wake.set()

    def lives(self) -> dict[str, int]:
        """What was told of signals on forming candles, by state, and what was not (docs/status.md)."""
        told = {name: self.tally.lives[name] for name in ("confirmed", "invalidated", "fenced", "incomplete")}
        return {**told, "forgotten": self.forming.forgotten}

    def empty(self) -> bool:
        """Whether nothing is left in any ring, nor under way."""
        drains = [*self.rings.values(), *self._leaving]
        return all(not drain.in_flight and not drain.depth() for drain in drains)

    async def settled(self) -> None:
        """Wait for the next look at the rings, or the next acknowledgement."""
        await self._moved.wait()

    def holds(self, key: str) -> bool:
        """Whether an incarnation's ring is open, or still has signals under way."""
        return key in self.rings or any(drain.key == key for drain in self._leaving)

    def bind(self, bounds: Mapping[str, int]) -> None:
        """Hold the incarnations to the ``until_ms`` that their processes have acknowledged."""
        self._bounds = dict(bounds)
        for key, drain in self.rings.items():
            self._bind(key, drain)

    def _bind(self, key: str, drain: RingDrain) -> None:
        if (until_ms := self._bounds.get(key)) is not None:
            drain.bind(until_ms)

    async def run(self) -> None:
        """Drain until cancelled. A producer that fails is replaced, and what it had under way sent again."""
        while True:
            producer = signal_producer(self._kafka)
            self._broken.clear()
            try:
                await producer.start()
                await self._check_partitions(producer)
                await self._send_again(producer)
                await self._drain(producer)
            except KafkaError as error:
                log.debug("signal producer restarts", extra={"reason": repr(error)})
            finally:
                await stop_quickly(producer)
            self.producer_restarts += 1
            await asyncio.sleep(_RETRY_S)

    async def _check_partitions(self, producer: AIOKafkaProducer) -> None:
        known = len(await producer.partitions_for(self._topic))
        if known < self._kafka.partitions:
            raise InputError(
                f"topic {self._topic} has {known} partitions, the settings say kafka.partitions = "
                f"{self._kafka.partitions}: make them equal"
            )

    async def _drain(self, producer: AIOKafkaProducer) -> None:
        loop = asyncio.get_running_loop()
        next_look = 0.0
        while not self._broken.is_set():
            if loop.time() >= next_look:
                self._discover()
                next_look = loop.time() + POLL_S
            self._wake.clear()
            self._announce()
            if await self._pass(producer):
                # More may wait, for ever where a trader floods its ring with what is dropped at once: neither a
                # pass nor a send need ever suspend, and candles must go on.
                await asyncio.sleep(0)
                continue
            try:
                async with asyncio.timeout(POLL_S):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _pass(self, producer: AIOKafkaProducer) -> bool:
        """One look at every ring; True if one of them had anything."""
        fences = self._fences()
        busy = False
        for drain in self._leaving:
            await self._send_unsent(producer, drain)
        for key, drain in list(self.rings.items()):
            fence = fences.get(key)
            if fence is None or not drain.sound() or not self._covers(trader_of(key)):
                continue
            before = drain.taken
            for entry in drain.take(fence, self.ids, self.forming):
                await self._send(producer, drain, entry)
            busy = busy or drain.taken > before
            if not drain.sound():
                self._corrupted(key)
        return busy

    async def _send(self, producer: AIOKafkaProducer, drain: RingDrain, entry: InFlight) -> None:
        """Hand one record to the producer, however long it has no room: meanwhile the rings fill."""
        record = entry.record
        if record is None:
            return
        value = signal_format.encode(record)
        partition = partition_of(record.symbol, self._kafka.partitions)
        headers = []
        if isinstance(record, Signal):
            headers.append((signal_format.TRACE_HEADER, self._tracing.traceparent(record)))
        while not self._broken.is_set():
            try:
                sent = await producer.send(
                    self._topic, value, key=record.symbol.encode(), partition=partition, headers=headers
                )
            except KafkaTimeoutError:
                self._tracing.lines.sent_again(record, "the producer has no room")
                continue
            entry.sent = sent
            sent.add_done_callback(lambda done: self._settled(drain, entry, done))
            return

    async def _send_again(self, producer: AIOKafkaProducer) -> None:
        """Send what the producer before had not been acknowledged, in each ring's order."""
        for drain in [*self._leaving, *self.rings.values()]:
            for entry in drain.in_flight:
                entry.sent = None
            await self._send_unsent(producer, drain)

    async def _send_unsent(self, producer: AIOKafkaProducer, drain: RingDrain) -> None:
        for entry in list(drain.in_flight):
            if not entry.done and entry.sent is None:
                await self._send(producer, drain, entry)

    def _settled(self, drain: RingDrain, entry: InFlight, sent: asyncio.Future[Any]) -> None:
        if entry.sent is not sent or entry.done:
            return
        if sent.cancelled() or sent.exception() is not None:
            entry.sent = None
            self._counts["signal_resends"] += 1
            if entry.record is not None:
                self._tracing.lines.sent_again(entry.record, _why(sent))
            self._broken.set()
            self._wake.set()
            return
        entry.done = True
        if isinstance(entry.record, Signal):
            self._complete(entry.record)
        elif isinstance(entry.record, Life):
            self.tally.lives[entry.record.state] += 1
            self.newest.hear(entry.record)
        drain.settle()
        self._announce()

    def _announce(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

    def _complete(self, signal: Signal) -> None:
        self.tally.published += 1
        self.tally.unique += 1  # repeated ids were dropped before they were sent
        now_ns, offset_ns = clocks.now_ns(), clocks.wall_offset_ns()
        completion = self._tracing.complete(Completion(signal.id, signal.trader, now_ns, offset_ns))
        stamps = completed(signal.stamps, completion)
        told = account(stamps)
        self.latency.record(told, self._tracing.shown_as(signal))
        self.newest.add(signal, completion)
        self._notes.complete(signal.symbol, completion)
        self._tracing.completed(signal, completion, stamps, told)

    def _discover(self) -> None:
        """Follow the ring files: new ones, replaced ones, and those that are gone."""
        for key in self._fences():
            path = self._dir / ring_file_name(key)
            drain = self.rings.get(key)
            try:
                identity = path.stat().st_ino
            except OSError:
                identity = 0
            if drain is not None and drain.identity != identity:
                self._leave(key, drain)
                drain = None
            if drain is None and identity:
                drain = self.rings[key] = RingDrain(key, path, identity, self.tally, self._counts, self._tracing.lines)
                self._bind(key, drain)
                if not drain.sound():
                    self._corrupted(key)
        fences = self._fences()
        for key, drain in list(self.rings.items()):
            if key not in fences:
                self._leave(key, drain)
        for drain in [drain for drain in self._leaving if not drain.in_flight]:
            drain.close()
            self._leaving.remove(drain)

    def _leave(self, key: str, drain: RingDrain) -> None:
        """A ring's file is gone: take what is left of it, then let it go once that is acknowledged."""
        fence = self._fences().get(key)
        if fence is not None:
            # Once round at most: its trader may still hold the file, and fill it as fast as it is emptied.
            for _ in range(0, drain.depth(), TURN_SLOTS):
                drain.take(fence, self.ids, self.forming)  # sent with the next pass
        self._leaving.append(drain)
        del self.rings[key]


def _why(sent: asyncio.Future[Any]) -> str:
    """Why a record was not acknowledged, for a person."""
    error = None if sent.cancelled() else sent.exception()
    return "the producer ended" if error is None else type(error).__name__
