"""Breakout from Bollinger bands."""

from __future__ import annotations

import numpy as np

from chandlery.workers.candles import Candles
from chandlery.workers.indicators import talib
from chandlery.workers.strategies.crossing import side
from chandlery.workers.strategy import Context, Strategy, parameter


class BollingerBreakout(Strategy):
    """Buys when the close breaks out above the upper Bollinger band, sells when below the lower one."""

    name = "bollinger-breakout"

    period: int = parameter(20, ge=2, le=400, doc="candles in mean and deviation")
    deviations: float = parameter(2.0, ge=0.5, le=5, doc="width of the band, in standard deviations (population)")

    @property
    def warmup(self) -> int:
        return self.period + 1

    def on_candle(self, ctx: Context, candles: Candles) -> None:
        close = candles.close[-(self.period + 1) :]
        # TA-Lib's variance is E[x²] - E[x]², which drowns in rounding at large prices: centre them first.
        centre = close[0]
        centred = close - centre
        upper, _, lower = talib.BBANDS(centred, self.period, self.deviations, self.deviations)
        width = float(np.ptp(centred)) or 1.0
        above = [side(centred[at], upper[at], width) for at in (-2, -1)]
        below = [side(centred[at], lower[at], width) for at in (-2, -1)]
        band = f"Bollinger band ({self.period}, {self.deviations:g})"
        if above[0] <= 0 < above[1]:
            ctx.buy(f"close {close[-1]:.8g} above the upper {band} {upper[-1] + centre:.8g}", rule="breaks-upper")
        elif below[0] >= 0 > below[1]:
            ctx.sell(f"close {close[-1]:.8g} below the lower {band} {lower[-1] + centre:.8g}", rule="breaks-lower")
