"""One symbol of a Trader: its strategy instance, how far it has decided, and which candle is next."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from chandlery.core.errors import SegmentError, StrategyError
from chandlery.core.intervals import Interval
from chandlery.core.signals import Signal
from chandlery.workers.strategy import Strategy
from chandlery.workers.trader.market import Forming, SeriesView

_FOREVER_MS: Final = 1 << 62


class Cooldown:
    """Least event time between two signals of one rule."""

    def __init__(self, cooldown_ms: int) -> None:
        self._cooldown_ms = cooldown_ms
        self._last_ms: dict[str, int] = {}

    def admits(self, rule: str, open_time_ms: int) -> bool:
        """Whether a signal of ``rule`` on this candle may go out; a candle never cools itself down."""
        last = self._last_ms.get(rule)
        return last is None or open_time_ms == last or open_time_ms - last >= self._cooldown_ms

    def note(self, rule: str, open_time_ms: int) -> None:
        """A signal of ``rule`` went out on this candle."""
        self._last_ms[rule] = open_time_ms

    def clear(self) -> None:
        self._last_ms.clear()


def begins_at(from_ms: int, session: int, position: tuple[int, int] | None) -> bool:
    """Whether an incarnation begins at its bound ``from_ms``, and not after the stored position (session, open time).

    The position counts where it has come further, and where it is of an earlier session: then this one's candles are
    due from the first on.
    """
    if not from_ms:
        return False
    return position is None or position[1] < 0 or (position[0] == session and position[1] < from_ms - 1)


class SymbolRun:
    """State of one symbol. ``looks_on``: it decides on forming candles too.

    Attributes:
        series: the ring's name of it, ``SYMBOL INTERVAL``. need: closed rows that a call sees.
        session, after_ms: decided up to the closed candle that opens at ``after_ms`` of that session (-1: none).
        next_ordinal: ordinal of the next closed row to decide on; None until it has been looked for.
        rehearsed: whether the strategy's state has been brought up to ``next_ordinal``.
        tried: whether the strategy has been called in standby, to no effect but an error that it may raise.
        resumed: whether ``after_ms`` comes from an earlier process, or stands for an earlier incarnation's last candle.
        anchored: whether ``after_ms`` is a live series' newest candle or one decided, by this process or an earlier
            one: then every later one is due. Else history isn't due.
        came_over: whether it decided in a session before this one: then this one's candles are due from the first on
            that came of trades, also where the feed was down and read it as history.
        recall_ms: candles of trades that open at this or later are due although no position says so, history too, as
            long as it isn't anchored (see recall.py); -1: none are.
        forming_sequence: of the forming row seen last, as the present view counts; -1: not seen in this view.
        forming_seen: that row, of whichever view; None: none was seen in this session.
        forming_open_ms, forming_done: ids and cooled rules of that forming candle that are dealt with.
        forming_told: ids of the signals put into the ring on forming candles whose close isn't dealt with, by open time.
        unsure_to_ms: on candles that open at this or earlier an earlier process may have signalled while they were forming.
        past: whether every candle that opens before the incarnation's end is dealt with.
        pending_since_ns: since when the decision waits for an informative row; 0: it doesn't.
    """

    def __init__(
        self,
        symbol: str,
        interval: Interval,
        make: Callable[[], Strategy],
        need: int,
        cooldown: int,
        *,
        looks_on: bool = False,
    ) -> None:
        self.symbol = symbol
        self.interval = interval
        self.series = f"{symbol} {interval.text}"
        self.need = need
        self.cooldown = Cooldown(cooldown)
        self.view: SeriesView | None = None
        self._make = make
        self.strategy = make()
        self._spare: tuple[Strategy, Strategy] | None = None
        self.session = -1
        self.after_ms = -1
        self.next_ordinal: int | None = None
        self.begun = False
        self.rehearsed = False
        self.tried = False
        self.resumed = False
        self.anchored = False
        self.came_over = False
        self.recall_ms = -1
        self.forming_sequence = -1
        self.forming_seen: Forming | None = None
        self.forming_open_ms = -1
        self.forming_done: set[str] = set()
        self.forming_told: dict[int, set[str]] = {}
        self._looks_on = looks_on
        self.doubt()
        self.past = False
        self.pending_since_ns = 0

    def doubt(self) -> None:
        """Another process may have signalled on the candle that is forming now, or on what closed since: the feed knows."""
        self.unsure_to_ms = _FOREVER_MS if self._looks_on else -1

    def begin(self, view: SeriesView, recall_ms: int = -1) -> None:
        """Begin after the newest closed candle there is, or with the first to be recalled; while there is only history
        of which none is to be, at the first live one.

        A feed may be in the middle of reading history: where the series stands then is no position to come back to.
        """
        self.begun = True
        self.session = view.session
        self.anchored = view.live_from_ms >= 0
        self.came_over = False
        self.after_ms = view.last_open_time_ms if self.anchored else -1
        self.resumed = False
        self.recall_ms = recall_ms
        recalled_ms = self._recalled_from_ms(view)
        if 0 <= recalled_ms <= self.after_ms:
            self.after_ms, self.resumed = recalled_ms - 1, True
        self._start_over()

    def begin_at(self, view: SeriesView, from_ms: int) -> bool:
        """Begin where another incarnation ends: with the first candle of trades that opens at ``from_ms`` or later.

        Returns:
            False while the series has no candle of trades: what is backfill is history.
        """
        session, traded_from_ms = view.session, view.traded_from_ms
        if traded_from_ms < 0:
            return False
        self.begun = True
        self.session = session
        self.anchored = self.resumed = True
        self.came_over = False
        self.recall_ms = -1
        self.after_ms = max(from_ms, traded_from_ms) - 1
        self._start_over()
        return True

    def enter_session(self, session: int, position: tuple[int, int] | None, recall_ms: int = -1) -> None:
        """Begin in a session: after the stored position if it is of this session, else with its first candle of trades.

        A position without a candle is of a trader that has only met history: it begins with the first candle that is
        live, or to be recalled.
        """
        self.begun = True
        self.session = session
        self.resumed = position is not None and position[0] == session and position[1] >= 0
        self.anchored = self.resumed
        self.came_over = position is not None and position[0] < session and position[1] >= 0
        self.after_ms = position[1] if position is not None and self.resumed else -1
        self.recall_ms = -1 if self.resumed or self.came_over else recall_ms
        self._start_over()

    def is_past(self, session: int, position: tuple[int, int] | None) -> bool:
        """Whether a session is older than one already decided in, by this process or at the stored position.

        A feed that starts reads its way up through older sessions: deciding there again would repeat signals
        and overwrite the position in the newest session.
        """
        return session < max(self.session, position[0] if position is not None else -1)

    def lay_by(self) -> None:
        """Copy the strategy for the next call already now: between wake-up and decision it would be in the way."""
        if self._spare is None or self._spare[0] is not self.strategy:
            self._spare = self.strategy, self.strategy.fork()

    def working_copy(self) -> Strategy:
        """A copy of the strategy for one call, which counts only if what the call saw held."""
        spare, self._spare = self._spare, None
        return spare[1] if spare is not None and spare[0] is self.strategy else self.strategy.fork()

    def forget_state(self) -> None:
        """What the strategy remembers, and what has cooled down, is to be rehearsed from the first on."""
        self.rehearsed = False
        self.strategy = self._make()
        self.cooldown.clear()

    def _start_over(self) -> None:
        self.next_ordinal = None
        self.forget_state()
        self.past = False
        self.forming_sequence = -1
        self.forming_seen = None
        self.forming_open_ms = -1
        self.forming_told.clear()  # their candles never close: they are of another session, or another's to decide
        self.pending_since_ns = 0

    def reattach(self) -> None:
        """The market has another source: ordinals are its own."""
        self.view = None
        self.next_ordinal = None
        self.forming_sequence = -1

    def saw_elsewhere(self, forming: Forming) -> bool:
        """Whether a forming row that is new in this view is the one seen last in the view before."""
        if self.forming_sequence >= 0 or self.forming_seen is None:
            return False
        return _said(forming) == _said(self.forming_seen)

    def next_due(self, view: SeriesView) -> tuple[int | None, int]:
        """The next closed row of the session to decide on.

        Returns:
            Its ordinal, or None where there is none; and how many rows were overwritten before their turn.
        """
        count, first = view.count, view.first()
        lapped = 0
        if self.next_ordinal is None:
            due_from_ms = self._due_from_ms(view)
            if due_from_ms < 0:
                return None, 0
            found = view.find_after(due_from_ms - 1)
            if found >= count:
                # Rows that open earlier may still come: a feed that starts reads its way up to where we are.
                return None, 0
            self.next_ordinal = found
            if not self.anchored and due_from_ms == self._recalled_from_ms(view):
                # As if it had a position there: what it decided before is known no more, but may have cooled rules.
                self.after_ms, self.anchored, self.resumed = due_from_ms - 1, True, True
            if self.next_ordinal == first and first > 0 and (self.anchored or self.came_over):
                lapped = self._gap_before(view, first, due_from_ms)
        elif self.next_ordinal < first:
            lapped = first - self.next_ordinal
            self.next_ordinal = first
        return (self.next_ordinal if self.next_ordinal < count else None), lapped

    def _due_from_ms(self, view: SeriesView) -> int:
        """No candle that opens before this is due; -1 while it can't be told."""
        if self.anchored:
            # What came after the last decided candle is due, also where the feed read it as history.
            return self.after_ms + 1
        if self.came_over:
            return view.traded_from_ms
        recalled_ms, live_ms = self._recalled_from_ms(view), view.live_from_ms
        return min(recalled_ms, live_ms) if recalled_ms >= 0 and live_ms >= 0 else max(recalled_ms, live_ms)

    def _recalled_from_ms(self, view: SeriesView) -> int:
        """The first candle to be recalled opens at this or later; -1: none is, what is backfill is history."""
        if self.recall_ms < 0 or view.traded_from_ms < 0:
            return -1
        return max(self.recall_ms, view.traded_from_ms)

    def _gap_before(self, view: SeriesView, first: int, due_from_ms: int) -> int:
        """Candles due that open before the oldest one left, by their open times."""
        window = view.window(first + 1, 1)
        if not len(window.open_time):
            return 0
        begin_ms = self.next_open_ms() if self.after_ms >= 0 else due_from_ms
        return max(0, (int(window.open_time[0]) - begin_ms) // self.interval.length_ms)

    def next_open_ms(self) -> int:
        """When the candle opens that follows what is dealt with."""
        return self.interval.next_ms(self.interval.floor_ms(self.after_ms))

    def look_past(self, view: SeriesView, until_ms: int) -> None:
        """Note whether no candle that opens before ``until_ms`` can still come, where no row is due now."""
        # Before the count: whoever sees a forming candle sees all that closed before it.
        forming = view.forming()
        if view.session != self.session or (self.next_ordinal is not None and self.next_ordinal < view.count):
            self.past = False
            return
        newest = view.window(view.count, 1)
        if self.anchored:
            done_to_ms = self.next_open_ms()
        elif len(newest.open_time) and view.valid(newest) and self._is_history(view, int(newest.open_time[-1])):
            # All there is is history, and what comes later opens later.
            done_to_ms = self.interval.next_ms(int(newest.open_time[-1]))
        else:
            done_to_ms = -1
        self.past = max(done_to_ms, -1 if forming is None else forming.open_time_ms) >= until_ms

    def _is_history(self, view: SeriesView, newest_open_ms: int) -> bool:
        due_from_ms = self._due_from_ms(view)
        return due_from_ms < 0 or newest_open_ms < due_from_ms

    def check_room(self, view: SeriesView, strategy: str) -> None:
        """Look whether the series keeps as many candles as a call sees.

        Raises:
            StrategyError: it doesn't.
        """
        try:
            view.window(view.count, self.need)
        except SegmentError as error:
            raise StrategyError(
                f"{strategy}: needs {self.need} closed candles, more than the segment keeps ({error})",
                reason="BadParameter",
            ) from error

    def note_told(self, signals: Iterable[Signal]) -> None:
        """Signals on a forming candle are on their way."""
        for signal in signals:
            self.forming_told.setdefault(signal.open_time_ms, set()).add(signal.id)

    def owes_word(self, open_time_ms: int) -> bool:
        """Whether there are, or may be, signals on this candle from when it was forming: its close says what they are."""
        return open_time_ms in self.forming_told or open_time_ms <= self.unsure_to_ms

    def advance(self, ordinal: int, open_time_ms: int) -> None:
        """The closed row ``ordinal`` is dealt with."""
        # Signals may have waited for room while the market got another source, whose ordinals are its own.
        self.next_ordinal = None if self.view is None else ordinal + 1
        self.after_ms = open_time_ms
        self.anchored = True
        self.pending_since_ns = 0
        if self.forming_told:
            for told_ms in [told_ms for told_ms in self.forming_told if told_ms <= open_time_ms]:
                del self.forming_told[told_ms]


class Commit(msgspec.Struct):
    """A closed candle's decision whose signals are not all in the ring yet."""

    run: SymbolRun
    strategy: Strategy
    ordinal: int
    open_time_ms: int


def _said(forming: Forming) -> tuple[object, ...]:
    """All that a forming row says but its number; the stamps say when it was written."""
    return (
        forming.open_time_ms,
        forming.open,
        forming.high,
        forming.low,
        forming.close,
        forming.volume,
        forming.trades,
        forming.stamps,
    )


def newest_ms(runs: Iterable[SymbolRun], position: Callable[[str], tuple[int, int] | None]) -> int:
    """Open time of the newest candle that symbols are done with, each in its own session; -1: none.

    Args:
        position: the stored one (session, open time) of a series: it stands for a symbol that has not begun.
    """
    newest = -1
    for run in runs:
        stored = None if run.begun else position(run.series)
        done_ms = run.after_ms if stored is None else stored[1]
        if done_ms >= 0:
            newest = max(newest, run.interval.floor_ms(done_ms))
    return newest
