"""What ingest counts: every frame, every drop with its reason, and the id sequence of each symbol."""

from __future__ import annotations

import bisect
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from chandlery.core.histogram import Histogram

#: Missing id ranges remembered a symbol, so that a trade that comes late is not taken for a repetition.
_MAX_MISSING_RANGES: Final = 1_024


class IdSequence:
    """Gaps and repetitions in one symbol's trade ids, which an exchange counts up by one.

    ``gap_ids`` is how many ids are missing now: it falls again when they come late. An id seen before
    counts in ``duplicates``, as does one from before the first. The oldest missing ranges are forgotten beyond 1,024 of them (they stay in
    ``gap_ids``; should their ids come after all, they count as duplicates).
    """

    def __init__(self, last_id: int = -1) -> None:
        self.last_id = last_id
        self.gap_ids = 0
        self.duplicates = 0
        self._missing: list[tuple[int, int]] = []

    def take(self, ids: list[int]) -> None:
        """Note ids in order of arrival."""
        first = ids[0]
        if self.last_id < 0:
            self.last_id = first - 1
        if first == self.last_id + 1 and (len(ids) == 1 or ids == list(range(first, first + len(ids)))):
            self.last_id = ids[-1]
            return
        for trade_id in ids:
            self._take_one(trade_id)

    def _take_one(self, trade_id: int) -> None:
        if trade_id == self.last_id + 1:
            self.last_id = trade_id
        elif trade_id > self.last_id:
            self._missing.append((self.last_id + 1, trade_id - 1))
            del self._missing[:-_MAX_MISSING_RANGES]
            self.gap_ids += trade_id - 1 - self.last_id
            self.last_id = trade_id
        elif self._fill(trade_id):
            self.gap_ids -= 1
        else:
            self.duplicates += 1

    def _fill(self, trade_id: int) -> bool:
        at = bisect.bisect_right(self._missing, trade_id, key=lambda missing: missing[0]) - 1
        if at < 0 or self._missing[at][1] < trade_id:
            return False
        low, high = self._missing[at]
        self._missing[at : at + 1] = [
            part for part in ((low, trade_id - 1), (trade_id + 1, high)) if part[0] <= part[1]
        ]
        return True


@dataclass(slots=True)
class SymbolCounts:
    """Counts of one symbol in this process's life; ``last_price`` is an integer at ``price_scale`` decimals."""

    ids: IdSequence
    trades: int = 0
    last_price: int = 0
    price_scale: int = 0


@dataclass(slots=True)
class Counts:
    """Counts of one source in this process's life.

    Attributes:
        frames: messages had from the source, of every kind.
        skipped_frames: frames that carry no trade of ours, by kind.
        malformed: frames that can't be read, by reason.
        dropped: trades given up, by reason (``buffer``: the broker was away for longer than memory lasts).
        received: trades parsed; always ``received = appended + dropped + waiting``.
        unknown_symbols: symbols that the exchange refused, or the recording, read to its end, has no trade of.
        replayed: how much of a recording is read, 0 … 1; None: there is none, or it goes round.
        clock_offset_ms: exchange's wall clock minus ours, None until known.
        appending: how long records with trades took from receipt to acknowledgement.
    """

    symbols: dict[str, SymbolCounts]
    frames: int = 0
    skipped_frames: Counter[str] = field(default_factory=Counter)
    malformed: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    received: int = 0
    appended: int = 0
    records: int = 0
    heartbeats: int = 0
    reconnects: int = 0
    connected: bool = False
    finished: bool = False
    unknown_symbols: set[str] = field(default_factory=set)
    replayed: float | None = None
    clock_offset_ms: float | None = None
    appending: Histogram = field(default_factory=Histogram)


def new_counts(last_ids: dict[str, int]) -> Counts:
    """Counts at zero for these symbols, each with the id it was left at (-1: none)."""
    return Counts({symbol: SymbolCounts(IdSequence(last_id)) for symbol, last_id in last_ids.items()})
