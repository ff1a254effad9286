"""The newest candles of one series, as texts, and what changed in them for those who look on. Pure.

Order, repetitions, revisions and sessions follow the feed's own rules
(:class:`chandlery.workers.feed.sequencing.SeriesSequence`): a chart shows what traders decide on. Here candles stay the
decimal strings that the exchange wrote.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Final, NamedTuple

from chandlery.console.api.models import Candle
from chandlery.core.clocks import Stamps
from chandlery.core.wire import CandleUpdate
from chandlery.workers.feed.candle_rows import row_of
from chandlery.workers.feed.sequencing import Change, SeriesSequence

_open_time = attrgetter("open_time_ms")
_NO_STAMPS: Final = Stamps()


class CandleChange(NamedTuple):
    """A candle came, changed or closed. ``reset``: forget all before it, as those of another session."""

    candle: Candle
    reset: bool


class CandleBook:
    """One series.

    Args:
        kept: closed candles in memory. counts: shared by many; see the sequence. changed: told of each change, once
            :attr:`open`.

    Attributes:
        sequence: takes updates in; what it accepts comes here.
        open: whether changes are told: not while history is read.
        from_beginning: whether nothing older than what is here ever was in this session.
    """

    def __init__(
        self, kept: int, counts: Counter[str], changed: Callable[[CandleChange], None] = lambda change: None
    ) -> None:
        self._kept = max(1, kept)
        self._changed = changed
        self._closed: list[Candle] = []
        self._forming: Candle | None = None
        self._reset = False
        self.open = False
        self.from_beginning = False
        self.sequence = _BookSequence(self, counts)

    @property
    def session(self) -> int:
        """-1 before the first candle."""
        return self.sequence.session

    def take(self, session: int, update: CandleUpdate) -> None:
        """Take one update in, or leave it out by the sequence's rules.

        Raises:
            ValueError: its values are no numbers.
        """
        self.sequence.apply(session, update, _NO_STAMPS)

    def candles(self, limit: int, before_ms: int | None = None) -> list[Candle]:
        """At most ``limit`` of the newest, oldest first, the forming one among them; only such as open before that."""
        shown = self._closed if self._forming is None else [*self._closed, self._forming]
        end = len(shown) if before_ms is None else bisect_left(shown, before_ms, key=_open_time)
        return shown[max(0, end - limit) : end]

    @property
    def oldest_ms(self) -> int | None:
        """When the oldest candle here opened."""
        return self._closed[0].open_time_ms if self._closed else None

    def tell_all(self) -> None:
        """Tell all candles, the first as a reset; there being none, the next one will be."""
        self._reset = True
        for candle in self.candles(self._kept):
            self._tell(candle)

    def put_before(self, older: list[Candle]) -> None:
        """Closed candles of the same session that come directly before the oldest; as many as there is room for."""
        room = self._kept - len(self._closed)
        if room > 0 and older and (self.oldest_ms is None or older[-1].open_time_ms < self.oldest_ms):
            self._closed[:0] = older[-room:]

    # ---- what the sequence accepts ----

    def reset(self, session: int) -> None:
        """A new session: everything before is another's."""
        self._reset = bool(self._closed or self._forming or self._reset)
        self._closed.clear()
        self._forming = None
        self.from_beginning = self.open

    def append(self, update: CandleUpdate, stamps: Stamps) -> None:
        """A closed candle after the last one."""
        row_of(update)
        candle = candle_of(update)
        self._closed.append(candle)
        if len(self._closed) > self._kept:
            del self._closed[0]
            self.from_beginning = False
        self._tell(candle)

    def revise(self, update: CandleUpdate) -> bool:
        """Another revision of a closed candle; False: it is no longer here."""
        at = bisect_left(self._closed, update.open_time_ms, key=_open_time)
        if at == len(self._closed) or self._closed[at].open_time_ms != update.open_time_ms:
            return False
        row_of(update)
        self._closed[at] = candle_of(update)
        self._tell(self._closed[at])
        return True

    def finish(self, update: CandleUpdate) -> None:
        """The candle stays as it is for good. Nobody is told: no value changes."""
        at = bisect_left(self._closed, update.open_time_ms, key=_open_time)
        if at == len(self._closed):
            return
        held = self._closed[at]
        if (held.open_time_ms, held.revision) == (update.open_time_ms, update.revision):
            self._closed[at] = held.model_copy(update={"state": "final"})

    def set_forming(self, update: CandleUpdate, stamps: Stamps) -> None:
        """The candle that is open now."""
        row_of(update)
        self._forming = candle_of(update)
        self._tell(self._forming)

    def clear_forming(self) -> None:
        """It has closed."""
        self._forming = None

    def _tell(self, candle: Candle) -> None:
        if self.open:
            reset, self._reset = self._reset, False
            self._changed(CandleChange(candle, reset))


class _BookSequence(SeriesSequence):
    """The feed's rules; besides, ``final`` repetitions are noted, of which a segment has no use."""

    __slots__ = ("_book",)

    def __init__(self, book: CandleBook, counts: Counter[str]) -> None:
        super().__init__(book, counts)
        self._book = book

    def apply(self, session: int, update: CandleUpdate, stamps: Stamps) -> Change:
        change = super().apply(session, update, stamps)
        if change is Change.NONE and update.state == "final" and session == self.session:
            self._book.finish(update)
        return change


def candle_of(update: CandleUpdate) -> Candle:
    """An update as the API says it."""
    return Candle(
        open_time_ms=update.open_time_ms,
        open=update.open,
        high=update.high,
        low=update.low,
        close=update.close,
        volume=update.volume,
        trades=update.trades,
        state="final" if update.final and update.state != "forming" else update.state,
        revision=update.revision,
        filled=update.filled,
    )


class Changes:
    """What one who looks on hasn't been told yet: the newest state of each candle, bounded.

    Args:
        most: candles; beyond it the oldest is left out: it can be asked for.
    """

    def __init__(self, most: int) -> None:
        self._most = max(1, most)
        self._waiting: dict[int, CandleChange] = {}
        self.left_out = 0

    def add(self, change: CandleChange) -> None:
        """A change happened."""
        if change.reset:
            self._waiting.clear()
        key = change.candle.open_time_ms
        before = self._waiting.get(key)
        if before is not None and before.reset:
            change = change._replace(reset=True)
        self._waiting[key] = change
        if len(self._waiting) > self._most:
            oldest = min(self._waiting)
            reset = self._waiting.pop(oldest).reset
            self.left_out += 1
            if reset:
                second = min(self._waiting)
                self._waiting[second] = self._waiting[second]._replace(reset=True)

    def take(self) -> list[CandleChange]:
        """All that waits, by time; nothing waits then."""
        taken = [self._waiting[key] for key in sorted(self._waiting)]
        self._waiting.clear()
        return taken


class Lookback:
    """Closed candles of one series, gathered from the newest stretch of its topic to older ones.

    Args:
        need: closed candles wanted. before_ms: only such as open before that; None: any.
    """

    def __init__(self, symbol: str, interval: str, need: int, before_ms: int | None = None, session: int = -1) -> None:
        self._symbol = symbol
        self._interval = interval
        self._need = need
        self._before_ms = before_ms
        self._session = session
        self._stretches: list[list[tuple[int, CandleUpdate]]] = []
        self._seen: set[int] = set()
        self._older = False

    def stretch(self, records: Iterable[tuple[int, list[CandleUpdate]]]) -> None:
        """One stretch of the symbol's records, in order: sessions and updates. It lies before all those seen so far."""
        gathered: list[tuple[int, CandleUpdate]] = []
        for session, updates in records:
            if session > self._session:
                # It began within this stretch: what was before it is another's.
                self._older = self._older or self._session >= 0 or bool(gathered)
                self._session = session
                gathered.clear()
                self._seen.clear()
                self._stretches.clear()
            elif session < self._session:
                self._older = True
                continue
            for update in updates:
                if update.interval != self._interval or update.state == "forming":
                    continue
                if self._before_ms is not None and update.open_time_ms >= self._before_ms:
                    continue
                gathered.append((session, update))
                if update.state == "closed":
                    self._seen.add(update.open_time_ms)
        self._stretches.append(gathered)

    @property
    def enough(self) -> bool:
        """Whether older stretches are of no use."""
        return self._older or len(self._seen) >= self._need

    @property
    def whole_session(self) -> bool:
        """Whether an older session was seen: this one is here from its beginning."""
        return self._older

    def updates(self) -> Iterable[tuple[int, CandleUpdate]]:
        """Sessions and updates in the order of the topic, from the first close on.

        A revision before that is of a candle that closed further back: it would stand before a hole.
        """
        begun = False
        for gathered in reversed(self._stretches):
            for session, update in gathered:
                begun = begun or update.state == "closed"
                if begun:
                    yield session, update
