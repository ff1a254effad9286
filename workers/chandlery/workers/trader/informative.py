"""The informative series of one trader: aligned without look-ahead, waited for, but not for ever."""

from __future__ import annotations

from chandlery.core.assignment import SeriesRef
from chandlery.core.errors import StrategyError
from chandlery.core.intervals import Interval, parse_interval
from chandlery.workers.candles import Candles
from chandlery.workers.trader.alignment import newest_visible_ms
from chandlery.workers.trader.market import MarketView, SeriesView, Window

#: How long a decision waits, by the wall clock, for the informative row that closes with its candle. Both
#: come from one aggregator within milliseconds; two symbols of two partitions within a heartbeat (0.25 s),
#: and a rebalance of the aggregator is silent for longer than anyone should wait.
PATIENCE_NS = 2_000_000_000


class InformativePending(BaseException):
    """The run can't go on yet. Not an ``Exception``, so that no strategy catches it by mistake."""

    def __init__(self, ref: SeriesRef) -> None:
        super().__init__(f"{ref.symbol} {ref.interval}")
        self.ref = ref


class InformativeSet:
    """Looks informative series up and remembers which ones are not worth waiting for."""

    def __init__(self, refs: list[SeriesRef]) -> None:
        self._refs = refs
        self._intervals: dict[str, Interval] = {ref.interval: parse_interval(ref.interval) for ref in refs}
        self._views: dict[SeriesRef, SeriesView] = {}
        self._given_up: dict[SeriesRef, int] = {}

    def detach(self) -> None:
        """Forget the views: the market has another source."""
        self._views.clear()

    def attach(self, market: MarketView) -> SeriesRef | None:
        """Look up what is not attached; returns one series that isn't there (yet), or None."""
        missing = None
        for ref in self._refs:
            view = self._views.get(ref)
            if view is not None and view.alive:
                continue
            view = market.series(ref.symbol, ref.interval)
            if view is None:
                self._views.pop(ref, None)
                missing = ref
            else:
                self._views[ref] = view
        return missing

    def give_up(self, ref: SeriesRef) -> None:
        """Don't wait for this series again before it has moved on."""
        self._given_up[ref] = self._last_open_ms(ref)

    def _last_open_ms(self, ref: SeriesRef) -> int:
        view = self._views.get(ref)
        return -2 if view is None else view.last_open_time_ms

    def look(self, ref: SeriesRef, decision_close_ms: int, length: int, *, wait: bool) -> Glance:
        """What a decision may see of a series.

        Args:
            decision_close_ms: close time of the candle decided on.
            length: most rows wanted.
            wait: whether to wait for the newest row that may be seen, where it isn't there.

        Raises:
            InformativePending: it isn't there and is worth waiting for.
            StrategyError: the Trader doesn't list the series.
        """
        if ref not in self._refs:
            raise StrategyError(
                f"the strategy reads {ref.interval} of {ref.symbol}: list it under market.informative",
                reason="UnknownInformative",
            )
        expected_ms = newest_visible_ms(self._intervals[ref.interval], decision_close_ms)
        last_ms = self._last_open_ms(ref)
        missing = last_ms < expected_ms
        if missing and wait and self._given_up.get(ref) != last_ms:
            raise InformativePending(ref)
        view = self._views.get(ref)
        if view is None:
            return Glance(_NOTHING, None, None, missing)
        window = view.window(view.find_after(expected_ms), length)
        return Glance(Candles(window), view, window, missing)


class Glance:
    """Candles of an informative series as one run saw them, and how to tell whether they still hold."""

    __slots__ = ("candles", "missing", "view", "window")

    def __init__(self, candles: Candles, view: SeriesView | None, window: Window | None, missing: bool) -> None:
        self.candles = candles
        self.view = view
        self.window = window
        self.missing = missing

    def holds(self) -> bool:
        return self.view is None or self.window is None or self.view.valid(self.window)


_NOTHING = Candles.of(open_time=[], open=[], high=[], low=[], close=[], volume=[], trades=[])
