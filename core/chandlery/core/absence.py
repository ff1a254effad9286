"""A series that isn't there: what there is instead, and what to change, in few words: they land in a Trader's condition."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from chandlery.core.errors import InputError
from chandlery.core.intervals import parse_interval

#: A segment may hold thousands of symbols; so many are named.
MOST_NAMED: Final = 3
_FEED_ADDS: Final = "its feed adds what a Trader's spec.market asks for"


@dataclass(frozen=True, slots=True)
class Absence:
    """A series that isn't there, and a few that are.

    Attributes:
        symbol, interval: the series looked for.
        intervals: those by which its symbol is there, from short to long, at most MOST_NAMED.
        symbols: where it is there by none, symbols that are, at most MOST_NAMED. more: whether there are others.
    """

    symbol: str
    interval: str
    intervals: list[str] = field(default_factory=list)
    symbols: list[str] = field(default_factory=list)
    more: bool = False

    @classmethod
    def among(cls, symbol: str, interval: str, there: Iterable[tuple[str, str]]) -> Absence:
        """Of a series that isn't among those there.

        Args:
            there: symbol and interval of each.
        """
        names = list(there)
        intervals = sorted({one for held, one in names if held == symbol}, key=_length)
        if intervals:
            return cls(symbol, interval, intervals=intervals[:MOST_NAMED], more=len(intervals) > MOST_NAMED)
        symbols = sorted({held for held, _ in names})
        return cls(symbol, interval, symbols=symbols[:MOST_NAMED], more=len(symbols) > MOST_NAMED)

    def told(self, *, informative: bool = False) -> str:
        """What is there, and what to change; goes on behind "this worker's segment ".

        Args:
            informative: whether the series is one that a Trader reads beside those that it decides on.
        """
        more = ", …" if self.more else ""
        if self.intervals:
            where = "spec.market.informative" if informative else "spec.market.interval"
            held, change = f"{self.symbol} by {', '.join(self.intervals)}{more} only", f"set {where} to one of these"
        elif self.symbols:
            where = "spec.market.informative" if informative else "spec.market.symbols"
            held = f"no {self.symbol}, but {', '.join(self.symbols)}{more}"
            change = f"correct {where}, or add the symbol to the MarketFeed's spec.symbols"
        else:
            held, change = "no series yet", "look at the feed's log"
        return f"holds {held}; {_FEED_ADDS}: if it doesn't, {change}"


def _length(interval: str) -> tuple[int, str]:
    """Sorts from short to long; what is no interval, as in a spoiled file, comes first."""
    try:
        return parse_interval(interval).length_ms, interval
    except InputError:
        return 0, interval
