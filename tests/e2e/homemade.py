"""Strategies that are in no image, and how Traders name them: by a ConfigMap ``strategies``."""

from __future__ import annotations

from typing import Final

from tests.e2e.kubectl import Resource

# One that is modest, two that take memory until they are ended, slower or faster, and one that takes its time.
_STRATEGIES: Final = {
    "modest.py": '''
from chandlery.workers.strategy import Strategy, parameter


class EveryNth(Strategy):
    """Buys at every nth candle."""

    name = "every-nth"
    count: int = parameter(2, ge=1, doc="candles")

    @property
    def warmup(self) -> int:
        return 2

    def on_candle(self, ctx, candles):
        if int(candles.open_time[-1]) // 1000 % self.count == 0:
            ctx.buy(reason="its turn", rule="nth")
''',
    "greedy.py": '''
from chandlery.workers.strategy import Strategy

HELD = []


class Greedy(Strategy):
    """Takes 64 MiB at every candle."""

    name = "greedy"

    @property
    def warmup(self) -> int:
        return 2

    def on_candle(self, ctx, candles):
        HELD.append(bytearray(b"x" * (64 << 20)))
''',
    "hoarding.py": '''
from chandlery.workers.strategy import Strategy

HELD = []


class Hoarding(Strategy):
    """Takes 8 MiB at every candle."""

    name = "hoarding"

    @property
    def warmup(self) -> int:
        return 2

    def on_candle(self, ctx, candles):
        HELD.append(bytearray(b"x" * (8 << 20)))
''',
    "deliberate.py": '''
import time

from chandlery.workers.strategy import Strategy


class Deliberate(Strategy):
    """Buys at every candle, and takes most of a second to say so where the candle has just closed."""

    name = "deliberate"

    @property
    def warmup(self) -> int:
        return 2

    def on_candle(self, ctx, candles):
        if time.time() - candles.open_time[-1] / 1000 < 2:
            time.sleep(0.8)
        ctx.buy(reason="at last", rule="slow")
''',
}


def strategies() -> Resource:
    """The ConfigMap."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "strategies"}, "data": _STRATEGIES}


def from_config_map(name: str, key: str) -> Resource:
    """``spec.strategy`` of a Trader that runs one of them.

    Args:
        name: as the strategy calls itself. key: its file.
    """
    return {"name": name, "source": {"configMapRef": {"name": "strategies", "key": key}}}
