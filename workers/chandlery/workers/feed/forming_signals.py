"""Signals made on forming candles, until the close of their candle says what they are. Pure: no clock, no network.

The trader signals on the closed candle as on any other, and says when it has decided on it (``Decided``). What of the
close repeats a signal of the forming candle confirms it; what it leaves out is withdrawn. Ids, not the trader, are asked
which is which: so it is the same after a restart of its process, in another incarnation of the same code, and in
another pod, whose feed has read from the topic what stands there (recall.py).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

from chandlery.core.signals import Action, Decided, Life, Signal

#: Signals remembered whose candle hasn't closed: 40 a Trader where a worker has 256; about 500 bytes each. One that is
#: forgotten, or whose candle nobody decides on, stays ``detected`` until its time is up.
MOST_FORMING: Final = 10_000


class _Candle(NamedTuple):
    trader: str
    code: str
    symbol: str
    session: int
    open_time_ms: int


class _Told(NamedTuple):
    candle: _Candle
    action: Action


class MissedCloses:
    """What one ring's closes said and was dropped: of such a close nobody knows what it repeats, so nothing is withdrawn.

    All slots of a close stand in a row, its ``Decided`` last, though not always in one look at the ring: the newest is enough.
    """

    def __init__(self) -> None:
        self._of: tuple[str, int] | None = None
        self._of_some = False
        self._why = ""

    def note(self, signal: Signal | None, why: str) -> None:
        """A slot was dropped. ``signal``: what it held; None: it can't be read, so it may be of whatever close is next."""
        if signal is None:
            self._of_some = True
        elif signal.forming:
            return
        else:
            self._of = (signal.symbol, signal.open_time_ms)
        self._why = why

    def settle(self, decided: Decided) -> str:
        """A close ends; returns why something of it was dropped, empty: nothing was."""
        is_missed = self._of_some or self._of == (decided.symbol, decided.open_time_ms)
        self._of, self._of_some = None, False
        return self._why if is_missed else ""


class FormingSignals:
    """What waits for a close.

    Attributes:
        forgotten: signals that had to make room for others.
    """

    def __init__(self, limit: int = MOST_FORMING) -> None:
        self._limit = limit
        self._told: OrderedDict[str, _Told] = OrderedDict()
        self._on: dict[_Candle, dict[str, None]] = {}
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._told)

    def note(
        self, identity: str, action: Action, *, trader: str, code: str, symbol: str, session: int, open_time_ms: int
    ) -> None:
        """A signal on a forming candle is on the topic, or on its way there."""
        if identity in self._told:
            return
        candle = _Candle(trader, code, symbol, session, open_time_ms)
        self._told[identity] = _Told(candle, action)
        self._on.setdefault(candle, {})[identity] = None
        if len(self._told) > self._limit:
            self.settle(next(iter(self._told)))
            self.forgotten += 1

    def settle(self, identity: str) -> None:
        """It is known what a signal is."""
        told = self._told.pop(identity, None)
        if told is None:
            return
        on = self._on[told.candle]
        del on[identity]
        if not on:
            del self._on[told.candle]

    def confirmed(self, signal: Signal) -> Life | None:
        """What a signal on a closed candle confirms; None: nothing, or it says something else."""
        told = self._told.get(signal.id)
        if told is None or signal.forming or (told.action, told.candle.session) != (signal.action, signal.session):
            return None
        self.settle(signal.id)
        at_ms = signal.emitted_wall_ms
        return Life(signal.id, signal.trader, signal.symbol, "confirmed", signal.open_time_ms, at_ms)

    def withdrawn(self, decided: Decided) -> list[Life]:
        """Which signals the close didn't repeat."""
        candle = _Candle(decided.trader, decided.code, decided.symbol, decided.session, decided.open_time_ms)
        left = list(self._on.get(candle, ()))
        for identity in left:
            self.settle(identity)
        at_ms = decided.at_wall_ms
        return [Life(one, decided.trader, decided.symbol, "invalidated", decided.open_time_ms, at_ms) for one in left]
