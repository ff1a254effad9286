"""A batch of new trades in order, and how it is cut into buckets without a loop over trades."""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise
from typing import Final

import msgspec

from chandlery.core.intervals import Interval
from chandlery.core.wire import TradesRecord
from chandlery.stream.aggregation.candle import Candle
from chandlery.stream.aggregation.seen_ids import SeenIds

#: 2200-01-01: later times are nonsense, and would close everything for good.
MAX_TIME_MS: Final = 7_258_118_400_000
#: Decimals beyond this are nonsense: exchanges use 18 at most.
MAX_SCALE: Final = 30


class Batch(msgspec.Struct):
    """Trades ascending by (time, id), prices and quantities at the record's scales, as parallel lists."""

    id: list[int]
    time_ms: list[int]
    price: list[int]
    quantity: list[int]

    def __len__(self) -> int:
        return len(self.id)

    def split_at(self, count: int) -> tuple[Batch, Batch]:
        """The first ``count`` trades, and the others."""
        return self._part(0, count), self._part(count, len(self.id))

    def split_before(self, time_ms: int) -> tuple[Batch, Batch]:
        """The trades before ``time_ms``, and the others."""
        return self.split_at(bisect_left(self.time_ms, time_ms))

    def scaled(self, price_factor: int, quantity_factor: int) -> Batch:
        """The same with prices and quantities multiplied."""
        price = self.price if price_factor == 1 else [each * price_factor for each in self.price]
        quantity = self.quantity if quantity_factor == 1 else [each * quantity_factor for each in self.quantity]
        return Batch(self.id, self.time_ms, price, quantity)

    def _part(self, start: int, stop: int) -> Batch:
        return Batch(self.id[start:stop], self.time_ms[start:stop], self.price[start:stop], self.quantity[start:stop])


def fault_of(record: TradesRecord) -> str:
    """What makes a trades record unusable, in words, or ""."""
    count = len(record.id)
    if not len(record.time_ms) == len(record.price) == len(record.quantity) == count:
        return (
            f"columns of unequal length: {count} id, {len(record.time_ms)} time_ms, "
            f"{len(record.price)} price, {len(record.quantity)} quantity"
        )
    if not -1 <= record.watermark_ms <= MAX_TIME_MS:
        return f"watermark_ms {record.watermark_ms} is no time"
    if not (0 <= record.price_scale <= MAX_SCALE and 0 <= record.quantity_scale <= MAX_SCALE):
        return f"scales {record.price_scale}, {record.quantity_scale} are not within 0 … {MAX_SCALE}"
    if count and (min(record.time_ms) < 0 or max(record.time_ms) > MAX_TIME_MS):
        return f"time_ms from {min(record.time_ms)} to {max(record.time_ms)} are no times"
    if count and min(record.quantity) < 0:
        return f"negative quantity {min(record.quantity)}"
    return ""


def fresh_trades(record: TradesRecord, seen: SeenIds) -> Batch:
    """The trades of a sound record that weren't seen before, in order; ``seen`` then knows them.

    Of two trades with the same id in one record the first counts.
    """
    ids, times = record.id, record.time_ms
    prices, quantities = record.price, record.quantity
    fresh = seen.add_all(ids) if ids else None
    if fresh is not None:
        ids, times = [ids[at] for at in fresh], [times[at] for at in fresh]
        prices, quantities = [prices[at] for at in fresh], [quantities[at] for at in fresh]
    if times == sorted(times) and ids == sorted(ids):
        return Batch(ids, times, prices, quantities)
    order = sorted(range(len(ids)), key=lambda at: (times[at], ids[at]))
    return Batch(
        [ids[at] for at in order],
        [times[at] for at in order],
        [prices[at] for at in order],
        [quantities[at] for at in order],
    )


def slice_batch(batch: Batch, interval: Interval) -> list[Candle]:
    """Cut a batch, not empty, into one part a bucket, ascending."""
    times, prices, quantities, ids = batch.time_ms, batch.price, batch.quantity, batch.id
    count = len(times)
    parts: list[Candle] = []
    start = 0
    while start < count:
        open_time_ms = interval.floor_ms(times[start])
        end_ms = interval.next_ms(open_time_ms)
        if times[-1] < end_ms:
            stop = count
            price, quantity = (prices, quantities) if start == 0 else (prices[start:], quantities[start:])
        else:
            stop = bisect_left(times, end_ms, start)
            price, quantity = prices[start:stop], quantities[start:stop]
        parts.append(
            Candle(
                open_time_ms,
                end_ms,
                price[0],
                max(price),
                min(price),
                price[-1],
                sum(quantity),
                stop - start,
                stop - start,
                times[start],
                ids[start],
                times[stop - 1],
                ids[stop - 1],
            )
        )
        start = stop
    return parts


def roll_up(parts: list[Candle], interval: Interval) -> list[Candle]:
    """Merge parts of a shorter interval, ascending, into parts of one that it divides. The parts stay as they are."""
    rolled: list[Candle] = []
    for part in parts:
        if rolled and part.open_time_ms < rolled[-1].end_ms:
            rolled[-1].merge(part)
        else:
            open_time_ms = interval.floor_ms(part.open_time_ms)
            rolled.append(part.part_of(open_time_ms, interval.next_ms(open_time_ms)))
    return rolled


def ascending(values: list[int]) -> bool:
    """Whether each value is greater than the one before."""
    return all(left < right for left, right in pairwise(values))
