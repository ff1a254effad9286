"""Candles by plain grouping over the whole list of trades: shares no code with what it judges."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from decimal import Decimal
from typing import NamedTuple

from chandlery.core.wire import CandlesRecord, CandleUpdate
from chandlery.stream.aggregation import Emission

LENGTHS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


class Trade(NamedTuple):
    id: int
    time_ms: int
    price: int
    quantity: int


class Row(NamedTuple):
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    trades: int
    filled: bool


def bucket(interval: str, time_ms: int) -> tuple[int, int]:
    """(open, end) of the candle of ``interval`` that has ``time_ms``."""
    count, unit = int(interval[:-1]), interval[-1]
    if unit == "M":
        moment = dt.datetime.fromtimestamp(time_ms / 1000, dt.UTC)
        first = dt.datetime(moment.year, moment.month, 1, tzinfo=dt.UTC)
        after = dt.datetime(moment.year + moment.month // 12, moment.month % 12 + 1, 1, tzinfo=dt.UTC)
        return int(first.timestamp()) * 1000, int(after.timestamp()) * 1000
    if unit == "w":
        moment = dt.datetime.fromtimestamp(time_ms // 86_400_000 * 86_400, dt.UTC)
        start = int((moment - dt.timedelta(days=moment.weekday())).timestamp()) * 1000
        return start, start + 7 * 86_400_000
    length = count * LENGTHS_MS[unit]
    return time_ms - time_ms % length, time_ms - time_ms % length + length


def expected_candles(
    trades: Iterable[Trade], interval: str, closed_to_ms: int, *, price_scale: int = 2, quantity_scale: int = 3
) -> dict[int, Row]:
    """Every candle that ends at or before ``closed_to_ms``, those without trades filled."""
    buckets: dict[int, list[Trade]] = {}
    for trade in trades:
        buckets.setdefault(bucket(interval, trade.time_ms)[0], []).append(trade)
    if not buckets:
        return {}
    price_unit, quantity_unit = Decimal(1).scaleb(-price_scale), Decimal(1).scaleb(-quantity_scale)
    rows: dict[int, Row] = {}
    at = min(buckets)
    while bucket(interval, at)[1] <= closed_to_ms:
        members = sorted(buckets.get(at, []), key=lambda trade: (trade.time_ms, trade.id))
        if members:
            prices = [trade.price * price_unit for trade in members]
            volume = sum((trade.quantity for trade in members), 0) * quantity_unit
            rows[at] = Row(prices[0], max(prices), min(prices), prices[-1], volume, len(members), False)
        else:
            close = list(rows.values())[-1].close
            rows[at] = Row(close, close, close, close, Decimal(0), 0, True)
        at = bucket(interval, at)[1]
    return rows


def row_of(update: CandleUpdate) -> Row:
    return Row(
        Decimal(update.open),
        Decimal(update.high),
        Decimal(update.low),
        Decimal(update.close),
        Decimal(update.volume),
        update.trades,
        update.filled,
    )


class Reader:
    """What a reader of the candle topics knows, after checking that it could follow.

    Attributes:
        closed: newest closed update of each (interval, open time). forming: newest forming one an interval.
    """

    def __init__(self) -> None:
        self.closed: dict[tuple[str, int], CandleUpdate] = {}
        self.forming: dict[str, CandleUpdate] = {}
        self.seqs: dict[str, int] = {}
        self.late: list[Trade] = []

    def read(self, emission: Emission) -> None:
        for destination, record in emission.candles:
            self.read_record(destination, record)
        if emission.late is not None:
            late = emission.late
            self.late += map(Trade, late.id, late.time_ms, late.price, late.quantity)

    def read_record(self, destination: str, record: CandlesRecord) -> None:
        assert record.seq > self.seqs.get(destination, 0), "seq must grow within a topic"
        self.seqs[destination] = record.seq
        for update in record.updates:
            if update.state == "forming":
                assert destination == "live"
                self.forming[update.interval] = update
                continue
            assert destination == ("fast" if update.interval.endswith("s") else "closed")
            self._read_closed(update)

    def _read_closed(self, update: CandleUpdate) -> None:
        key = (update.interval, update.open_time_ms)
        before = self.closed.get(key)
        if update.state == "closed":
            assert before is None, f"closed twice: {key}"
            assert update.revision == 0
            newest = max((at for name, at in self.closed if name == update.interval), default=-1)
            assert update.prev_open_time_ms == newest, f"{key} doesn't follow the candle before it"
            assert update.open_time_ms > newest
        elif update.state == "revised":
            assert not (before and before.final), f"revised after final: {key}"
            assert update.revision == (before.revision if before else 0) + 1
        else:
            assert before is not None
            assert not before.final, f"final twice: {key}"
            assert update.final
            assert (row_of(before), before.revision) == (row_of(update), update.revision), "final says the same again"
        self.closed[key] = update

    def rows(self, interval: str) -> dict[int, Row]:
        return {at: row_of(self.closed[name, at]) for name, at in sorted(self.closed) if name == interval}
