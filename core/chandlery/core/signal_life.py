"""A signal's life, from what the ``signals`` topic tells: ``detected → confirmed | invalidated → active → closed | expired``.

Pure, and the same whatever the order of the records and however often each is there: a signal is what its earliest
record says, of what is told of it later the earliest word counts.

* One on a **closed candle** is active from the start. One on a **forming** candle is active once it is confirmed: by a
  :class:`~chandlery.core.signals.Life` record, or by a second record of the signal itself, on the closed candle. It is
  withdrawn (``invalidated``) by a Life record, and that is its end.
* An active one is **closed** by the next opposite one of the same Trader and symbol that becomes active: a buy by a sell
  or a close, a sell by a buy or a close, a close by a buy or a sell. ``custom`` means what its strategy says, so it
  closes nothing and nothing closes it.
* Otherwise it is **expired** after its time to live: the Trader's ``signals.ttl`` as the signal carries it, else ten
  intervals. It counts on the wall clock, from when the signal became active. One on a forming candle of whose close
  nothing is known expires an interval later than that: until then its candle may close.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from chandlery.core.errors import InputError
from chandlery.core.intervals import parse_interval
from chandlery.core.signals import Action, Life, Signal

State = Literal["detected", "confirmed", "invalidated", "active", "closed", "expired"]
STATES: Final[tuple[State, ...]] = ("detected", "confirmed", "invalidated", "active", "closed", "expired")
#: Those that a signal can be found in. ``confirmed`` is none: a confirmed one is active from that moment on.
Standing = Literal["detected", "invalidated", "active", "closed", "expired"]
#: What each of them means, for a person.
STANDINGS: Final[dict[Standing, str]] = {
    "detected": "made on a forming candle whose close hasn't said what it is",
    "invalidated": "withdrawn: the close of its candle doesn't say it",
    "active": "one to act on: made on a closed candle, or confirmed by the close of its candle",
    "closed": "ended by the next opposite signal of the same Trader and symbol",
    "expired": "its time was up, the Trader's `signals.ttl` or else ten intervals, before anything ended it",
}
#: Without `signals.ttl`: a closed candle so many intervals behind the newest one is too old to be decided on (market
#: time), and a signal to act on so many after it became active (wall clock).
TTL_INTERVALS: Final = 10
_OPPOSITES: Final[dict[Action, frozenset[str]]] = {
    "buy": frozenset({"sell", "close"}),
    "sell": frozenset({"buy", "close"}),
    "close": frozenset({"buy", "sell"}),
    "custom": frozenset(),
}
#: Words about signals whose own record hasn't come: it stands before them in its partition, unless it was read from the middle.
_MOST_EARLY: Final = 10_000
#: Of no use to add to a time: what a hostile record claims stays a time that JSON can hold.
_MOST_MS: Final = 2**53


class Step(NamedTuple):
    """A state, and when it began (wall clock of the trader's host, ms)."""

    state: State
    at_ms: int


class SignalLife(NamedTuple):
    """The life so far.

    Attributes:
        steps: oldest first; the first is ``detected``. ended_by: id of the signal that closed it.
        expires_ms: when it expires if nothing ends it before; None: it has ended.
    """

    steps: tuple[Step, ...]
    ended_by: str = ""
    expires_ms: int | None = None

    @property
    def state(self) -> State:
        """The one it is in."""
        return self.steps[-1].state


class _Active(NamedTuple):
    """Where an active signal stands among those of its Trader and symbol."""

    at_ms: int
    signalled_ns: int
    id: str
    action: Action
    among: tuple[str, str]


@dataclass(slots=True)
class _Told:
    """What is told of one signal: the earliest record of it, of it on its closed candle, and of each word.

    ``word`` is what the close says of one on a forming candle, if it says it while the signal lives; ``active``: where
    :class:`Lives` has put it.
    """

    first: Signal | None = None
    closed: Signal | None = None
    confirmed_ms: int | None = None
    invalidated_ms: int | None = None
    word: Step | None = None
    active: _Active | None = field(default=None, compare=False)

    def add(self, record: Signal | Life) -> None:
        if isinstance(record, Signal):
            if self.first is None or _rank(record) < _rank(self.first):
                self.first = record
            if not record.forming and (self.closed is None or _rank(record) < _rank(self.closed)):
                self.closed = record
        elif record.state == "confirmed":
            self.confirmed_ms = _earlier(self.confirmed_ms, record.at_wall_ms)
        else:
            self.invalidated_ms = _earlier(self.invalidated_ms, record.at_wall_ms)
        self.word = self._word()

    def _word(self) -> Step | None:
        first, closed, confirmed_ms = self.first, self.closed, self.confirmed_ms
        if first is None or not first.forming:
            return None
        if closed is not None and (closed.action, closed.session) == (first.action, first.session):
            confirmed_ms = _earlier(confirmed_ms, closed.emitted_wall_ms)
        said = [
            (max(at_ms, first.emitted_wall_ms), state)
            for state, at_ms in (("confirmed", confirmed_ms), ("invalidated", self.invalidated_ms))
            if at_ms is not None
        ]
        if not said:
            return None
        at_ms, state = min(said)
        if at_ms > _expires_unheard_ms(first):
            return None
        return Step("confirmed" if state == "confirmed" else "invalidated", at_ms)

    def activity(self) -> _Active | None:
        """Since when it is active; None: it isn't, or not yet."""
        first = self.first
        if first is None:
            return None
        at_ms = first.emitted_wall_ms
        if first.forming:
            word = self.word
            if word is None or word.state != "confirmed":
                return None
            at_ms = word.at_ms
        return _Active(at_ms, first.stamps.signalled_ns, first.id, first.action, (first.trader, first.symbol))


def _earlier(one: int | None, other: int) -> int:
    return other if one is None else min(one, other)


def _rank(signal: Signal) -> tuple[object, ...]:
    """Of two records of one signal the lower is the earlier; none rank the same that a life could tell apart."""
    what = (signal.action, signal.interval, signal.ttl_ms, signal.session, signal.trader, signal.symbol)
    return (signal.emitted_wall_ms, signal.stamps.signalled_ns, not signal.forming, *what)


@lru_cache(maxsize=64)
def interval_ms(interval: str) -> int:
    """Length of an interval; 0 where the text is none."""
    try:
        return parse_interval(interval).length_ms
    except InputError:
        return 0


def ttl_ms(signal: Signal) -> int:
    """How long a signal is one to act on, ms."""
    return min(signal.ttl_ms, _MOST_MS) if signal.ttl_ms > 0 else TTL_INTERVALS * interval_ms(signal.interval)


def _expires_unheard_ms(signal: Signal) -> int:
    return signal.emitted_wall_ms + interval_ms(signal.interval) + ttl_ms(signal)


class Lives:
    """The lives of many signals, record by record."""

    def __init__(self) -> None:
        self._told: dict[str, _Told] = {}
        self._early: OrderedDict[str, _Told] = OrderedDict()
        #: By Trader, symbol and action: the active signals in order.
        self._active: dict[tuple[str, str, str], list[_Active]] = {}

    def __len__(self) -> int:
        return len(self._told)

    def add(self, record: Signal | Life) -> bool:
        """Take in a record; returns whether it says something new of a signal that is known."""
        told = self._told.get(record.id)
        if told is None:
            told = self._early.setdefault(record.id, _Told())
            if isinstance(record, Life):
                told.add(record)
                if len(self._early) > _MOST_EARLY:
                    self._early.popitem(last=False)
                return False
            self._told[record.id] = self._early.pop(record.id)
        before = told.word
        told.add(record)
        self._place(told)
        return told.word != before

    def _place(self, told: _Told) -> None:
        now, before = told.activity(), told.active
        if now == before:
            return
        if before is not None:
            self._displace(before)
        if now is not None:
            insort(self._active.setdefault((*now.among, now.action), []), now)
        told.active = now

    def _displace(self, active: _Active) -> None:
        key = (*active.among, active.action)
        alike = self._active[key]
        del alike[bisect_right(alike, active) - 1]
        if not alike:
            del self._active[key]

    def forget(self, identity: str) -> None:
        """A signal is of no interest any more; it ends no other one either."""
        told = self._told.pop(identity, None)
        if told is not None and told.active is not None:
            self._displace(told.active)

    def of(self, identity: str, now_ms: int, beside: Lives | None = None) -> SignalLife | None:
        """The life of a signal as it is at ``now_ms`` (wall clock); None: no record of it has come.

        Args:
            beside: other lives, of which one may end it too.
        """
        told = self._told.get(identity)
        if told is None or told.first is None:
            return None
        first = told.first
        steps = [Step("detected", first.emitted_wall_ms)]
        word = told.word
        if word is not None:
            steps.append(word)
        if told.active is None:
            if word is not None:
                return SignalLife(tuple(steps))
            return _until(steps, _expires_unheard_ms(first), now_ms)
        steps.append(Step("active", told.active.at_ms))
        expires_ms = told.active.at_ms + ttl_ms(first)
        among = (self,) if beside is None else (self, beside)
        ending = min((one for lives in among for one in lives._opposites(told.active, expires_ms)), default=None)
        if ending is not None:
            return SignalLife((*steps, Step("closed", ending.at_ms)), ending.id)
        return _until(steps, expires_ms, now_ms)

    def _opposites(self, active: _Active, until_ms: int) -> Iterator[_Active]:
        """Of each opposite action the first that became active after it, if it did in time."""
        for action in _OPPOSITES[active.action]:
            alike = self._active.get((*active.among, action), [])
            at = bisect_right(alike, active)
            if at < len(alike) and (first := alike[at]).at_ms <= until_ms:
                yield first


def _until(steps: list[Step], expires_ms: int, now_ms: int) -> SignalLife:
    if now_ms < expires_ms:
        return SignalLife(tuple(steps), expires_ms=expires_ms)
    return SignalLife((*steps, Step("expired", expires_ms)))
