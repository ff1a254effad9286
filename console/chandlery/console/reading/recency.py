"""When signals came, by a clock that is never set back: what windows such as "the last minute" are cut by. Pure.

Wall clocks jump: NTP puts them right, somebody sets them. A window that reaches from a moment of the wall clock to now
would then hold an hour of signals, or none. So a signal's age is worked out once, when it is read, and from then on it
grows old by the steady clock of this process.
"""

from __future__ import annotations

import time
from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from chandlery.console.reading.entries import Entry, Key

_NS_PER_MS: Final = 1_000_000


class Now(NamedTuple):
    """One moment by both clocks, ms: ``steady`` never goes back and begins anywhere, ``wall`` is Unix time."""

    steady_ms: int
    wall_ms: int


def now() -> Now:
    """This moment."""
    return Now(time.monotonic_ns() // _NS_PER_MS, time.time_ns() // _NS_PER_MS)


def came_ms(append_ms: int, at: Now, caught_up_ms: int | None) -> int:
    """When a record that is read now was appended, by the steady clock, ms; never later than now.

    What the two wall clocks (the broker's, ours) say is believed unless it can't be: nothing comes from the future, and
    nothing that was read after a moment at which everything had been read is older than that.

    Args:
        append_ms: the broker's time. at: when it is read.
        caught_up_ms: the last such moment of its partition, by the steady clock; None: none yet, as in its history.
    """
    came = at.steady_ms - max(0, at.wall_ms - append_ms)
    return came if caught_up_ms is None else max(came, min(caught_up_ms, at.steady_ms))


class Timeline:
    """Signals in the order in which they came, of all Traders and of each."""

    def __init__(self) -> None:
        self._all: list[Entry] = []
        self._of_trader: dict[str, list[Entry]] = {}

    def __len__(self) -> int:
        return len(self._all)

    @property
    def oldest(self) -> Entry:
        """The one that came first; there must be one."""
        return self._all[0]

    def add(self, entry: Entry) -> None:
        """Take a signal in."""
        insort(self._all, entry, key=place)
        insort(self._of_trader.setdefault(entry.signal.trader, []), entry, key=place)

    def remove(self, entry: Entry) -> None:
        """Forget one that was taken in."""
        of_trader = self._of_trader[entry.signal.trader]
        for entries in (self._all, of_trader):
            take_out(entries, entry, place)
        if not of_trader:
            del self._of_trader[entry.signal.trader]

    def since(self, steady_ms: int, trader: str = "") -> Sequence[Entry]:
        """Those that came at that time or later, oldest first."""
        entries = self._entries(trader)
        return entries[bisect_left(entries, steady_ms, key=_came_ms) :]

    def count_since(self, steady_ms: int, trader: str = "") -> int:
        """How many those are."""
        entries = self._entries(trader)
        return len(entries) - bisect_left(entries, steady_ms, key=_came_ms)

    def _entries(self, trader: str) -> list[Entry]:
        return self._of_trader.get(trader, []) if trader else self._all


def take_out(entries: list[Entry], entry: Entry, order: Callable[[Entry], Any]) -> None:
    """Take a signal out of a list in that order: itself, where others stand in the same place."""
    at = bisect_left(entries, order(entry), key=order)
    while entries[at] is not entry:
        at += 1
    del entries[at]


def place(entry: Entry) -> tuple[int, Key]:
    """Where a signal stands among those that came."""
    return entry.came_ms, entry.key


def _came_ms(entry: Entry) -> int:
    return entry.came_ms
