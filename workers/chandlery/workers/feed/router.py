"""From raw candle records to series: which records are decoded, and who is told.

Within one batch of ``candles-live`` the newest record of a symbol replaces the older ones (conflation): a
reader of the forming candle only ever wants the newest. Every trade changes every interval's forming candle,
so the newest record nearly always holds all intervals; for one that it doesn't hold, the walk goes on to
older records until each interval has its newest update.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from chandlery.core.assignment import SeriesRef
from chandlery.core.clocks import HostClocks, Stamps
from chandlery.core.wire import UNDECODABLE, CandlesRecord, CandleUpdate, decode_candles
from chandlery.workers.feed.candle_rows import (
    CLOSING_BRACE,
    MOST_INTEGER,
    OPENING_BRACE,
    Headers,
    decode_head,
    mentions,
    stamps_header,
)
from chandlery.workers.feed.sequencing import Change, SeriesSequence


class RawRecord(Protocol):
    """What is used of a consumed record (aiokafka's ConsumerRecord)."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Headers: ...


@dataclass(slots=True)
class Bells:
    """Doorbells of one series: who is rung for a closed or revised row, and who also for a forming one."""

    closed: frozenset[int] = frozenset()
    forming: frozenset[int] = frozenset()


@dataclass(slots=True)
class Track:
    """One series as the router sees it. Updates reach it once it has ``joined`` the live records."""

    sequence: SeriesSequence
    bells: Bells = field(default_factory=Bells)
    joined: bool = False


@dataclass(slots=True)
class _SymbolTrack:
    """One symbol: its series by interval, the last ``seq`` of each topic within the session, the newest record."""

    series: dict[str, Track] = field(default_factory=dict)
    session: int = -1
    seq: dict[str, int] = field(default_factory=dict)
    newest_live: RawRecord | None = None


Refuse = Callable[[RawRecord, str], None]
#: The low bits of a time in ns: a millisecond, within which records come at any time alike.
SHARE_MASK: Final = (1 << 20) - 1
_UNKEYED: Final = "record without a key"


class Router:
    """Symbols and their series. Not thread-safe: everything happens on the event loop.

    Args:
        live_topic: full name of the topic with forming candles.
        counts: shared counters. refuse: called with each record that can't be used, and why.
    """

    def __init__(self, live_topic: str, counts: Counter[str], refuse: Refuse) -> None:
        self._live_topic = live_topic
        self._symbols: dict[bytes, _SymbolTrack] = {}
        self.counts = counts
        self._refuse = refuse
        self.clocks = HostClocks()
        #: Doorbells to ring for what changed since :meth:`take_rung`.
        self._rung: set[int] = set()
        #: Series that changed since :meth:`take_changed`, with the strongest change. Kept only on demand.
        self.watch_changes = False
        #: Told of each record in a share of those that changed a series: symbol, the first of the updates that changed
        #: most, its stamps. The share is that of the time when they were emitted: its low bits are below ``told_below``; 0: none are.
        self.tell: Callable[[str, CandleUpdate, Stamps], None] = lambda _symbol, _update, _stamps: None
        self.told_below = 0
        self._changed: dict[SeriesRef, Change] = {}

    def add(self, ref: SeriesRef, track: Track) -> None:
        """Route updates of a series to ``track`` from now on (forming and closed, once it has joined)."""
        self._symbols.setdefault(ref.symbol.encode(), _SymbolTrack()).series[ref.interval] = track

    def remove(self, ref: SeriesRef) -> None:
        """Forget a series; its symbol too when it was the last one."""
        key = ref.symbol.encode()
        symbol = self._symbols.get(key)
        if symbol is None:
            return
        symbol.series.pop(ref.interval, None)
        if not symbol.series:
            del self._symbols[key]

    def take_rung(self) -> set[int]:
        """The doorbells to ring now; the set starts again empty."""
        rung, self._rung = self._rung, set()
        return rung

    def take_changed(self) -> dict[SeriesRef, Change]:
        """The series that changed (only with ``watch_changes``); starts again empty."""
        changed, self._changed = self._changed, {}
        return changed

    def join(self, ref: SeriesRef, track: Track) -> None:
        """Route live records to a series from now on; it has all closed candles up to here.

        It is given the forming candle of the newest record that passed meanwhile: in a quiet market the next
        one may be far.
        """
        track.joined = True
        self._note(ref.symbol, ref.interval, track, Change.CLOSED)
        symbol = self._symbols.get(ref.symbol.encode())
        if symbol is None or symbol.newest_live is None:
            return
        decoded = self._decode(symbol.newest_live)
        if decoded is not None and decoded.session == symbol.session:
            self._apply(symbol, symbol.newest_live, decoded, {ref.interval})

    def closed(self, records: Iterable[RawRecord]) -> None:
        """Take in records of a closed topic, in order."""
        for record in records:
            symbol = self._find(record)
            if symbol is None:
                continue
            decoded = self._decode(record)
            if decoded is not None and self._current(symbol, decoded):
                self._apply_closed(symbol, record, decoded)

    def live(self, records: Sequence[RawRecord]) -> None:
        """Take in one batch of the live topic: the newest update of each interval of each symbol."""
        done: set[bytes | None] = set()
        lacking: dict[bytes, set[str]] = {}
        conflated = 0
        for record in reversed(records):
            key = record.key
            if key in done:
                # Nearly every record of a long batch ends here: nothing but the cheapest look at it.
                conflated += 1
                value = record.value
                if not value or value[0] != OPENING_BRACE or value[-1] != CLOSING_BRACE:
                    self._refuse(record, "no candles record")
                continue
            symbol = self._find(record)
            if symbol is None or key is None:
                continue
            if key in lacking:
                conflated += 1
                self._fill_in(symbol, record, lacking[key])
                if not lacking[key]:
                    done.add(key)
                continue
            missing = self._newest(symbol, record)
            if missing is not None:
                if missing:
                    lacking[key] = missing
                else:
                    done.add(key)
        self.counts["conflated"] += conflated

    def _newest(self, symbol: _SymbolTrack, record: RawRecord) -> set[str] | None:
        """Apply a live record; the intervals it lacked, or None if it was of no use (look further back)."""
        try:
            head = decode_head(record.value or b"")
        except UNDECODABLE as error:
            self._refuse(record, str(error))
            return None
        if head.session == symbol.session and head.seq <= symbol.seq.get(self._live_topic, 0):
            self.counts["repetition"] += 1
            return None
        decoded = self._decode(record)
        if decoded is None or not self._current(symbol, decoded):
            return None
        symbol.seq[self._live_topic] = decoded.seq
        symbol.newest_live = record
        missing = {interval for interval, track in symbol.series.items() if track.joined}
        self._apply(symbol, record, decoded, missing)
        return missing

    def _fill_in(self, symbol: _SymbolTrack, record: RawRecord, missing: set[str]) -> None:
        """Apply what an older live record holds of the intervals that newer ones lacked."""
        value = record.value or b""
        if not any(mentions(value, interval) for interval in missing):
            return
        decoded = self._decode(record)
        if decoded is not None and self._current(symbol, decoded):
            self._apply(symbol, record, decoded, missing)

    def _apply_closed(self, symbol: _SymbolTrack, record: RawRecord, decoded: CandlesRecord) -> None:
        repeated = decoded.seq <= symbol.seq.get(record.topic, 0)
        grew = self._apply(symbol, record, decoded, None) is Change.CLOSED
        if not repeated:
            symbol.seq[record.topic] = decoded.seq
        elif grew:
            # New candles under old numbers: whoever writes them counts from the start again, so the live
            # topic's numbers do too. Without this every forming update would pass for a repetition.
            self.counts["seq_restarts"] += 1
            symbol.seq = {record.topic: decoded.seq}
        else:
            self.counts["repetition"] += 1

    def _apply(
        self, symbol: _SymbolTrack, record: RawRecord, decoded: CandlesRecord, missing: set[str] | None
    ) -> Change:
        """Hand a record's updates to their series; with ``missing`` only those, which are then struck out."""
        stamps: Stamps | None = None
        strongest = Change.NONE
        telling: CandleUpdate | None = None
        for update in decoded.updates:
            interval = update.interval
            if missing is not None and interval not in missing:
                continue
            track = symbol.series.get(interval)
            if track is None or not track.joined:
                continue
            if stamps is None:
                stamps = self.clocks.unpack(stamps_header(record.headers))
            try:
                change = track.sequence.apply(decoded.session, update, stamps)
            except ValueError as error:
                self._refuse(record, str(error))
                continue
            if missing is not None:
                missing.discard(interval)
            if change is not Change.NONE:
                self._note(decoded.symbol, interval, track, change)
                if change > strongest:
                    strongest, telling = change, update
        if telling is not None and stamps is not None and stamps.emitted_ns & SHARE_MASK < self.told_below:
            self.tell(decoded.symbol, telling, stamps)
        return strongest

    def _note(self, symbol: str, interval: str, track: Track, change: Change) -> None:
        self._rung |= track.bells.closed if change is Change.CLOSED else track.bells.forming
        if self.watch_changes:
            ref = SeriesRef(symbol, interval)
            self._changed[ref] = max(change, self._changed.get(ref, Change.NONE))

    def _find(self, record: RawRecord) -> _SymbolTrack | None:
        key = record.key
        if key is None:
            self._refuse(record, _UNKEYED)
            return None
        return self._symbols.get(key)

    def _decode(self, record: RawRecord) -> CandlesRecord | None:
        decoded, reason = decode_record(record)
        if decoded is None:
            self._refuse(record, reason)
        return decoded

    def _current(self, symbol: _SymbolTrack, decoded: CandlesRecord) -> bool:
        """Whether a record is of the newest session; a newer one starts every joined series afresh."""
        if decoded.session == symbol.session:
            return True
        if decoded.session < symbol.session:
            self.counts["session"] += 1
            return False
        symbol.session = decoded.session
        symbol.seq = {}
        for track in symbol.series.values():
            if track.joined:
                track.sequence.begin(decoded.session)
        return True


def decode_record(record: RawRecord) -> tuple[CandlesRecord | None, str]:
    """Decode a candle record; (None, reason) when it can't be used."""
    if record.value is None:
        return None, "record without a value"
    try:
        decoded = decode_candles(record.value)
    except UNDECODABLE as error:
        return None, str(error)
    if record.key is None or decoded.symbol.encode() != record.key:
        return None, f"key {record.key!r} and symbol {decoded.symbol!r} differ"
    if not (0 <= decoded.session <= MOST_INTEGER and 0 <= decoded.seq <= MOST_INTEGER):
        return None, f"session {decoded.session} or seq {decoded.seq} is impossible"
    return decoded, ""
