"""Mean reversion by the relative strength index."""

from __future__ import annotations

from chandlery.workers.candles import Candles
from chandlery.workers.indicators import talib
from chandlery.workers.strategy import Context, Strategy, parameter


class RsiReversion(Strategy):
    """Buys when the RSI comes back up through the oversold level, sells when it comes down from overbought.

    Wilder's smoothing remembers everything; after eight periods what came before weighs e⁻⁸ = 0.03 %.
    """

    name = "rsi-reversion"

    period: int = parameter(14, ge=2, le=100, doc="candles of Wilder's smoothing")
    oversold: float = parameter(30.0, ge=1, le=50, doc="level below which the market counts as oversold")
    overbought: float = parameter(70.0, ge=50, le=99, doc="level above which it counts as overbought")

    def validate(self) -> None:
        if self.oversold >= self.overbought:
            raise ValueError(f"oversold ({self.oversold:g}) must be below overbought ({self.overbought:g})")

    @property
    def warmup(self) -> int:
        return 8 * self.period + 2

    def on_candle(self, ctx: Context, candles: Candles) -> None:
        before, now = talib.RSI(candles.close, self.period)[-2:]
        if before < self.oversold <= now:
            ctx.buy(
                f"RSI{self.period} back above {self.oversold:g}: {before:.1f} → {now:.1f}",
                strength=_depth(self.oversold - before, self.oversold),
                rule="leaves-oversold",
            )
        elif before > self.overbought >= now:
            ctx.sell(
                f"RSI{self.period} back below {self.overbought:g}: {before:.1f} → {now:.1f}",
                strength=_depth(before - self.overbought, 100 - self.overbought),
                rule="leaves-overbought",
            )


def _depth(excess: float, room: float) -> float:
    """How far into the extreme zone the index had been: 0.5 at its edge, 1 at its end."""
    return 0.5 + 0.5 * min(1.0, max(0.0, float(excess) / room))
