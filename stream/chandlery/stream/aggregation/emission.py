"""What applying one record gives out."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from chandlery.core.wire import CandlesRecord, CandleUpdate, LateRecord

#: Where a candles record goes: the topics ``candles-live``, ``candles-fast`` and ``candles``.
Destination = Literal["live", "fast", "closed"]

#: Most updates in one record: at 250 bytes (long prices) half of the topics' max.message.bytes.
MAX_UPDATES: Final = 2_000


class Emission(msgspec.Struct):
    """Records to append, in this order; empty when the input changed nothing a reader sees.

    Attributes:
        candles: (destination, record); closed candles before forming ones.
        late: trades for the late topic.
        dead: why the input can't be used (it then changed nothing but the counts), or "".
    """

    candles: list[tuple[Destination, CandlesRecord]] = []
    late: LateRecord | None = None
    dead: str = ""


class Collector:
    """Gathers the updates of one emission and packs them into records.

    Attributes:
        live, fast, closed: updates by destination, in order.
    """

    __slots__ = ("closed", "fast", "live")

    def __init__(self) -> None:
        self.live: list[CandleUpdate] = []
        self.fast: list[CandleUpdate] = []
        self.closed: list[CandleUpdate] = []

    def pack(self, symbol: str, session: int, seq: int) -> tuple[list[tuple[Destination, CandlesRecord]], int]:
        """Pack what was gathered.

        An emission too long for one record a topic is packed as several emissions with a ``seq`` each, for a
        reader drops a second record of the same seq in the same topic as a repetition.

        Args:
            seq: that of the emission before.

        Returns:
            (destination, record) pairs in the order to append, and the last seq used.
        """
        if not self.closed and not self.fast and not self.live:
            return [], seq
        rounds = max(1, -(-max(len(self.fast), len(self.closed)) // MAX_UPDATES))
        packed: list[tuple[Destination, CandlesRecord]] = []
        for at in range(rounds):
            seq += 1
            part = slice(at * MAX_UPDATES, (at + 1) * MAX_UPDATES)
            for destination, updates in (("fast", self.fast[part]), ("closed", self.closed[part])):
                if updates:
                    packed.append((destination, CandlesRecord(symbol, session, seq, updates)))  # type: ignore[arg-type]
        if self.live:
            packed.append(("live", CandlesRecord(symbol, session, seq, self.live)))
        return packed, seq
