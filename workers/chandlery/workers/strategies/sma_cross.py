"""Crossing of two simple moving averages."""

from __future__ import annotations

from chandlery.workers.candles import Candles
from chandlery.workers.indicators import talib
from chandlery.workers.strategies.crossing import side
from chandlery.workers.strategy import Context, Strategy, parameter


class SmaCross(Strategy):
    """Buys when the fast simple moving average crosses above the slow one, sells when it crosses below."""

    name = "sma-cross"

    fast: int = parameter(10, ge=2, le=500, doc="candles in the fast average")
    slow: int = parameter(30, ge=3, le=800, doc="candles in the slow average")

    def validate(self) -> None:
        if self.fast >= self.slow:
            raise ValueError(f"fast ({self.fast}) must be below slow ({self.slow})")

    @property
    def warmup(self) -> int:
        return self.slow + 1

    def on_candle(self, ctx: Context, candles: Candles) -> None:
        close = candles.close[-(self.slow + 1) :]
        fast = talib.SMA(close, self.fast)
        slow = talib.SMA(close, self.slow)
        before = side(fast[-2], slow[-2], close[-2])
        now = side(fast[-1], slow[-1], close[-1])
        if before <= 0 < now:
            ctx.buy(f"SMA{self.fast} {fast[-1]:.8g} crossed above SMA{self.slow} {slow[-1]:.8g}", rule="cross-up")
        elif before >= 0 > now:
            ctx.sell(f"SMA{self.fast} {fast[-1]:.8g} crossed below SMA{self.slow} {slow[-1]:.8g}", rule="cross-down")
