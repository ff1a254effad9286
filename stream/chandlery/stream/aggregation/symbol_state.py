"""The state of one symbol, and what a record does to it."""

from __future__ import annotations

from chandlery.core.errors import InputError
from chandlery.core.intervals import Interval, parse_interval
from chandlery.core.wire import BackfillRecord, InputRecord, LateRecord, Opening, TradesRecord
from chandlery.stream.aggregation.candle import BEFORE_ALL, Candle
from chandlery.stream.aggregation.emission import Collector, Emission
from chandlery.stream.aggregation.plan import AggregationPlan
from chandlery.stream.aggregation.seen_ids import SeenIds
from chandlery.stream.aggregation.series import Outcome, SeriesState, SeriesStep
from chandlery.stream.aggregation.snapshot import (
    VERSION,
    CandleCounts,
    Counts,
    Dropped,
    Snapshot,
    decode_snapshot,
    encode_snapshot,
)
from chandlery.stream.aggregation.trades import (
    MAX_SCALE,
    MAX_TIME_MS,
    Batch,
    ascending,
    fault_of,
    fresh_trades,
    roll_up,
    slice_batch,
)


class SymbolState:
    """Candles, counts and seen ids of one symbol.

    A record's trades are taken first, then its watermark. A trade is late when the candle it belongs to, in
    any interval built straight from trades, is final; what is late there is late everywhere, so that a long
    candle is always the sum of its short ones.
    """

    __slots__ = ("_plan", "_saved")

    def __init__(self, symbol: str, plan: AggregationPlan) -> None:
        self._plan = plan
        self._saved = Snapshot(VERSION, symbol)
        self._begin(-1)

    @classmethod
    def decode(cls, data: bytes, plan: AggregationPlan) -> SymbolState:
        """Restore a saved state, under a plan that may have other intervals than when it was saved.

        Raises:
            InvariantError: not a saved state, or of another version.
        """
        state = cls.__new__(cls)
        state._plan = plan
        state._saved = decode_snapshot(data)
        state._fit_plan()
        return state

    def encode(self) -> bytes:
        """The state as bytes; equal states give equal bytes."""
        return encode_snapshot(self._saved)

    @property
    def symbol(self) -> str:
        return self._saved.symbol

    @property
    def session(self) -> int:
        """The newest session seen, -1 before the first record."""
        return self._saved.session

    @property
    def watermark_ms(self) -> int:
        """-1 for none yet."""
        return self._saved.watermark_ms

    @property
    def seq(self) -> int:
        """Number of the last emission in this session."""
        return self._saved.seq

    @property
    def counts(self) -> Counts:
        return self._saved.counts

    @property
    def candle_counts(self) -> CandleCounts:
        return self._saved.candles

    @property
    def dropped(self) -> Dropped:
        return self._saved.dropped

    @property
    def applied_offset(self) -> int:
        """Offset of the newest record applied, -1 for none; the caller sets it."""
        return self._saved.applied_offset

    @applied_offset.setter
    def applied_offset(self, offset: int) -> None:
        self._saved.applied_offset = offset

    def apply(self, record: InputRecord) -> Emission:
        """Take one record in.

        Returns:
            What to append to the output topics. With ``dead`` set the record is unusable: its trades are
            counted ``dead`` and nothing else changed.
        """
        if isinstance(record, TradesRecord):
            return self._apply_trades(record)
        if isinstance(record, BackfillRecord):
            return self._apply_backfill(record)
        return self._apply_opening(record)

    def count_dead(self, trades: int) -> None:
        """Count a record that can't be used, with its trades."""
        self._saved.counts.received += trades
        self._saved.counts.dead += trades
        self._saved.dropped.records += 1

    def count_unreadable(self) -> None:
        """Count a record that can't be used and whose number of trades, if it has any, nobody can tell: as one."""
        self.count_dead(1)
        self._saved.counts.unreadable += 1

    def _apply_opening(self, record: Opening) -> Emission:
        self._enter(record.session, 0)
        return Emission()

    def _apply_trades(self, record: TradesRecord) -> Emission:
        fault = fault_of(record)
        if fault:
            self.count_dead(max(len(record.id), len(record.time_ms), len(record.price), 1))
            return Emission(dead=fault)
        if not self._enter(record.session, len(record.id)):
            return Emission()
        saved = self._saved
        counts = saved.counts
        late = None
        batch = fresh_trades(record, saved.seen)
        counts.received += len(record.id)
        counts.duplicate += len(record.id) - len(batch)
        if batch:
            final_to_ms = max(saved.series[step.interval.text].final_to_ms for step in self._plan.bases)
            if batch.time_ms[0] < final_to_ms:
                old, batch = batch.split_before(final_to_ms)
                counts.late += len(old)
                late = self._late_record(record, old)
        if batch:
            factors = self._fit_scales(record.price_scale, record.quantity_scale)
            batch = batch.scaled(*factors)
        saved.watermark_ms = max(saved.watermark_ms, record.watermark_ms)
        steps = self._steps()
        self._distribute(batch, steps)
        return self._finish(steps, late)

    def _apply_backfill(self, record: BackfillRecord) -> Emission:
        fault, interval = _backfill_fault(record)
        if fault or interval is None:
            self.count_unreadable()
            return Emission(dead=fault)
        if not self._enter(record.session, 0):
            return Emission()
        if interval.text not in self._saved.series:
            self._saved.dropped.history += len(record.open_time_ms)
            return Emission()
        price_factor, quantity_factor = self._fit_scales(record.price_scale, record.quantity_scale)
        steps = self._steps()
        step = next(each for plan, each in zip(self._plan.steps, steps, strict=True) if plan.interval == interval)
        last = len(record.open_time_ms) - 1
        for at, open_time_ms in enumerate(record.open_time_ms):
            row = _history_candle(record, at, open_time_ms, interval.next_ms(open_time_ms))
            row.rescale(price_factor, quantity_factor)
            if record.forming and at == last:
                step.seed(row)
            elif not step.add_history(row):
                self._saved.dropped.history += 1
        return self._finish(steps, None)

    def _enter(self, session: int, trades: int) -> bool:
        """Whether a record of ``session`` is to be taken; a higher session begins afresh."""
        saved = self._saved
        if session < saved.session:
            saved.dropped.session += 1
            saved.dropped.session_trades += trades
            return False
        if session > saved.session:
            # What couldn't be used before the first session belongs to it.
            before = saved.counts if saved.session < 0 else Counts()
            self._begin(session)
            saved.counts = Counts(received=before.dead, dead=before.dead, unreadable=before.unreadable)
        return True

    def _begin(self, session: int) -> None:
        saved = self._saved
        saved.session = session
        saved.watermark_ms = -1
        saved.seq = 0
        saved.price_scale = saved.quantity_scale = 0
        saved.counts, saved.candles, saved.seen = Counts(), CandleCounts(), SeenIds()
        saved.series = {step.interval.text: SeriesState() for step in self._plan.steps}

    def _fit_plan(self) -> None:
        """Take up the plan's intervals: those new to the state begin at the watermark, others are forgotten."""
        saved = self._saved
        names = [step.interval.text for step in self._plan.steps]
        if list(saved.series) == names:
            return
        shortest = next(iter(saved.series), "")
        saved.series = {name: saved.series.get(name) or self._late_series(name) for name in names}
        if names[0] != shortest:
            # The counts are kept at the shortest interval: what isn't in an open candle there is counted.
            total = saved.counts.counted + saved.counts.open
            saved.counts.open = sum(candle.own for candle in saved.series[names[0]].open)
            saved.counts.counted = total - saved.counts.open

    def _late_series(self, name: str) -> SeriesState:
        watermark_ms = self._saved.watermark_ms
        if watermark_ms < 0:
            return SeriesState()
        interval = parse_interval(name)
        start_ms = interval.floor_ms(watermark_ms)
        return SeriesState(closed_to_ms=start_ms, boundary_ms=interval.next_ms(start_ms), final_to_ms=start_ms)

    def _fit_scales(self, price_scale: int, quantity_scale: int) -> tuple[int, int]:
        """Widen the state's scales if needed; the factors that bring the record's integers to them."""
        saved = self._saved
        price_up = 10 ** max(0, price_scale - saved.price_scale)
        quantity_up = 10 ** max(0, quantity_scale - saved.quantity_scale)
        if price_up != 1 or quantity_up != 1:
            for series in saved.series.values():
                for candle in (*series.open, *series.closed):
                    candle.rescale(price_up, quantity_up)
                series.last_final_close *= price_up
            saved.price_scale = max(saved.price_scale, price_scale)
            saved.quantity_scale = max(saved.quantity_scale, quantity_scale)
        return 10 ** (saved.price_scale - price_scale), 10 ** (saved.quantity_scale - quantity_scale)

    def _steps(self) -> list[SeriesStep]:
        saved = self._saved
        scales = (saved.price_scale, saved.quantity_scale)
        return [SeriesStep(step.interval, saved.series[step.interval.text], scales) for step in self._plan.steps]

    def _distribute(self, batch: Batch, steps: list[SeriesStep]) -> None:
        """Bring the trades, those of them that aren't late, into every interval."""
        if not batch:
            return
        counts = self._saved.counts
        built: list[list[Candle]] = []
        for plan in self._plan.steps:
            from_trades = plan.parent < 0
            parts = slice_batch(batch, plan.interval) if from_trades else roll_up(built[plan.parent], plan.interval)
            built.append(parts)
        counted = 0
        for index, step in enumerate(steps):
            for part in built[index]:
                into_closed = step.add(part)
                if index == 0:
                    counted += into_closed
        counts.counted += counted
        counts.open += len(batch) - counted

    def _finish(self, steps: list[SeriesStep], late: LateRecord | None) -> Emission:
        saved = self._saved
        plan = self._plan
        collector = Collector()
        for planned, step in zip(plan.steps, steps, strict=True):
            step.advance(saved.watermark_ms, plan.lateness_ms, plan.max_fill_candles)
            (collector.fast if planned.interval.is_fast else collector.closed).extend(step.updates)
            forming = step.forming_update()
            if forming is not None:
                collector.live.append(forming)
            self._count(step.outcome)
        counts = saved.counts
        closed = steps[0].outcome.own_closed
        counts.counted += closed
        counts.open -= closed
        packed, saved.seq = collector.pack(saved.symbol, saved.session, saved.seq)
        return Emission(packed, late)

    def _count(self, outcome: Outcome) -> None:
        candles = self._saved.candles
        candles.closed += outcome.closed
        candles.revised += outcome.revised
        candles.filled += outcome.filled
        candles.gaps += outcome.gaps
        candles.backfilled += outcome.backfilled
        self._saved.dropped.covered += outcome.covered

    def _late_record(self, record: TradesRecord, late: Batch) -> LateRecord:
        return LateRecord(
            record.symbol,
            record.session,
            self._saved.watermark_ms,
            record.price_scale,
            record.quantity_scale,
            late.id,
            late.time_ms,
            late.price,
            late.quantity,
        )


def _backfill_fault(record: BackfillRecord) -> tuple[str, Interval | None]:
    """What makes a history record unusable, or "" and its interval."""
    try:
        interval = parse_interval(record.interval)
    except InputError as error:
        return str(error), None
    times = record.open_time_ms
    columns = (record.open, record.high, record.low, record.close, record.volume, record.trades)
    if any(len(column) != len(times) for column in columns):
        return f"columns of unequal length: {len(times)} open_time_ms, " + ", ".join(
            str(len(column)) for column in columns
        ), None
    if not (0 <= record.price_scale <= MAX_SCALE and 0 <= record.quantity_scale <= MAX_SCALE):
        return f"scales {record.price_scale}, {record.quantity_scale} are not within 0 … {MAX_SCALE}", None
    if not ascending(times):
        return "open_time_ms isn't ascending", None
    if times and (times[0] < 0 or times[-1] > MAX_TIME_MS):
        return f"open_time_ms from {times[0]} to {times[-1]} are no times", None
    for time_ms in times:
        if interval.floor_ms(time_ms) != time_ms:
            return f"open_time_ms {time_ms} is not where a {interval} candle opens", None
    return "", interval


def _history_candle(record: BackfillRecord, at: int, open_time_ms: int, end_ms: int) -> Candle:
    return Candle(
        open_time_ms,
        end_ms,
        record.open[at],
        record.high[at],
        record.low[at],
        record.close[at],
        record.volume[at],
        record.trades[at],
        0,
        BEFORE_ALL,
        BEFORE_ALL,
        BEFORE_ALL,
        BEFORE_ALL,
        backfill=True,
    )
