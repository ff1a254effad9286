"""Calls a strategy so that nothing of a run counts unless the data it saw held until its end."""

from __future__ import annotations

import msgspec

from chandlery.core.assignment import SeriesRef
from chandlery.workers.candles import Candles
from chandlery.workers.strategy import Context, Decision, Strategy
from chandlery.workers.trader.informative import Glance, InformativeSet
from chandlery.workers.trader.signal_writer import Clock, Ring
from chandlery.workers.trader.symbol_run import SymbolRun


class Outcome(msgspec.Struct):
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
        for glance in self.glances:  # noqa: SIM110 -- a generator is one more cold frame on the way of a tick
            if not glance.holds():
                return False
        return True

    def lives(self) -> bool:
        """Whether the informative series seen are still there, in the segment that has them now."""
        return all(glance.view is None or glance.view.alive for glance in self.glances)

    @property
    def missing(self) -> int:
        """Informative series that lacked the newest row they should have had."""
        return sum(glance.missing for glance in self.glances)


class Caller:
    """Calls on a copy of the strategy's state, under the eye of the hang watchdog."""

    def __init__(self, ring: Ring, clock: Clock, informative: InformativeSet) -> None:
        self._busy_since = ring.setter("busy_since_ns")
        self._heartbeat = ring.setter("heartbeat_ns")
        self._now_ns = clock.now_ns
        self._informative = informative

    def call(self, run: SymbolRun, candles: Candles, *, forming: bool, wait: bool) -> Outcome:
        """One ``on_candle`` on the last of ``candles``.

        Args:
            wait: whether to wait for informative rows that close with the candle.

        Raises:
            InformativePending: one isn't there yet; nothing has happened.
        """
        glances: dict[SeriesRef, Glance] = {}

        def informative(symbol: str, interval: str) -> Candles:
            ref = SeriesRef(symbol, interval)
            if ref not in glances:
                close_ms = run.interval.next_ms(int(candles.open_time[-1]))
                glances[ref] = self._informative.look(ref, close_ms, run.need, wait=wait)
            return glances[ref].candles

        working = run.working_copy()
        context = Context(
            run.symbol, run.interval.text, working.parameters, is_forming=forming, informative=informative
        )
        started_ns = self._now_ns()
        self._busy_since(started_ns)
        try:
            working.on_candle(context, candles)
        finally:
            # A turn may hold many calls, none of them long: each is a sign of life, told before "in no call" is.
            ended_ns = self._now_ns()
            self._heartbeat(ended_ns)
            self._busy_since(0)
        return Outcome(working, context.decisions, list(glances.values()), ended_ns - started_ns)
