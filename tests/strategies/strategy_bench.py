"""Runs a strategy over columns as a trader would, without a trader."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from chandlery.workers.candles import COLUMNS, Candles
from chandlery.workers.strategy import Context, Decision, Strategy

MINUTE_MS = 60_000


def market(close: Sequence[float] | np.ndarray, seed: int = 0) -> Candles:
    """Candles around the given closes: high and low a random bit away, opens at the close before."""
    values = np.asarray(close, dtype=float)
    rng = np.random.default_rng(seed)
    opens = np.concatenate((values[:1], values[:-1]))
    spread = np.abs(values) * 1e-3 * rng.random(len(values))
    return Candles.of(
        open_time=np.arange(len(values)) * MINUTE_MS,
        open=opens,
        high=np.maximum(opens, values) + spread,
        low=np.minimum(opens, values) - spread,
        close=values,
        volume=rng.random(len(values)),
        trades=rng.integers(1, 50, len(values)),
    )


def walk(rows: int, seed: int, *, start: float = 60_000.0, step: float = 30.0) -> Candles:
    """A random walk on a price grid of 0.01, with some candles without any move."""
    rng = np.random.default_rng(seed)
    moves = rng.normal(0.0, step, rows) * (rng.random(rows) < 0.85)
    return market(np.round(start + np.cumsum(moves), 2), seed)


def part(candles: Candles, begin: int, end: int) -> Candles:
    """Rows [begin, end)."""
    return Candles.of(**{name: getattr(candles, name)[begin:end] for name in COLUMNS})


def decisions(strategy: Strategy, candles: Candles, *, forming: bool = False) -> list[tuple[int, Decision]]:
    """Every decision with the row it was made on, each call seeing exactly ``warmup`` candles."""
    made: list[tuple[int, Decision]] = []
    need = strategy.warmup
    for end in range(need, len(candles) + 1):
        ctx = Context("BTC/USDT", "1m", strategy.parameters, is_forming=forming)
        strategy.on_candle(ctx, part(candles, end - need, end))
        made.extend((end - 1, decision) for decision in ctx.decisions)
    return made
