"""Crossing of MACD and its signal line."""

from __future__ import annotations

from chandlery.workers.candles import Candles
from chandlery.workers.indicators import talib
from chandlery.workers.strategies.crossing import side
from chandlery.workers.strategy import Context, Strategy, parameter


class Macd(Strategy):
    """Buys when the MACD line crosses above its signal line, sells when it crosses below.

    Exponential averages remember everything; after four slow periods what came before weighs e⁻⁸ = 0.03 %.
    """

    name = "macd"

    fast: int = parameter(12, ge=2, le=150, doc="span of the fast exponential average")
    slow: int = parameter(26, ge=3, le=200, doc="span of the slow exponential average")
    signal: int = parameter(9, ge=1, le=100, doc="span of the signal line, an exponential average of MACD")

    def validate(self) -> None:
        if self.fast >= self.slow:
            raise ValueError(f"fast ({self.fast}) must be below slow ({self.slow})")

    @property
    def warmup(self) -> int:
        return 4 * self.slow + self.signal

    def on_candle(self, ctx: Context, candles: Candles) -> None:
        close = candles.close
        line, signal, _ = talib.MACD(close, self.fast, self.slow, self.signal)
        before = side(line[-2], signal[-2], close[-2])
        now = side(line[-1], signal[-1], close[-1])
        spans = f"MACD({self.fast}, {self.slow}, {self.signal})"
        if before <= 0 < now:
            ctx.buy(f"{spans} {line[-1]:.6g} crossed above its signal line {signal[-1]:.6g}", rule="cross-up")
        elif before >= 0 > now:
            ctx.sell(f"{spans} {line[-1]:.6g} crossed below its signal line {signal[-1]:.6g}", rule="cross-down")
