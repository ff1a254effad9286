"""One trader's signal ring on its way to the broker: in order, at least once, tail behind the acknowledgement."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from chandlery.core.assignment import trader_of
from chandlery.core.errors import SegmentError
from chandlery.core.signals import Life, Signal
from chandlery.core.telemetry import ids_of
from chandlery.workers.feed.admission import Admission, RecentIds, admit
from chandlery.workers.feed.assignments import Fence
from chandlery.workers.feed.forming_signals import FormingSignals, MissedCloses
from chandlery.workers.feed.signal_lines import SignalLines
from chandlery.workers.segment import SignalRing

log = logging.getLogger("chandlery.feed.rings")

#: Slots looked at before other rings get their turn.
TURN_SLOTS: Final = 64


@dataclass(slots=True)
class InFlight:
    """One record between a slot of the ring and its acknowledgement; a slot that tells of several lives has several.

    Attributes:
        position: of the slot in the ring. record: None for a slot that was dropped, or had nothing to tell.
        sent: the producer's promise while it is under way. done: acknowledged, or nothing to acknowledge.
    """

    position: int
    record: Signal | Life | None
    sent: asyncio.Future[object] | None = None
    done: bool = False


@dataclass(slots=True)
class Tally:
    """Signals of the whole worker: ``emitted = published + in flight + all dropped``.

    Attributes:
        lives: what was told of signals on forming candles, by state; ``fenced``: closes that weren't their teller's;
            ``incomplete``: those of which a slot was dropped.
    """

    emitted: int = 0
    published: int = 0
    unique: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    lives: Counter[str] = field(default_factory=Counter)


class RingDrain:
    """Takes slots of one ring and gives the ring back what is settled.

    Args:
        lines: told of each signal that is left out.

    Attributes:
        key: whose it is, ``namespace/name@INCARNATION``.
        identity: inode of the file; another one is another ring.
        corrupt: why the ring can't be trusted, empty while it can.
        last_error: newest reason for a dropped slot. taken: slots taken so far.
    """

    def __init__(
        self,
        key: str,
        path: Path,
        identity: int,
        tally: Tally,
        counts: Counter[str],
        lines: SignalLines | None = None,
    ) -> None:
        self.key = key
        self.path = path
        self.identity = identity
        self.corrupt = ""
        self.last_error = ""
        self.taken = 0
        self.in_flight: deque[InFlight] = deque()
        self._trader = trader_of(key)
        self._tally = tally
        self._counts = counts
        self._lines = lines or SignalLines()
        #: Of the newest signal that was taken, as far as it says one.
        self._newest_id = ""
        self._ring: SignalRing | None = None
        self._until_ms: int | None = None
        self._until_from = 0
        self._missed = MissedCloses()
        try:
            self._ring = SignalRing.attach(str(path))
        except SegmentError as error:
            self._distrust(error)

    def sound(self) -> bool:
        """Whether the ring can be trusted so far."""
        return not self.corrupt

    def bind(self, until_ms: int) -> None:
        """The process has acknowledged its ``until_ms``: what it puts into the ring from now on keeps to it.

        What stands there already it may have decided before it knew; that is its decision, its status tells of it, and
        whoever assigned moves the bound.
        """
        if until_ms == self._until_ms or self._ring is None:
            return
        try:
            self._until_from = self._ring.head
        except SegmentError as error:
            self._distrust(error)
            return
        self._until_ms = until_ms

    def take(self, fence: Fence, recent: RecentIds, forming: FormingSignals) -> list[InFlight]:
        """Take new slots; what may pass is returned in order, what may not is dropped and counted.

        Returns:
            The new entries of ``in_flight`` that carry a record to be sent, of at most :data:`TURN_SLOTS` slots.
        """
        if self._ring is None:
            return []
        try:
            items = self._ring.pending(TURN_SLOTS)
        except SegmentError as error:
            self._distrust(error)
            return []
        to_send: list[InFlight] = []
        if items and fence.from_ms and self._begun(fence.from_ms):
            fence = msgspec.structs.replace(fence, from_ms=0)
        for item in items:
            self.taken += 1
            if item.payload is None:
                self._missed.note(None, "bad_slot")
                admission = Admission(reason="bad_slot", message=item.error)
            else:
                bound = self._until_ms == fence.until_ms and item.position >= self._until_from
                until_ms = fence.until_ms if bound else None
                admission = admit(item.payload, self._trader, fence, recent, forming, self._missed, until_ms=until_ms)
            self._count(admission)
            entries = [InFlight(item.position, record) for record in admission.records]
            self.in_flight.extend(entries or [InFlight(item.position, None, done=True)])
            to_send.extend(entries)
        if items and not to_send:
            self.settle()
        return to_send

    def _count(self, admission: Admission) -> None:
        self._tally.emitted += admission.is_signal
        for record in admission.records or (admission.dropped,):
            if isinstance(record, Signal):
                self._newest_id = record.id
        if not admission.reason:
            return
        self.last_error = f"{admission.reason}: {admission.message}"
        if admission.is_signal:
            self._tally.dropped[admission.reason] += 1
            self._lines.dropped(self._trader, admission.dropped, admission.reason, admission.message)
        else:
            self._tally.lives[admission.reason] += 1

    def _begun(self, from_ms: int) -> bool:
        """Whether the incarnation is behind its beginning with every symbol: earlier candles are a later session's."""
        try:
            return self._ring is not None and self._ring.get("begun_from_ms") == from_ms
        except SegmentError as error:
            self._distrust(error)
            return False

    def settle(self) -> None:
        """Give back to the trader every slot up to the first that isn't settled."""
        upto = -1
        while self.in_flight and self.in_flight[0].done:
            position = self.in_flight.popleft().position
            if not self.in_flight or self.in_flight[0].position != position:
                upto = position + 1
        if upto < 0 or self._ring is None:
            return
        try:
            self._ring.acknowledge(upto)
        except SegmentError as error:
            self._distrust(error)

    def depth(self) -> int:
        """Slots in use, 0 for a ring that can't be trusted."""
        return self._ring.depth if self._ring else 0

    def gauges(self) -> dict[str, object]:
        """As in the status (docs/status.md)."""
        return {
            "depth": self.depth(),
            "capacity": self._ring.capacity if self._ring else 0,
            "in_flight": sum(not entry.done for entry in self.in_flight),
            "blocked": self._blocked(),
            "last_error": self.corrupt or self.last_error,
        }

    def _blocked(self) -> int:
        if self._ring is None:
            return 0
        try:
            return self._ring.get("blocked")
        except SegmentError as error:
            self._distrust(error)
            return 0

    def info(self) -> dict[str, object]:
        """Everything known about the ring, for ``chandlery debug``."""
        known: dict[str, object] = {}
        if self._ring is not None:
            try:
                known = dict(self._ring.info())
            except SegmentError as error:
                self._distrust(error)
        return {**known, **self.gauges(), "corrupt": self.corrupt, "path": str(self.path)}

    def close(self) -> None:
        """Let go of the file."""
        if self._ring is not None:
            self._ring.close()
            self._ring = None

    def _distrust(self, error: SegmentError) -> None:
        self.corrupt = str(error)
        self._counts["ring_corrupt"] += 1
        # What is wrong came after the newest signal that could still be read.
        after = ids_of(self._newest_id) if self._newest_id else {}
        log.error("signal ring corrupt", extra={"trader": self.key, "reason": str(error), **after})
        self.close()
