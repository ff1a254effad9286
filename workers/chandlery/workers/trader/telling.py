"""What a trader says of itself: to its supervisor, in a few words, and in its ring, in numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from chandlery.core.assignment import SeriesRef, TraderAssignment, TraderState
from chandlery.workers.trader.market import MarketView
from chandlery.workers.trader.messages import STATE_CODES, StateReport
from chandlery.workers.trader.signal_writer import Clock, Ring

#: How long words on a missing series stay as they are. What there is instead takes a look at every series, 1 ms for some
#: hundred, and a trader that waits has 20 turns a second.
LOOK_AGAIN_NS: Final = 5_000_000_000


class Telling:
    """Tells of each change, and again while it isn't heard.

    Args:
        report: told of every change of state, again while it returns False.
    """

    def __init__(
        self, market: MarketView, ring: Ring, clock: Clock, code: str, report: Callable[[StateReport], bool]
    ) -> None:
        self._market = market
        self._ring = ring
        self._clock = clock
        self._code = code
        self._report = report
        self._told: StateReport | None = None
        self._missing: SeriesRef | None = None
        self._words = ""
        self._looked_ns = 0

    def anew(self) -> None:
        """Tell once more, whether or not anything has changed."""
        self._told = None

    def tell(
        self,
        state: TraderState,
        spec: TraderAssignment,
        *,
        have: int,
        need: int,
        missing: SeriesRef | None,
        orders: int,
    ) -> None:
        """Tell, if that is news.

        Args:
            have, need: closed candles that there are and that a call needs. missing: a series that isn't there.
            orders: number of what the trader has been told with ``spec``.
        """
        # Of one that has all its series, turn after turn, there is nothing to look up.
        quiet = missing is None and state != "Init" and self._missing is None
        message = "" if quiet else self._message(state, spec, missing)
        told = StateReport(state, spec.generation, spec.incarnation, self._code, have, need, message, orders)
        if told != self._told:
            self._ring.set("state", STATE_CODES[state])
            self._ring.set("warm_have", have)
            self._ring.set("warm_need", need)
            if self._report(told):
                self._told = told

    def _message(self, state: TraderState, spec: TraderAssignment, missing: SeriesRef | None) -> str:
        trouble = self._market.trouble
        if missing is None or trouble:
            self._missing = None
        if state == "Init" and trouble:
            return trouble
        if missing is None:
            return ""
        name = f"{missing.symbol} {missing.interval}"
        said = f"waits for series {name}" if state == "Init" else f"series {name} is gone"
        return said if trouble else said + self._instead(spec, missing)

    def _instead(self, spec: TraderAssignment, missing: SeriesRef) -> str:
        """What the worker's segment holds instead; made anew for another series, and every LOOK_AGAIN_NS."""
        now_ns = self._clock.now_ns()
        if missing != self._missing or now_ns - self._looked_ns >= LOOK_AGAIN_NS:
            absence = self._market.absence(missing.symbol, missing.interval)
            if absence is None:  # asked again at once: it costs nothing
                self._missing = None
                return ""
            own = missing.interval == spec.interval and missing.symbol in spec.symbols
            self._words = f": this worker's segment {absence.told(informative=not own)}"
            self._missing, self._looked_ns = missing, now_ns
        return self._words
