"""The source ``replay``: recorded markets at their own pace, N times that, or as fast as it goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from chandlery.core.symbols import exchange_symbol
from chandlery.core.wire import BackfillRecord
from chandlery.stream.ingest.captures import Captured, Reading, UnnumberedTrade, check_files, read_captures
from chandlery.stream.ingest.clock import Clock
from chandlery.stream.ingest.counts import Counts
from chandlery.stream.ingest.frames import MalformedFrame, OtherFrame, TradeAmounts, TradeEvent, read_amounts
from chandlery.stream.ingest.options import ReplayOptions
from chandlery.stream.ingest.source import Outlet, Position, Trades
from chandlery.stream.ingest.watermark import MARGIN_MS

# A wait shorter than this costs more than it orders: timers fire about 0.1 ms late.
_SHORTEST_WAIT_NS: Final = 500_000
# At full speed, the loop gets its turn after so many frames (about 2 ms) or trades.
_SLICE_FRAMES: Final = 1_000
_SLICE_TRADES: Final = 500
_CHECKS_PER_HEARTBEAT: Final = 5
# Behind the pace by more than this (the broker was away), the recording goes on from where it is.
_MOST_BEHIND_NS: Final = 1_000_000_000


@dataclass(slots=True)
class _Line:
    """Recorded moments in step with the clock.

    Attributes:
        recorded_ns, origin_ns: a recorded moment, and when it was due. newest_ns: newest recorded moment so far.
    """

    recorded_ns: int
    origin_ns: int
    newest_ns: int


class Pace:
    """When a recorded moment is due. Pure.

    A moment that lies before the newest one is due at once, and those that go on from it keep the pace among
    themselves: a recording may begin again at earlier times, as two that were joined in one file do. It holds up
    none after the newest one, as single moments out of order would if all were paced by the last of them.

    Args:
        speed: 1 for the recorded pace, N for N times that, None for at once.
    """

    def __init__(self, speed: float | None) -> None:
        self._speed = speed
        self._line: _Line | None = None
        # The one that was left for earlier moments, until these have come past its newest one.
        self._left: _Line | None = None

    def wait_ns(self, recorded_ns: int, now_ns: int) -> int:
        """Nanoseconds until the recorded moment is due, 0 if it is already."""
        if self._speed is None:
            return 0
        if self._left is not None and recorded_ns >= self._left.newest_ns:
            self._line, self._left = self._left, None
        if self._line is None:
            self._line = _Line(recorded_ns, now_ns, recorded_ns)
        line = self._line
        wait = line.origin_ns + int((recorded_ns - line.recorded_ns) / self._speed) - now_ns
        if wait < -_MOST_BEHIND_NS:
            if recorded_ns < line.newest_ns and self._left is None:
                self._left = line
            self._line = line = _Line(recorded_ns, now_ns, recorded_ns)
        line.newest_ns = max(line.newest_ns, recorded_ns)
        return max(wait, 0)


class _Moves:
    """What a repeated recording adds to times and ids, so that each pass goes on where the last one ended."""

    # Between the last moment of a pass and the first of the next.
    _PAUSE_MS: Final = 1_000

    def __init__(self) -> None:
        self._shift_ms = 0
        self._id_shift: dict[str, int] = {}
        self._first_ms: int | None = None
        self._last_ms = 0
        self._ids: dict[str, tuple[int, int]] = {}

    def begin_again(self) -> bool:
        """Move on by one pass; False where the recording had nothing."""
        if self._first_ms is None:
            return False
        self._shift_ms += self._last_ms - self._first_ms + self._PAUSE_MS
        for symbol, (low, high) in self._ids.items():
            self._id_shift[symbol] = self._id_shift.get(symbol, 0) + high - low + 1
        return True

    def time_ms(self, recorded_ms: int) -> int:
        """A recorded exchange time (0: none) as it is in this pass."""
        if not recorded_ms:
            return 0
        self._last_ms = max(self._last_ms, recorded_ms)
        if self._first_ms is None or recorded_ms < self._first_ms:
            self._first_ms = recorded_ms
        return recorded_ms + self._shift_ms

    def time_ns(self, recorded_ns: int) -> int:
        """A recorded receive time as it is in this pass."""
        return recorded_ns + self._shift_ms * 1_000_000

    def move(self, symbol: str, trade: TradeEvent) -> None:
        """Write a trade's times and id as they are in this pass."""
        low, high = self._ids.get(symbol, (trade.t, trade.t))
        self._ids[symbol] = (min(low, trade.t), max(high, trade.t))
        trade.t += self._id_shift.get(symbol, 0)
        trade.E = self.time_ms(trade.E)
        trade.T = self.time_ms(trade.T)


class ReplaySource:
    """Recorded trades, re-stamped with the present; the recorded clock skew is kept apart.

    Args:
        options: see :class:`ReplayOptions`. symbols: unified symbols; trades of others are skipped, counted.
        heartbeat_ms: period of heartbeats, in recorded time (times the speed, where that is more than 1).

    Raises:
        InputError: a file is absent or of no known kind.
    """

    def __init__(
        self, options: ReplayOptions, symbols: Sequence[str], heartbeat_ms: int, counts: Counts, clock: Clock
    ) -> None:
        self._options = options
        self._symbols = list(symbols)
        self._unified = {exchange_symbol(symbol): symbol for symbol in symbols} | {symbol: symbol for symbol in symbols}
        self._files = check_files(options.files, self._symbols)
        self._counts = counts
        self._clock = clock
        speed = None if options.speed == "max" else float(options.speed)
        self._pace = Pace(speed)
        self._heartbeat_ns = int(heartbeat_ms * 1_000_000 * max(1.0, speed or 1.0))
        self._slice: list[Trades] = []
        self._open: dict[str, Trades] = {}
        self._slice_trades = 0
        self._skip: dict[str, int] = {}
        self._marked_ns = dict.fromkeys(self._symbols, 0)
        self._recorded_ns = 0
        self._checked_ns = 0
        self._newest_ms = 0
        self._frame = 0
        self._moves = _Moves()
        self._last_ids: dict[str, int] = {}
        self._seen: set[str] = set()
        self._reading = Reading(self._files)
        counts.replayed = None if options.loop else 0.0

    def first_trade_ms(self, symbol: str) -> int | None:
        """Time of the recording's first trade of a symbol."""
        for _, frame in read_captures(self._files):
            if isinstance(frame, TradeEvent) and self._unified.get(frame.s) == symbol:
                return frame.T
        return None

    def backfill(self, symbol: str) -> Iterator[BackfillRecord]:
        """Recordings bring no history of their own."""
        return iter(())

    async def run(self, outlet: Outlet, resume: Mapping[str, Position]) -> None:
        """Push the recording, from where each symbol was acknowledged; ends with it."""
        self._skip = {symbol: position.count for symbol, position in resume.items() if position.count}
        self._counts.connected = True
        await self._play(outlet)
        # Captures name their symbols frame by frame: which ones aren't there is known at their end.
        self._counts.unknown_symbols.update(set(self._symbols) - self._seen)
        while self._options.loop and self._moves.begin_again():
            await self._play(outlet)
        for symbol in self._symbols:
            outlet.heartbeat(symbol, self._newest_ms, last=True)
        self._counts.connected = False

    async def _play(self, outlet: Outlet) -> None:
        self._recorded_ns = 0
        self._last_ids.clear()
        try:
            await self._read(outlet)
        finally:
            # A file that breaks off midway ends the run, not what was read before.
            self._push(outlet)
        await outlet.room()

    async def _read(self, outlet: Outlet) -> None:
        slice_frames = 0
        for captured in read_captures(self._files, self._reading):
            if captured[0]:  # else nothing before it in its file has a time either: it is due at once
                recorded_ns = self._moves.time_ns(captured[0])
                # Trades that were acknowledged before a restart are passed over at full speed.
                wait_ns = 0 if self._skip else self._pace.wait_ns(recorded_ns, self._clock.monotonic_ns())
                if wait_ns > _SHORTEST_WAIT_NS:
                    self._push(outlet)
                    await self._clock.sleep(wait_ns / 1e9)
                self._recorded_ns = recorded_ns
            self._take(captured)
            slice_frames += 1
            if slice_frames >= _SLICE_FRAMES or self._slice_trades >= _SLICE_TRADES:
                slice_frames = 0
                self._push(outlet)
                await outlet.room()
                await self._clock.sleep(0)

    def _take(self, captured: Captured) -> None:
        received_ns, frame = captured
        self._frame += 1
        self._counts.frames += 1
        if isinstance(frame, TradeEvent):
            self._take_trade(received_ns, frame)
        elif isinstance(frame, OtherFrame):
            self._counts.skipped_frames[frame.kind] += 1
            self._newest_ms = max(self._newest_ms, self._moves.time_ms(frame.exchange_ms))
        else:
            self._counts.malformed[frame.reason] += 1

    def _take_trade(self, received_ns: int, trade: TradeEvent) -> None:
        symbol = self._unified.get(trade.s)
        if symbol is None:
            self._counts.skipped_frames["other-symbol"] += 1
            return
        # Also where none of its trades can be used: those are counted as malformed, the symbol is there.
        self._seen.add(symbol)
        amounts = read_amounts(trade)
        if isinstance(amounts, MalformedFrame):
            self._counts.malformed[amounts.reason] += 1
            return
        skew_ns = received_ns - trade.T * 1_000_000
        self._number(symbol, trade)
        self._moves.move(symbol, trade)
        self._newest_ms = max(self._newest_ms, trade.E)
        if self._passed_over(symbol):
            return
        batch = self._batch_for(symbol, amounts, trade.m is not None)
        batch.id.append(trade.t)
        batch.time_ms.append(trade.T)
        batch.price.append(amounts.price)
        batch.quantity.append(amounts.quantity)
        if trade.m is not None:
            batch.buyer_maker.append(int(trade.m))
        batch.recorded_skew_ns = skew_ns
        batch.frame = self._frame
        self._slice_trades += 1

    def _number(self, symbol: str, trade: TradeEvent) -> None:
        """Give a trade that has no id the one after the symbol's highest, whichever files they are from.

        In the order in which the files are merged, and afresh in each pass: a restart finds the same ids.
        """
        last_id = self._last_ids.get(symbol, 0)
        if isinstance(trade, UnnumberedTrade):
            trade.t = last_id + 1
        self._last_ids[symbol] = max(last_id, trade.t)

    def _passed_over(self, symbol: str) -> bool:
        left = self._skip.get(symbol)
        if left is None:
            return False
        if left == 1:
            del self._skip[symbol]
        else:
            self._skip[symbol] = left - 1
        return True

    def _batch_for(self, symbol: str, amounts: TradeAmounts, maker_known: bool) -> Trades:
        """The slice's open batch of a symbol, or a new one where decimals or columns differ."""
        batch = self._open.get(symbol)
        if batch is None or (batch.price_scale, batch.quantity_scale, bool(batch.buyer_maker)) != (
            amounts.price_scale,
            amounts.quantity_scale,
            maker_known,
        ):
            batch = Trades(symbol, [], [], [], [], [], amounts.price_scale, amounts.quantity_scale, 0)
            self._open[symbol] = batch
            self._slice.append(batch)
        return batch

    def _push(self, outlet: Outlet) -> None:
        """Push the slice, then heartbeats: never a watermark past a trade that is already in hand."""
        if not self._options.loop:
            self._counts.replayed = self._reading.share
        recorded_ns = self._recorded_ns
        now_ns = self._clock.monotonic_ns()
        for batch in self._slice:
            batch.received_ns = now_ns
            self._marked_ns[batch.symbol] = recorded_ns
            outlet.trades(batch)
        self._slice.clear()
        self._open.clear()
        self._slice_trades = 0
        if recorded_ns - self._checked_ns < self._heartbeat_ns // _CHECKS_PER_HEARTBEAT or not self._newest_ms:
            return
        self._checked_ns = recorded_ns
        for symbol, marked_ns in self._marked_ns.items():
            if recorded_ns - marked_ns >= self._heartbeat_ns:
                self._marked_ns[symbol] = recorded_ns
                outlet.heartbeat(symbol, self._newest_ms - MARGIN_MS)
