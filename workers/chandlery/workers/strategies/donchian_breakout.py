"""Breakout from a Donchian channel."""

from __future__ import annotations

from chandlery.workers.candles import Candles
from chandlery.workers.indicators import talib
from chandlery.workers.strategy import Context, Strategy, parameter


class DonchianBreakout(Strategy):
    """Buys when the close leaves the highest high of the candles before it, sells below their lowest low.

    A run of breakouts signals once, at its first candle.
    """

    name = "donchian-breakout"

    period: int = parameter(20, ge=1, le=800, doc="candles in the channel, the one decided on not among them")

    @property
    def warmup(self) -> int:
        return self.period + 2

    def on_candle(self, ctx: Context, candles: Candles) -> None:
        rows = self.period + 2
        high, low, close = candles.high[-rows:], candles.low[-rows:], candles.close[-rows:]
        # [-2] is the channel of the last candle (its predecessors), [-3] that of the one before.
        top = (high if self.period == 1 else talib.MAX(high, self.period))[-3:-1]
        bottom = (low if self.period == 1 else talib.MIN(low, self.period))[-3:-1]
        if close[-1] > top[1] and close[-2] <= top[0]:
            ctx.buy(f"close {close[-1]:.8g} above the {self.period}-candle high {top[1]:.8g}", rule="breaks-high")
        elif close[-1] < bottom[1] and close[-2] >= bottom[0]:
            ctx.sell(f"close {close[-1]:.8g} below the {self.period}-candle low {bottom[1]:.8g}", rule="breaks-low")
