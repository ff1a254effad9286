"""The source ``synthetic``: seeded markets that trade now, with generated history before."""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from chandlery.core.wire import BackfillRecord
from chandlery.stream.ingest.clock import Clock
from chandlery.stream.ingest.counts import Counts
from chandlery.stream.ingest.options import SyntheticOptions
from chandlery.stream.ingest.source import Outlet, Position, Trades
from chandlery.stream.ingest.synthetic_history import generate_history
from chandlery.stream.ingest.synthetic_path import BLOCK, QUANTITY_SCALE, PricePath

# Timers fire within about 0.1 ms; waking more often than each millisecond only burns the processor.
_SHORTEST_WAIT_S: Final = 0.001
# At high rates, trades of a symbol go in small groups: above this many trades a second in all, waits grow in
# proportion, up to the longest one.
_SINGLE_TRADES_PER_SECOND: Final = 20_000.0
_LONGEST_GROUPING_S: Final = 0.02
# Later than this (the broker was away, the machine slept), the market goes on from now.
_MOST_BEHIND_NS: Final = 1_000_000_000
_CHECKS_PER_HEARTBEAT: Final = 5


class Market:
    """One symbol's trades in time. Pure: the caller says what time it is.

    Args:
        path: its path. skip: trades of the path to leave out (they were acknowledged before a restart).
        begin_ns: wall clock at which trading begins.
    """

    def __init__(self, path: PricePath, skip: int, begin_ns: int) -> None:
        self._path = path
        self._next_id = skip + 1
        self._last_ns = begin_ns
        for _ in range(skip // BLOCK):
            path.next_block()
        self._load(skip % BLOCK)

    def _load(self, at: int) -> None:
        block = self._path.next_block()
        self._due_ns = (self._last_ns + np.cumsum(block.gap_ns[at:])).tolist()
        self._price = block.price[at:].tolist()
        self._quantity = block.quantity[at:].tolist()
        self._maker = block.buyer_maker[at:].tolist()
        self._at = 0

    @property
    def due_ns(self) -> int:
        """Wall clock at which the next trade happens."""
        return int(self._due_ns[self._at])

    def delay(self, by_ns: int) -> None:
        """Let the rest happen later."""
        self._due_ns = [due_ns + by_ns for due_ns in self._due_ns]

    def take(self, symbol: str, now_ns: int) -> Trades | None:
        """The trades that have happened by ``now_ns``, at most one block's; None for none."""
        end = bisect.bisect_right(self._due_ns, now_ns, self._at)
        if end == self._at:
            return None
        part = slice(self._at, end)
        times_ns = self._due_ns[part]
        trades = Trades(
            symbol,
            list(range(self._next_id, self._next_id + len(times_ns))),
            [time_ns // 1_000_000 for time_ns in times_ns],
            self._price[part],
            self._quantity[part],
            self._maker[part],
            self._path.grid.scale,
            QUANTITY_SCALE,
            received_ns=0,
            exchange_ns=times_ns[-1],
        )
        self._next_id += len(times_ns)
        self._at = end
        if end == len(self._due_ns):
            self._last_ns = times_ns[-1]
            self._load(0)
        return trades


class SyntheticSource:
    """Synthetic markets of any number of symbols.

    Args:
        options: see :class:`SyntheticOptions`. symbols: unified symbols. intervals: those that get history.
        history_candles: closed candles of history for each interval, 0 for none.
        session: that of the history's records. A path is fixed by the seed and its symbol's name: a session goes on
            with it after a restart, and a new one begins it again.
        heartbeat_ms: silence after which a symbol's watermark moves without a trade.
    """

    def __init__(
        self,
        options: SyntheticOptions,
        symbols: Sequence[str],
        intervals: Sequence[str],
        history_candles: int,
        session: int,
        heartbeat_ms: int,
        counts: Counts,
        clock: Clock,
    ) -> None:
        self._options = options
        self._symbols = list(symbols)
        self._intervals = list(intervals)
        self._history_candles = history_candles
        self._session = session
        self._heartbeat_ns = heartbeat_ms * 1_000_000
        self._counts = counts
        self._clock = clock
        self._checked_ns = 0
        crowd = len(self._symbols) * options.trades_per_second / _SINGLE_TRADES_PER_SECOND
        self._shortest_wait_s = min(_SHORTEST_WAIT_S * max(1.0, crowd), _LONGEST_GROUPING_S)

    def first_trade_ms(self, symbol: str) -> int | None:
        """Now: a synthetic market trades in the present."""
        return self._clock.wall_ns() // 1_000_000

    def backfill(self, symbol: str) -> Iterator[BackfillRecord]:
        """Generated history up to now."""
        now_ms = self._clock.wall_ns() // 1_000_000
        return generate_history(self._options, self._session, symbol, self._intervals, self._history_candles, now_ms)

    async def run(self, outlet: Outlet, resume: Mapping[str, Position]) -> None:
        """Trade for ever."""
        begin_ns = self._clock.wall_ns()
        markets = {}
        for symbol in self._symbols:
            skip = resume[symbol].count if symbol in resume else 0
            markets[symbol] = Market(PricePath(self._options, symbol), skip, begin_ns)
            await self._clock.sleep(0)
        self._counts.connected = True
        due = [(market.due_ns, symbol) for symbol, market in markets.items()]
        heapq.heapify(due)
        while True:
            now_ns = self._clock.wall_ns()
            if due and now_ns - due[0][0] > _MOST_BEHIND_NS:
                due = self._delay(markets, now_ns - due[0][0])
            self._trade(outlet, markets, due, now_ns)
            self._beat(outlet, now_ns)
            await outlet.room()
            await self._clock.sleep(self._wait_s(due))

    def _wait_s(self, due: Sequence[tuple[int, str]]) -> float:
        wait_ns = self._heartbeat_ns // _CHECKS_PER_HEARTBEAT
        if due:
            wait_ns = min(wait_ns, due[0][0] - self._clock.wall_ns())
        return max(wait_ns / 1e9, self._shortest_wait_s)

    def _delay(self, markets: Mapping[str, Market], by_ns: int) -> list[tuple[int, str]]:
        for market in markets.values():
            market.delay(by_ns)
        due = [(market.due_ns, symbol) for symbol, market in markets.items()]
        heapq.heapify(due)
        return due

    def _trade(self, outlet: Outlet, markets: Mapping[str, Market], due: list[tuple[int, str]], now_ns: int) -> None:
        while due and due[0][0] <= now_ns:
            symbol = due[0][1]
            market = markets[symbol]
            trades = market.take(symbol, now_ns)
            if trades is not None:
                self._counts.frames += len(trades.id)
                trades.frame = self._counts.frames
                trades.received_ns = self._clock.monotonic_ns()
                outlet.trades(trades)
            heapq.heapreplace(due, (market.due_ns, symbol))

    def _beat(self, outlet: Outlet, now_ns: int) -> None:
        """Move the watermark of silent symbols to now: every trade up to now has been pushed."""
        if now_ns - self._checked_ns < self._heartbeat_ns // _CHECKS_PER_HEARTBEAT:
            return
        self._checked_ns = now_ns
        for symbol in self._symbols:
            if outlet.silent_ns(symbol) >= self._heartbeat_ns:
                outlet.heartbeat(symbol, now_ns // 1_000_000)
