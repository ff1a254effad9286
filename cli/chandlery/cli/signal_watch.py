"""What to tell of signals that are followed: each once, then each change of its life. Pure: no clock, no network."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

import msgspec

from chandlery.cli.collecting import Collected, Found
from chandlery.core.signal_life import SignalLife, State
from chandlery.core.signals import Completion, Signal

#: A completion follows its signal within milliseconds; without one a signal is told after so long, without its latency.
_COMPLETION_MS: Final = 1_000
#: Time is up by the clock; what closed a signal just before may still be on its way here.
_LATE_MS: Final = 1_000
#: Ids seen long ago don't come again: a repetition follows within seconds.
_MOST_KEPT: Final = 50_000
_Key = tuple[str, str]


class Change(NamedTuple):
    """A signal that was told has come into another state.

    Attributes:
        state: ``confirmed`` (it is active from then on), ``invalidated``, ``closed`` or ``expired``.
        at_ms: since when, by the wall clock of the Trader's host. ended_by: id of the signal that closed it.
    """

    signal: Signal
    state: State
    at_ms: int
    ended_by: str = ""


class _Told(NamedTuple):
    """How many steps of a signal's life are told, and when it expires."""

    steps: int
    expires_ms: int


News = Found | Change


def change_json(change: Change) -> str:
    """A change as one object, which its ``kind`` tells from a signal and from every record of the topic."""
    signal = change.signal
    told = {"kind": "state", "id": signal.id, "trader": signal.trader, "symbol": signal.symbol, "state": change.state}
    return msgspec.json.encode({**told, "at_ms": change.at_ms, "ended_by": change.ended_by}).decode()


class SignalWatch:
    """The signals of one topic.

    A signal is told once its completion is there, or a second after it came. ``expired`` is told a second late, so that
    what closed a signal in its last moment is heard before. Times are by the wall clock, ms.

    Args:
        wanted: whether a signal is to be told.
        collected: what was read of the topic before. None of it is told, nor its changes, but for what is shown.
    """

    def __init__(self, wanted: Callable[[Signal], bool], collected: Collected | None = None) -> None:
        self._wanted = wanted
        self._collected = Collected() if collected is None else collected
        #: Signals that aren't told yet, and when they came.
        self._held: OrderedDict[str, int] = OrderedDict()
        #: Those told that haven't ended, by Trader and symbol: they end each other.
        self._open: dict[_Key, dict[str, _Told]] = {}
        self._times: list[tuple[int, _Key]] = []
        self._touched: set[_Key] = set()

    def show(self, found: Found) -> None:
        """A signal that was read before is told: tell its changes from now on."""
        if found.life is not None:
            self._note(_key(found.signal), found.signal.id, found.life)

    def take(self, values: Iterable[bytes | None], now_ms: int) -> list[News]:
        """Take in records; returns what is to be told now."""
        collected = self._collected
        for value in values:
            record = collected.decode(value)
            if record is None:
                continue
            new = collected.put(record)
            if new is not None and self._wanted(new):
                self._held[new.id] = now_ms
            if not isinstance(record, Completion):
                self._touched.add((record.trader, record.symbol))
        told = self.due(now_ms)
        self._forget()
        return told

    def due(self, now_ms: int) -> list[News]:
        """What is to be told for time has passed."""
        told: list[News] = list(self._let_go(now_ms))
        while self._times and self._times[0][0] <= now_ms:
            self._touched.add(heapq.heappop(self._times)[1])
        # What ends a signal is told before that it does.
        waiting = {_key(self._collected.signals[identity]) for identity in self._held}
        for key in sorted(self._touched - waiting):
            told.extend(self._changes(key, now_ms - _LATE_MS))
        self._touched &= waiting
        return told

    def _let_go(self, now_ms: int) -> Iterator[Found]:
        for identity, since_ms in list(self._held.items()):
            signal = self._collected.signals[identity]
            # A clock that was set back waits for nobody.
            if not signal.stamps.acknowledged_ns and since_ms <= now_ms < since_ms + _COMPLETION_MS:
                continue
            del self._held[identity]
            found = Found(signal, self._collected.lives.of(identity, now_ms))
            self.show(found)
            yield found

    def _changes(self, key: _Key, now_ms: int) -> Iterator[Change]:
        told = self._open.get(key, {})
        for identity, before in list(told.items()):
            life = self._collected.lives.of(identity, now_ms)
            if life is None:  # forgotten
                del told[identity]
                continue
            for step in life.steps[before.steps :]:
                if step.state != "active":
                    ended_by = life.ended_by if step.state == "closed" else ""
                    yield Change(self._collected.signals[identity], step.state, step.at_ms, ended_by)
            self._note(key, identity, life)
        if not told:
            self._open.pop(key, None)

    def _note(self, key: _Key, identity: str, life: SignalLife) -> None:
        told = self._open.setdefault(key, {})
        before = told.pop(identity, None)
        if life.expires_ms is None:
            return
        told[identity] = _Told(len(life.steps), life.expires_ms)
        if before is None or before.expires_ms != life.expires_ms:
            heapq.heappush(self._times, (life.expires_ms + _LATE_MS, key))

    def _forget(self) -> None:
        signals = self._collected.signals
        while len(signals) > _MOST_KEPT and (oldest := next(iter(signals))) not in self._held:
            self._collected.forget(oldest)


def _key(signal: Signal) -> _Key:
    return (signal.trader, signal.symbol)
