"""The series of this worker in the segment: which there are, and how accepted candles get into them."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable

from chandlery.core.assignment import SeriesRef, TraderAssignment
from chandlery.core.clocks import Stamps, now_ns
from chandlery.core.errors import InputError, SegmentError
from chandlery.core.intervals import parse_interval
from chandlery.core.wire import CandleUpdate
from chandlery.workers.feed.candle_rows import row_of
from chandlery.workers.feed.grace import Grace
from chandlery.workers.feed.router import Bells, Router, Track
from chandlery.workers.feed.sequencing import SeriesSequence
from chandlery.workers.segment import SegmentWriter
from chandlery.workers.segment.soundness import Held

log = logging.getLogger("chandlery.feed.board")


class Receipt:
    """When the records now being taken in were received (ns, monotonic): one value a batch."""

    __slots__ = ("fed_ns",)

    def __init__(self) -> None:
        self.fed_ns = 0


class SegmentSink:
    """Writes one series into the segment.

    Attributes:
        index: the series' number in the writer's present file.
        live: whether rows come as they happen. Those read in catch-up are history to a trader that has decided
            nothing yet: however late it attaches, it doesn't decide on the past. One that has decided before gets its
            calls on them, also in a session that began meanwhile.
    """

    __slots__ = ("_receipt", "_writer", "index", "live")

    def __init__(self, writer: SegmentWriter, index: int, receipt: Receipt) -> None:
        self._writer = writer
        self.index = index
        self._receipt = receipt
        self.live = False

    def _stamps(self, stamps: Stamps) -> tuple[int, ...]:
        return (
            stamps.exchange_ns,
            stamps.received_ns,
            stamps.appended_ns,
            stamps.aggregated_ns,
            stamps.emitted_ns,
            self._receipt.fed_ns,
            now_ns(),
            stamps.recorded_skew_ns,
        )

    def reset(self, session: int) -> None:
        self._writer.reset(self.index, session)

    def append(self, update: CandleUpdate, stamps: Stamps) -> None:
        row = row_of(update)
        self._writer.append(self.index, *row, self._stamps(stamps), update.backfill, self.live)

    def revise(self, update: CandleUpdate) -> bool:
        return self._writer.revise(self.index, *row_of(update))

    def set_forming(self, update: CandleUpdate, stamps: Stamps) -> None:
        row = row_of(update)
        self._writer.set_forming(self.index, *row, self._stamps(stamps))

    def clear_forming(self) -> None:
        self._writer.clear_forming(self.index)


class SeriesBoard:
    """Keeps the segment's series equal to what the assignment wants, and for a while what it wanted.

    A series that no Trader reads any more stays for its grace, with no bell to ring: its candles go on, so that a Trader
    that comes back finds it warm. It gives way, the oldest first, when the segment is full; what then still has no room
    waits in ``waiting`` for a larger segment, or is refused where there may be none.

    Args:
        most: series that there may ever be; absent: what the present segment has room for.
        grace_s: how long a series stays that nobody reads. clock: seconds that never go back, for the grace.

    Attributes:
        tracks: every series in the segment, those in their grace too. waiting: wanted, for want of room not there.
        refused: wanted series that can't be had, and why. freed: how many were taken out since the start.
    """

    def __init__(
        self,
        writer: SegmentWriter,
        router: Router,
        receipt: Receipt,
        counts: Counter[str],
        *,
        most: int | None = None,
        grace_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._writer = writer
        self._router = router
        self._receipt = receipt
        self._counts = counts
        self._most = writer.capacity if most is None else most
        self.grace = Grace(grace_s, clock)
        self.tracks: dict[SeriesRef, Track] = {}
        self._sinks: dict[SeriesRef, SegmentSink] = {}
        self.waiting: list[SeriesRef] = []
        self.refused: dict[SeriesRef, str] = {}
        self.freed = 0
        #: Why the segment could not grow when that was first tried for what waits.
        self._no_room = ""

    @property
    def needed(self) -> int:
        """Series that the segment must have room for, so that none waits."""
        return len(self.tracks) + len(self.waiting)

    def want(self, traders: Iterable[TraderAssignment], bells: dict[str, int]) -> list[SeriesRef]:
        """Make the series those that the traders read, as far as there is room, and the doorbells theirs.

        Returns:
            The series that are new and have to catch up.
        """
        wanted = bells_of(traders, bells)
        for ref, track in self.tracks.items():
            if ref in wanted:
                self.grace.end(ref)
            else:
                self.grace.begin(ref)
                track.bells = Bells()
        new, refused = self._take_in([ref for ref in wanted if ref not in self.tracks])
        for ref, why in refused.items():
            self._tell_refused(ref, why)
        self.refused = refused
        for ref, rung in wanted.items():
            if ref in self.tracks:
                self.tracks[ref].bells = rung
        return new

    def _take_in(self, missing: list[SeriesRef]) -> tuple[list[SeriesRef], dict[SeriesRef, str]]:
        """Add what there is room for, and set the rest down as waiting.

        Returns:
            The series added, and those refused with the reason.
        """
        for ref in self.grace.oldest(len(self.tracks) + len(missing) - self._writer.capacity):
            self._free(ref)
        new: list[SeriesRef] = []
        waiting: list[SeriesRef] = []
        refused: dict[SeriesRef, str] = {}
        for ref in missing:
            problem = _interval_problem(ref)
            if problem:
                refused[ref] = problem
            elif len(self.tracks) < self._writer.capacity:
                problem = self._add(ref)
                if problem:
                    refused[ref] = problem
                else:
                    new.append(ref)
            elif len(self.tracks) + len(waiting) < self._most:
                waiting.append(ref)
                if self._no_room:
                    refused[ref] = self._no_room
            else:
                refused[ref] = (
                    f"the segment is full: all {self._most} series that it may have are in use; "
                    "raise the pool's spec.segment.series"
                )
        self.waiting = waiting
        if not waiting:
            self._no_room = ""
        return new, refused

    def _add(self, ref: SeriesRef) -> str:
        """Make a series; why that can't be, or empty."""
        try:
            index = self._writer.add_series(ref.symbol, ref.interval)
        except SegmentError as error:
            return str(error)
        sink = self._sinks[ref] = SegmentSink(self._writer, index, self._receipt)
        track = self.tracks[ref] = Track(SeriesSequence(sink, self._counts))
        self._router.add(ref, track)
        return ""

    def _tell_refused(self, ref: SeriesRef, why: str) -> None:
        """One series that can't be had is its traders' trouble alone. Said once, not at each look for room."""
        if self.refused.get(ref) != why:
            log.error("series refused", extra={"symbol": ref.symbol, "interval": ref.interval, "reason": why})
        if ref not in self.refused:
            self._counts["series_refused"] += 1

    def _free(self, ref: SeriesRef) -> None:
        self._writer.remove_series(ref.symbol, ref.interval)
        self._router.remove(ref)
        self.grace.end(ref)
        del self.tracks[ref], self._sinks[ref]
        self.freed += 1

    def held(self) -> list[Held]:
        """Every series in the segment, as it must stand there."""
        return [
            Held(self._sinks[ref].index, ref.symbol, ref.interval, track.sequence.last_open_time_ms)
            for ref, track in self.tracks.items()
        ]

    def free_unread(self) -> int:
        """Take out the series whose grace is over; how many there were."""
        over = self.grace.over()
        for ref in over:
            self._free(ref)
        return len(over)

    def follow_growth(self) -> None:
        """The writer has a larger file: series may have other numbers in it."""
        self._no_room = ""
        for ref, sink in self._sinks.items():
            sink.index = self._writer.add_series(ref.symbol, ref.interval)

    def refuse_waiting(self, why: str) -> bool:
        """The segment can't grow. Returns: whether that is news."""
        is_news = not self._no_room
        # The first reason stays until there is room: what is free changes from one look to the next, each second.
        self._no_room = self._no_room or why
        for ref in self.waiting:
            self._tell_refused(ref, self._no_room)
            self.refused[ref] = self._no_room
        return is_news

    def join(self, ref: SeriesRef, track: Track) -> None:
        """Let live records reach a series that has caught up, and ring its traders."""
        if self.tracks.get(ref) is not track:
            return  # no longer wanted, or wanted anew meanwhile
        self._sinks[ref].live = True
        self._router.join(ref, track)

    def ring(self) -> None:
        """Ring the doorbells of everyone whose series changed."""
        rung = self._router.take_rung()
        if rung:
            self._writer.ring_many(list(rung))


def _interval_problem(ref: SeriesRef) -> str:
    try:
        parse_interval(ref.interval)
    except InputError as error:
        return str(error)
    return ""


def bells_of(traders: Iterable[TraderAssignment], bells: dict[str, int]) -> dict[SeriesRef, Bells]:
    """Who is rung for which series.

    A closed or revised row rings every trader that reads the series; a forming one only traders that decide
    on every update of a series of their own. Suspended traders are never rung, nor those without a doorbell.
    """
    closed: dict[SeriesRef, set[int]] = {}
    forming: dict[SeriesRef, set[int]] = {}
    for trader in traders:
        own = {SeriesRef(symbol, trader.interval) for symbol in trader.symbols}
        for ref in trader.series():
            rung = closed.setdefault(ref, set())
            if trader.mode == "suspended" or trader.key not in bells:
                continue
            rung.add(bells[trader.key])
            if trader.trigger == "EveryUpdate" and ref in own:
                forming.setdefault(ref, set()).add(bells[trader.key])
    return {ref: Bells(frozenset(rung), frozenset(forming.get(ref, ()))) for ref, rung in closed.items()}
