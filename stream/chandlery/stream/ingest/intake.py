"""The outlet that sources push into: counts, queues by symbol, wakes the dispatcher."""

from __future__ import annotations

from collections.abc import Mapping

from chandlery.stream.ingest.clock import Clock
from chandlery.stream.ingest.counts import Counts
from chandlery.stream.ingest.dispatch import CAP_TRADES, Dispatcher
from chandlery.stream.ingest.packer import Lane
from chandlery.stream.ingest.source import Trades


class Intake:
    """Implements :class:`chandlery.stream.ingest.source.Outlet`.

    Args:
        cap_trades: above so many waiting trades, further ones are dropped and counted (reason ``buffer``).
    """

    def __init__(
        self,
        lanes: Mapping[str, Lane],
        dispatcher: Dispatcher,
        counts: Counts,
        clock: Clock,
        cap_trades: int = CAP_TRADES,
    ) -> None:
        self._lanes = lanes
        self._dispatcher = dispatcher
        self._counts = counts
        self._clock = clock
        self._cap_trades = cap_trades

    def trades(self, batch: Trades) -> None:
        """Take trades."""
        count = len(batch.id)
        full = self._dispatcher.waiting_trades + count > self._cap_trades
        self._counts.received += count
        symbol = self._counts.symbols[batch.symbol]
        symbol.trades += count
        symbol.ids.take(batch.id)
        symbol.last_price, symbol.price_scale = batch.price[-1], batch.price_scale
        if full:
            self._counts.dropped["buffer"] += count
            return
        lane = self._lanes[batch.symbol]
        self._dispatcher.wake(lane, urgent=lane.add(batch))

    def heartbeat(self, symbol: str, exchange_ms: int, *, last: bool = False) -> None:
        """Move a silent symbol's watermark."""
        lane = self._lanes[symbol]
        if lane.hint(exchange_ms, self._clock.monotonic_ns(), last=last):
            self._dispatcher.wake(lane, urgent=lane.closes_by(exchange_ms))

    def silent_ns(self, symbol: str) -> int:
        """Monotonic ns since this symbol last had a record queued."""
        return self._clock.monotonic_ns() - self._lanes[symbol].queued_ns

    async def room(self) -> None:
        """Return when there is room to push more."""
        await self._dispatcher.room()
