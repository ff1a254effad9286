"""The candles of one (symbol, session, interval) that can still change, and how they close.

A candle is *open* until the watermark reaches its end, then *closed*, then, the allowed lateness later,
*final* and forgotten here but for its close (fillers repeat it).
"""

from __future__ import annotations

from bisect import bisect_left
from operator import attrgetter
from typing import Final

import msgspec

from chandlery.core.intervals import Interval
from chandlery.core.wire import CandleUpdate
from chandlery.stream.aggregation.candle import Candle, filled_candle

_open_time: Final = attrgetter("open_time_ms")


class SeriesState(msgspec.Struct, array_like=True):
    """What is saved of one series.

    Attributes:
        open: candles that take trades and aren't closed, ascending; usually one.
        closed: closed candles that late trades may still revise, ascending.
        closed_to_ms: everything that ends at or before is closed.
        boundary_ms: the next watermark that closes something.
        final_to_ms: candles that open before are final.
        last_final_open_ms: open time of the newest final candle, -1 for none; last_final_close its close.
        run: candles filled in a row at the end of the closed ones. in_gap: that run is at its limit, and the
            gap behind it is counted.
    """

    open: list[Candle] = []
    closed: list[Candle] = []
    closed_to_ms: int = -1
    boundary_ms: int = -1
    final_to_ms: int = -1
    last_final_open_ms: int = -1
    last_final_close: int = 0
    run: int = 0
    in_gap: bool = False


class Outcome(msgspec.Struct):
    """What one step did to a series, for the counters.

    Attributes:
        closed, revised, filled, backfilled, gaps: candles.
        own_closed: trades of ours in the candles closed. covered: trades not added, for history has the candle.
    """

    closed: int = 0
    revised: int = 0
    filled: int = 0
    backfilled: int = 0
    gaps: int = 0
    own_closed: int = 0
    covered: int = 0


class SeriesStep:
    """One record's effect on one series: takes parts and history, then the watermark, then tells the updates.

    Attributes:
        outcome: the counters' changes so far.
        updates: closed, revised and final updates in the order to emit.
    """

    __slots__ = ("_changed", "_forming", "_fresh", "_interval", "_scales", "_series", "outcome", "updates")

    def __init__(self, interval: Interval, series: SeriesState, scales: tuple[int, int]) -> None:
        self._interval = interval
        self._series = series
        self._scales = scales
        self._forming = False
        self._changed: dict[int, Candle] = {}
        self._fresh: dict[int, CandleUpdate] = {}
        self.outcome = Outcome()
        self.updates: list[CandleUpdate] = []

    def add(self, part: Candle) -> int:
        """Add trades of one bucket.

        Returns:
            How many of them went into a candle already closed.
        """
        series = self._series
        if series.open and series.open[-1].open_time_ms == part.open_time_ms:
            series.open[-1].merge(part)
            self._forming = True
            return 0
        if part.open_time_ms < series.final_to_ms:
            self.outcome.covered += part.own
            return 0
        if part.end_ms <= series.closed_to_ms and part.open_time_ms <= self._last_closed_open_ms():
            self._revise(part)
            return part.own
        self._add_open(part)
        return 0

    def add_history(self, row: Candle) -> bool:
        """Close a candle known from history.

        Returns:
            False when it is not newer than the last closed candle, and so not taken.
        """
        series = self._series
        if row.open_time_ms <= self._last_closed_open_ms():
            return False
        while series.open and series.open[0].open_time_ms <= row.open_time_ms:
            live = series.open.pop(0)
            if live.open_time_ms == row.open_time_ms:
                row.own, row.backfill = live.own, live.own == 0
            else:
                self._close(live)
        self._close(row)
        self._finalise_before(row.end_ms)
        series.closed_to_ms = max(series.closed_to_ms, row.end_ms)
        series.boundary_ms = self._interval.next_ms(series.closed_to_ms)
        return True

    def seed(self, row: Candle) -> None:
        """Begin the forming candle with what history knows of it; live trades are added."""
        series = self._series
        if row.end_ms <= series.closed_to_ms or row.open_time_ms <= self._last_closed_open_ms():
            return
        # Our watermark closes it, so to its readers it is a live candle.
        row.backfill = False
        at = bisect_left(series.open, row.open_time_ms, key=_open_time)
        if at < len(series.open) and series.open[at].open_time_ms == row.open_time_ms:
            # History up to now has the trades that we have, and those before them.
            row.own = series.open[at].own
            series.open[at] = row
        else:
            series.open.insert(at, row)
        self._forming = True

    def advance(self, watermark_ms: int, lateness_ms: int, max_fill: int) -> None:
        """Close, fill and finalise what the watermark has passed; then every update but the forming is told."""
        series = self._series
        self._tell_revised()
        if watermark_ms >= series.boundary_ms or (series.open and series.open[0].end_ms <= series.closed_to_ms):
            target = max(self._interval.floor_ms(watermark_ms), series.closed_to_ms)
            while series.open and series.open[0].end_ms <= target:
                candle = series.open.pop(0)
                self._fill_to(candle.open_time_ms, max_fill)
                self._close(candle)
            self._fill_to(target, max_fill)
            series.closed_to_ms = target
            series.boundary_ms = self._interval.next_ms(target)
        if series.closed and series.closed[0].end_ms + lateness_ms <= watermark_ms:
            self._finalise_before(watermark_ms - lateness_ms)
        final_to_ms = watermark_ms - lateness_ms
        if series.final_to_ms < 0 or final_to_ms >= self._interval.next_ms(series.final_to_ms):
            series.final_to_ms = max(series.final_to_ms, self._interval.floor_ms(final_to_ms))

    def forming_update(self) -> CandleUpdate | None:
        """The newest open candle, if this step changed one."""
        series = self._series
        if not self._forming or not series.open:
            return None
        return series.open[-1].update(self._interval.text, self._last_closed_open_ms(), "forming", self._scales)

    def _last_closed_open_ms(self) -> int:
        series = self._series
        return series.closed[-1].open_time_ms if series.closed else series.last_final_open_ms

    def _add_open(self, part: Candle) -> None:
        series = self._series
        at = bisect_left(series.open, part.open_time_ms, key=_open_time)
        if at < len(series.open) and series.open[at].open_time_ms == part.open_time_ms:
            series.open[at].merge(part)
        else:
            series.open.insert(at, part)
        self._forming = True

    def _revise(self, part: Candle) -> None:
        closed = self._series.closed
        at = bisect_left(closed, part.open_time_ms, key=_open_time)
        if at < len(closed) and closed[at].open_time_ms == part.open_time_ms:
            closed[at].merge(part)
            self._mark(closed[at])
        else:
            at = self._insert(at, part)
        # Fillers repeat the close before them, so a changed close runs on through them.
        price = closed[at].close
        for after in closed[at + 1 :]:
            if not after.filled:
                break
            if after.close != price:
                after.flatten(price)
                self._mark(after)
        self._series.run = self._trailing_run()

    def _insert(self, at: int, part: Candle) -> int:
        """A late trade made a candle where none was: before the first one, or in a gap too long to fill."""
        series = self._series
        closed = series.closed
        first_of_all = at == 0 and series.last_final_open_ms < 0
        closed.insert(at, part)
        self._mark(part)
        if not first_of_all:
            return at
        open_time_ms = part.end_ms
        while open_time_ms < closed[at + 1].open_time_ms:
            end_ms = self._interval.next_ms(open_time_ms)
            filler = filled_candle(open_time_ms, end_ms, part.close)
            at += 1
            closed.insert(at, filler)
            self._mark(filler)
            self.outcome.filled += 1
            open_time_ms = end_ms
        return at

    def _mark(self, candle: Candle) -> None:
        if candle.open_time_ms not in self._changed:
            candle.revision += 1
            self._changed[candle.open_time_ms] = candle

    def _trailing_run(self) -> int:
        series = self._series
        run = 0
        for candle in reversed(series.closed):
            if not candle.filled:
                return run
            run += 1
        # All of them filled: those final already count on.
        return max(run, series.run)

    def _tell_revised(self) -> None:
        closed = self._series.closed
        for open_time_ms in sorted(self._changed):
            candle = self._changed[open_time_ms]
            at = bisect_left(closed, open_time_ms, key=_open_time)
            prev = closed[at - 1].open_time_ms if at else self._series.last_final_open_ms
            update = candle.update(self._interval.text, prev, "revised", self._scales)
            self._tell(candle, update)
            self.outcome.revised += 1

    def _close(self, candle: Candle) -> None:
        series = self._series
        update = candle.update(self._interval.text, self._last_closed_open_ms(), "closed", self._scales)
        self._tell(candle, update)
        series.closed.append(candle)
        outcome = self.outcome
        if candle.filled:
            series.run += 1
            outcome.filled += 1
            return
        series.run, series.in_gap = 0, False
        outcome.own_closed += candle.own
        if candle.backfill:
            outcome.backfilled += 1
        else:
            outcome.closed += 1

    def _tell(self, candle: Candle, update: CandleUpdate) -> None:
        self._fresh[candle.open_time_ms] = update
        self.updates.append(update)

    def _fill_to(self, end_ms: int, max_fill: int) -> None:
        series = self._series
        last = series.closed[-1] if series.closed else None
        if last is not None:
            open_time_ms, price = last.end_ms, last.close
        elif series.last_final_open_ms >= 0:
            open_time_ms, price = self._interval.next_ms(series.last_final_open_ms), series.last_final_close
        else:
            return
        while open_time_ms < end_ms and series.run < max_fill:
            next_ms = self._interval.next_ms(open_time_ms)
            self._close(filled_candle(open_time_ms, next_ms, price))
            open_time_ms = next_ms
        if open_time_ms < end_ms and not series.in_gap:
            series.in_gap = True
            self.outcome.gaps += 1

    def _finalise_before(self, end_ms: int) -> None:
        """Make final what ends at or before ``end_ms``."""
        series = self._series
        closed = series.closed
        count = 0
        while count < len(closed) and closed[count].end_ms <= end_ms:
            candle = closed[count]
            told = self._fresh.get(candle.open_time_ms)
            if told is None:
                prev = closed[count - 1].open_time_ms if count else series.last_final_open_ms
                told = candle.update(self._interval.text, prev, "final", self._scales)
                self.updates.append(told)
            told.final = True
            count += 1
        if count:
            last = closed[count - 1]
            series.last_final_open_ms, series.last_final_close = last.open_time_ms, last.close
            series.final_to_ms = max(series.final_to_ms, last.end_ms)
            del closed[:count]
