"""The strategy that ``chandlery perf compare`` runs on both transports: reads a long window, and says what it saw."""

from __future__ import annotations

from chandlery.workers.candles import Candles
from chandlery.workers.strategy import Context, Strategy, parameter


class WindowMean(Strategy):
    """Signals on each candle by which side of the window's mean its close is on: as many decisions as candles."""

    name = "window-mean"
    window: int = parameter(500, ge=2, le=800, doc="candles of the window")

    @property
    def warmup(self) -> int:
        return self.window

    def on_candle(self, ctx: Context, candles: Candles) -> None:
        close = candles.close[-self.window :]
        mean = float(close.mean())
        # The reason tells the window: two that read other candles say something else.
        reason = f"mean of {len(close)}: {mean!r}"
        if close[-1] >= mean:
            ctx.buy(reason, rule="above")
        else:
            ctx.sell(reason, rule="below")
