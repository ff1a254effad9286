"""Packing: the trades of one symbol that wait, and the records made of them.

A lane is one symbol's queue. Pure: no clock of its own, no I/O.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from chandlery.core.clocks import Stamps
from chandlery.core.wire import BackfillRecord, Opening, TradesRecord, encode
from chandlery.stream.ingest.closing import NextClose
from chandlery.stream.ingest.decimals import SCALE, least_scale, rescale
from chandlery.stream.ingest.source import Position, Trades

#: Most trades a record: a larger one would win nothing (facts: 500 a record is past the knee) and delay its first.
MAX_TRADES: Final = 500
#: Bound on a trades record's value: 500 trades of 17 digits of id, 13 of time, 2 × 20 of amounts, and commas.
LARGEST_RECORD_BYTES: Final = 40_000


class Packed(NamedTuple):
    """A record ready to send.

    Attributes:
        value: its encoded form. stamps: of its newest trade.
        trades: how many trades it has, 0 for heartbeats, openings and history.
        heartbeat: whether it only moves the watermark.
        last_id: highest id in it, -1 without trades. watermark_ms: as written, -1 for none.
        received_ns: monotonic, as in ``stamps``; 0 where it isn't about a moment.
    """

    value: bytes
    stamps: Stamps
    trades: int
    heartbeat: bool
    last_id: int
    watermark_ms: int
    received_ns: int


class Lane:
    """What waits to be sent of one symbol.

    Args:
        symbol: unified symbol. partition: its partition. session: the run's session.
        delay_ms: how far the watermark stays behind the newest trade and the exchange's time.
        position: what has been acknowledged already; the watermark never goes behind it.
        intervals: those of the candles that are made of the trades.
    """

    def __init__(
        self,
        symbol: str,
        partition: int,
        session: int,
        delay_ms: int,
        position: Position,
        intervals: Iterable[str] = (),
    ) -> None:
        self.symbol = symbol
        self.key = symbol.encode()
        self.partition = partition
        self.position = position
        self.watermark_ms = position.watermark_ms
        self.queued_ns = 0
        self._session = session
        self._delay_ms = delay_ms
        self._next_close = NextClose(intervals)
        self._hint_ms = -1
        self._hint_ns = 0
        self._frame = 0
        self._batches: deque[Trades] = deque()
        self._prelude: deque[bytes] = deque()
        self.waiting_trades = 0
        self.waiting_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._prelude or self._batches or self._hint_ms > self.watermark_ms)

    def open(self, record: Opening | BackfillRecord) -> None:
        """Queue an opening or history; it goes before all trades that wait."""
        value = encode(record)
        self._prelude.append(value)
        self.waiting_bytes += len(value)

    @property
    def next_bytes(self) -> int:
        """Size of the next record's value, or a bound on it, bytes."""
        return len(self._prelude[0]) if self._prelude else LARGEST_RECORD_BYTES

    def add(self, batch: Trades) -> bool:
        """Queue trades.

        Returns:
            Whether they close a candle.
        """
        self._batches.append(batch)
        self.waiting_trades += len(batch.id)
        self.queued_ns = batch.received_ns
        return self.closes_by(max(batch.time_ms))

    def closes_by(self, exchange_ms: int) -> bool:
        """Whether a candle closes that was open before, now that the exchange's time is this."""
        return self._next_close.passes(exchange_ms - self._delay_ms)

    def hint(self, exchange_ms: int, now_ns: int, *, last: bool = False) -> bool:
        """Note the exchange's time in silence.

        Returns:
            Whether it moves the watermark: False for a time at or behind it.
        """
        watermark_ms = exchange_ms if last else exchange_ms - self._delay_ms
        if watermark_ms <= max(self.watermark_ms, self._hint_ms):
            return False
        self._hint_ms, self._hint_ns = watermark_ms, now_ns
        self.queued_ns = now_ns
        return True

    def pop(self) -> Packed:
        """Take the next record. Call only on a lane that is true."""
        if self._prelude:
            value = self._prelude.popleft()
            self.waiting_bytes -= len(value)
            return Packed(value, Stamps(), 0, False, -1, -1, 0)
        if self._batches:
            return self._pop_trades()
        return self._pop_heartbeat()

    def _pop_heartbeat(self) -> Packed:
        self.watermark_ms = self._hint_ms
        record = TradesRecord(self.symbol, self._session, self.watermark_ms)
        stamps = Stamps(received_ns=self._hint_ns, frame=self._frame)
        return Packed(encode(record), stamps, 0, True, -1, self.watermark_ms, self._hint_ns)

    def _pop_trades(self) -> Packed:
        batches = self._take_batches()
        newest = batches[-1]
        record = self._merge(batches)
        newest_ms = max(record.time_ms)
        self.watermark_ms = max(self.watermark_ms, newest_ms - self._delay_ms)
        if not self._batches:
            self.watermark_ms = max(self.watermark_ms, self._hint_ms)
        record.watermark_ms = self.watermark_ms
        self._frame = newest.frame
        stamps = Stamps(
            exchange_ns=newest.exchange_ns,
            received_ns=newest.received_ns,
            recorded_skew_ns=newest.recorded_skew_ns,
            frame=newest.frame,
        )
        count = len(record.id)
        self.waiting_trades -= count
        return Packed(encode(record), stamps, count, False, max(record.id), self.watermark_ms, newest.received_ns)

    def _take_batches(self) -> list[Trades]:
        taken: list[Trades] = []
        count = 0
        while self._batches and count < MAX_TRADES:
            batch = self._batches.popleft()
            if count + len(batch.id) > MAX_TRADES:
                batch, rest = _split(batch, MAX_TRADES - count)
                self._batches.appendleft(rest)
            taken.append(batch)
            count += len(batch.id)
        return taken

    def _merge(self, batches: list[Trades]) -> TradesRecord:
        price_scale = max([SCALE, *(batch.price_scale for batch in batches)])
        quantity_scale = max([SCALE, *(batch.quantity_scale for batch in batches)])
        record = TradesRecord(self.symbol, self._session, -1, id=[], time_ms=[], price=[], quantity=[], buyer_maker=[])
        makers_known = all(batch.buyer_maker for batch in batches)
        for batch in batches:
            record.id += batch.id
            record.time_ms += batch.time_ms
            record.price += rescale(batch.price, batch.price_scale, price_scale)
            record.quantity += rescale(batch.quantity, batch.quantity_scale, quantity_scale)
            if makers_known:
                record.buyer_maker += batch.buyer_maker
        record.price, record.price_scale = least_scale(record.price, price_scale)
        record.quantity, record.quantity_scale = least_scale(record.quantity, quantity_scale)
        return record

    def acknowledged(self, packed: Packed) -> None:
        """Move the position: the broker has ``packed``, and everything popped before it."""
        position = self.position
        position.count += packed.trades
        position.last_id = max(position.last_id, packed.last_id)
        position.watermark_ms = max(position.watermark_ms, packed.watermark_ms)


def _split(batch: Trades, at: int) -> tuple[Trades, Trades]:
    """Cut a batch in two; both keep the stamps of the whole, whose moments differ by less than they resolve."""
    halves = []
    for part in (slice(None, at), slice(at, None)):
        halves.append(
            Trades(
                batch.symbol, batch.id[part], batch.time_ms[part], batch.price[part], batch.quantity[part],
                batch.buyer_maker[part], batch.price_scale, batch.quantity_scale,
                batch.received_ns, batch.exchange_ns, batch.recorded_skew_ns, batch.frame,
            )
        )  # fmt: skip
    return halves[0], halves[1]
