"""A strategy of the team's own: in no image, it travels in a ConfigMap."""

from chandlery.workers.strategy import Strategy, parameter


class Breakout(Strategy):
    """Buys when the close leaves the range of the candles before it."""

    name = "breakout"
    period: int = parameter(20, ge=2, le=500, doc="candles in the range")

    @property
    def warmup(self) -> int:
        return self.period + 1

    def on_candle(self, ctx, candles):
        top = candles.high[-self.period - 1 : -1].max()
        if candles.close[-1] > top:
            ctx.buy(reason=f"close {candles.close[-1]:.2f} above {top:.2f}", rule="range")
