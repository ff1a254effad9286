"""Calls a strategy so that nothing of a run counts unless the data it saw held until its end."""

from __future__ import annotations

from typing import NamedTuple

from chandlery.core.assignment import SeriesRef
from chandlery.workers.candles import Candles
from chandlery.workers.strategy import Context, Decision, Strategy
from chandlery.workers.trader.informative import Glance, InformativeSet
from chandlery.workers.trader.signal_writer import Clock, Ring
from chandlery.workers.trader.symbol_run import SymbolRun


class Outcome(NamedTuple):
    """What a call came to.

    Attributes:
        strategy: the instance with its state after the call; the one before is untouched.
        glances: what it saw of informative series. strategy_ns: time within the strategy.
    """

    strategy: Strategy
    decisions: list[Decision]
    glances: list[Glance]
    strategy_ns: int

    def holds(self) -> bool:
        """Whether no informative series seen was overwritten or revised since."""
        return all(glance.holds() for glance in self.glances)

    @property
    def missing(self) -> int:
        """Informative series that lacked the newest row they should have had."""
        return sum(glance.missing for glance in self.glances)


class Caller:
    """Calls on a copy of the strategy's state, under the eye of the hang watchdog."""

    def __init__(self, ring: Ring, clock: Clock, informative: InformativeSet) -> None:
        self._ring = ring
        self._clock = clock
        self._informative = informative

    def call(self, run: SymbolRun, candles: Candles, *, forming: bool, wait: bool) -> Outcome:
        """One ``on_candle`` on the last of ``candles``.

        Args:
            wait: whether to wait for informative rows that close with the candle.

        Raises:
            InformativePending: one isn't there yet; nothing has happened.
        """
        close_ms = run.interval.next_ms(int(candles.open_time[-1]))
        glances: dict[SeriesRef, Glance] = {}

        def informative(symbol: str, interval: str) -> Candles:
            ref = SeriesRef(symbol, interval)
            if ref not in glances:
                glances[ref] = self._informative.look(ref, close_ms, run.need, wait=wait)
            return glances[ref].candles

        working = run.strategy.fork()
        context = Context(
            run.symbol, run.interval.text, working.parameters, is_forming=forming, informative=informative
        )
        started_ns = self._clock.now_ns()
        self._ring.set("busy_since_ns", started_ns)
        try:
            working.on_candle(context, candles)
        finally:
            self._ring.set("busy_since_ns", 0)
        ended_ns = self._clock.now_ns()
        return Outcome(working, context.decisions, list(glances.values()), ended_ns - started_ns)
