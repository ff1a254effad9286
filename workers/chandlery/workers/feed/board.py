"""The series of this worker in the segment: which there are, and how accepted candles get into them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable

from chandlery.core.assignment import SeriesRef, TraderAssignment
from chandlery.core.clocks import Stamps, now_ns
from chandlery.core.errors import InputError, SegmentError
from chandlery.core.intervals import parse_interval
from chandlery.core.wire import CandleUpdate
from chandlery.workers.feed.candle_rows import row_of
from chandlery.workers.feed.router import Bells, Router, Track
from chandlery.workers.feed.sequencing import SeriesSequence
from chandlery.workers.segment import SegmentWriter

log = logging.getLogger("chandlery.feed.board")


class Receipt:
    """When the records now being taken in were received (ns, monotonic): one value a batch."""

    __slots__ = ("fed_ns",)

    def __init__(self) -> None:
        self.fed_ns = 0


class SegmentSink:
    """Writes one series into the segment.

    Attributes:
        live: whether rows come as they happen. Those read in catch-up are history to a trader that has decided
            nothing yet: however late it attaches, it doesn't decide on the past. One that has decided before gets its
            calls on them, also in a session that began meanwhile.
    """

    __slots__ = ("_index", "_receipt", "_writer", "live")

    def __init__(self, writer: SegmentWriter, index: int, receipt: Receipt) -> None:
        self._writer = writer
        self._index = index
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
        self._writer.reset(self._index, session)

    def append(self, update: CandleUpdate, stamps: Stamps) -> None:
        row = row_of(update)
        self._writer.append(self._index, *row, self._stamps(stamps), update.backfill, self.live)

    def revise(self, update: CandleUpdate) -> bool:
        return self._writer.revise(self._index, *row_of(update))

    def set_forming(self, update: CandleUpdate, stamps: Stamps) -> None:
        row = row_of(update)
        self._writer.set_forming(self._index, *row, self._stamps(stamps))

    def clear_forming(self) -> None:
        self._writer.clear_forming(self._index)


class SeriesBoard:
    """Keeps the segment's series equal to what the assignment wants."""

    def __init__(self, writer: SegmentWriter, router: Router, receipt: Receipt, counts: Counter[str]) -> None:
        self._writer = writer
        self._router = router
        self._receipt = receipt
        self._counts = counts
        self.tracks: dict[SeriesRef, Track] = {}
        self._sinks: dict[SeriesRef, SegmentSink] = {}
        #: Series that could not be had, and why.
        self.refused: dict[SeriesRef, str] = {}

    def want(self, traders: Iterable[TraderAssignment], bells: dict[str, int]) -> list[SeriesRef]:
        """Make the series those that the traders read, and the doorbells theirs.

        Returns:
            The series that are new and have to catch up.
        """
        wanted = bells_of(traders, bells)
        for ref in [ref for ref in self.tracks if ref not in wanted]:
            self._writer.remove_series(ref.symbol, ref.interval)
            self._router.remove(ref)
            del self.tracks[ref], self._sinks[ref]
        self.refused = {}
        new: list[SeriesRef] = []
        for ref, rung in wanted.items():
            track = self.tracks.get(ref)
            if track is None:
                track = self._add(ref)
                if track is None:
                    continue
                new.append(ref)
            track.bells = rung
        return new

    def _add(self, ref: SeriesRef) -> Track | None:
        try:
            parse_interval(ref.interval)
            index = self._writer.add_series(ref.symbol, ref.interval)
        except (InputError, SegmentError) as error:
            # One series that can't be had is its traders' trouble alone.
            log.error("series refused", extra={"symbol": ref.symbol, "interval": ref.interval, "reason": str(error)})
            self._counts["series_refused"] += 1
            self.refused[ref] = str(error)
            return None
        sink = self._sinks[ref] = SegmentSink(self._writer, index, self._receipt)
        track = self.tracks[ref] = Track(SeriesSequence(sink, self._counts))
        self._router.add(ref, track)
        return track

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
