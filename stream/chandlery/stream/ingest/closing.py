"""Whether a record closes candles: then everybody who decides on closed candles waits for it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from chandlery.core.intervals import parse_interval


class NextClose:
    """The next time at which a candle of some interval ends.

    Args:
        intervals: those built of the feed, such as ``1s``; none: nothing ever closes.
    """

    def __init__(self, intervals: Iterable[str]) -> None:
        parsed = [parse_interval(text) for text in intervals]
        # An interval's ends are ends of every interval that divides it: one look instead of many.
        self._intervals: Final = [
            each
            for each in parsed
            if not any(other.length_ms < each.length_ms and not each.length_ms % other.length_ms for other in parsed)
        ]
        self._next_ms: float = 0 if self._intervals else float("inf")

    def passes(self, watermark_ms: int) -> bool:
        """Whether a candle ends between the watermark given last and this one (both exchange time, ms).

        True the first time: nothing is known of what came before.
        """
        if watermark_ms < self._next_ms:
            return False
        self._next_ms = min(each.next_ms(each.floor_ms(watermark_ms)) for each in self._intervals)
        return True
