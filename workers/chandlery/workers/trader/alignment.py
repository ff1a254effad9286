"""Informative series beside a decision: which of their candles it may see, and which it must wait for."""

from __future__ import annotations

from chandlery.core.intervals import Interval


def newest_visible_ms(informative: Interval, decision_close_ms: int) -> int:
    """Open time of the newest candle of ``informative`` that is closed at the decision's close.

    A candle that closes at that very moment counts: both are closed then, whichever arrives first.

    Args:
        decision_close_ms: close time of the candle decided on (= its successor's open time).
    """
    open_at_close = informative.floor_ms(decision_close_ms)
    return informative.floor_ms(open_at_close - 1)
