"""A candle in the making: integers at its symbol's scales."""

from __future__ import annotations

from typing import Final

import msgspec

from chandlery.core.wire import CandleState, CandleUpdate, scaled_to_text

#: Order keys of what has no trades of ours: before, and after which, every trade comes.
BEFORE_ALL: Final = -1


class Candle(msgspec.Struct, array_like=True):
    """Trades of one bucket, as far as known.

    ``open`` is the price of the earliest trade by (time, id), ``close`` that of the latest, so that the order
    of arrival doesn't matter and two parts of a candle can be merged in any order.

    Attributes:
        open_time_ms, end_ms: the bucket, end exclusive.
        open, high, low, close: at the symbol's price scale. volume: at its quantity scale.
        trades: trades in it, those of history included. own: trades from our own stream.
        first_time_ms, first_id: order key of ``open``. last_time_ms, last_id: order key of ``close``.
        revision: 0 at the close, + 1 for each revision.
        filled: made up, without trades. backfill: from history, without trades of our own.
    """

    open_time_ms: int
    end_ms: int
    open: int
    high: int
    low: int
    close: int
    volume: int
    trades: int
    own: int
    first_time_ms: int
    first_id: int
    last_time_ms: int
    last_id: int
    revision: int = 0
    filled: bool = False
    backfill: bool = False

    def merge(self, other: Candle) -> None:
        """Add the trades of ``other``, a part of the same bucket with at least one trade."""
        if self.filled:
            self._take(other)
            return
        if (other.first_time_ms, other.first_id) < (self.first_time_ms, self.first_id):
            self.open, self.first_time_ms, self.first_id = other.open, other.first_time_ms, other.first_id
        if (other.last_time_ms, other.last_id) > (self.last_time_ms, self.last_id):
            self.close, self.last_time_ms, self.last_id = other.close, other.last_time_ms, other.last_id
        if other.high > self.high:
            self.high = other.high
        if other.low < self.low:
            self.low = other.low
        self.volume += other.volume
        self.trades += other.trades
        self.own += other.own
        self.backfill = False

    def flatten(self, price: int) -> None:
        """Give a filled candle the close of its predecessor."""
        self.open = self.high = self.low = self.close = price

    def rescale(self, price_factor: int, quantity_factor: int) -> None:
        """Multiply prices and volume."""
        self.open *= price_factor
        self.high *= price_factor
        self.low *= price_factor
        self.close *= price_factor
        self.volume *= quantity_factor

    def part_of(self, open_time_ms: int, end_ms: int) -> Candle:
        """A copy of these trades as part of a longer bucket."""
        return Candle(
            open_time_ms,
            end_ms,
            self.open,
            self.high,
            self.low,
            self.close,
            self.volume,
            self.trades,
            self.own,
            self.first_time_ms,
            self.first_id,
            self.last_time_ms,
            self.last_id,
        )

    def update(
        self, interval: str, prev_open_time_ms: int, state: CandleState, scales: tuple[int, int]
    ) -> CandleUpdate:
        """The wire form, with ``scales`` = (decimals of prices, decimals of volume)."""
        price_scale, quantity_scale = scales
        return CandleUpdate(
            interval,
            self.open_time_ms,
            prev_open_time_ms,
            state,
            self.revision,
            scaled_to_text(self.open, price_scale),
            scaled_to_text(self.high, price_scale),
            scaled_to_text(self.low, price_scale),
            scaled_to_text(self.close, price_scale),
            scaled_to_text(self.volume, quantity_scale),
            self.trades,
            self.filled,
            self.backfill,
        )

    def _take(self, other: Candle) -> None:
        self.open, self.high, self.low, self.close = other.open, other.high, other.low, other.close
        self.volume, self.trades, self.own = other.volume, other.trades, other.own
        self.first_time_ms, self.first_id = other.first_time_ms, other.first_id
        self.last_time_ms, self.last_id = other.last_time_ms, other.last_id
        self.filled = False


def filled_candle(open_time_ms: int, end_ms: int, price: int) -> Candle:
    """A candle without trades that repeats the close before it."""
    return Candle(
        open_time_ms,
        end_ms,
        price,
        price,
        price,
        price,
        0,
        0,
        0,
        BEFORE_ALL,
        BEFORE_ALL,
        BEFORE_ALL,
        BEFORE_ALL,
        filled=True,
    )
