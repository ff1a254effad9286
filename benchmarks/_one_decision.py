"""One decision in a process of its own: reads the series from the segment, calls the strategy, ends.

``python -m benchmarks._one_decision SEGMENT SYMBOL INTERVAL``
"""

from __future__ import annotations

import sys

from benchmarks._fleet import WINDOW
from chandlery.workers.candles import Candles
from chandlery.workers.segment import SegmentReader
from chandlery.workers.strategies.sma_cross import SmaCross
from chandlery.workers.strategy import Context


def decide(path: str, symbol: str, interval: str) -> int:
    """Signals asked for on the newest closed candle."""
    with SegmentReader.open(path) as reader:
        series = reader.series(symbol, interval)
        assert series is not None
        strategy = SmaCross({"fast": 10, "slow": 30})
        context = Context(symbol, interval, strategy.parameters)
        strategy.on_candle(context, Candles(series.window(series.count, WINDOW)))
        return len(context.decisions)


if __name__ == "__main__":
    decide(*sys.argv[1:4])
