"""Signals that were told as expired while what had closed them wasn't read again yet. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from chandlery.core.signal_life import SignalLife
from chandlery.core.signals import Completion, Life, Signal, SignalsRecord

_Key = tuple[str, str]


class Corrections:
    """Remembers such a signal until something of its Trader and symbol is read that is too late to have closed it."""

    def __init__(self) -> None:
        self._expired: dict[_Key, dict[str, int]] = {}

    def told(self, signal: Signal, life: SignalLife) -> None:
        """A signal that was read again was told, with this life."""
        self.forget(signal)
        if life.state == "expired":
            self._expired.setdefault((signal.trader, signal.symbol), {})[signal.id] = life.steps[-1].at_ms

    def forget(self, signal: Signal) -> None:
        """It won't be told again."""
        key = (signal.trader, signal.symbol)
        alike = self._expired.get(key, {})
        alike.pop(signal.id, None)
        if not alike:
            self._expired.pop(key, None)

    def after(self, records: Iterable[SignalsRecord], life_of: Callable[[str], SignalLife | None]) -> list[str]:
        """Ids of those that are closed after all, now that these records are known; each once."""
        newest_ms: dict[_Key, int] = {}
        for record in records:
            if not isinstance(record, Completion):
                at_ms = record.at_wall_ms if isinstance(record, Life) else record.emitted_wall_ms
                key = (record.trader, record.symbol)
                newest_ms[key] = max(at_ms, newest_ms.get(key, at_ms))
        closed: list[str] = []
        for key, at_ms in newest_ms.items():
            for identity, expired_ms in list(self._expired.get(key, {}).items()):
                life = life_of(identity)
                if life is not None and life.state == "closed":
                    closed.append(identity)
                elif at_ms <= expired_ms:
                    continue
                del self._expired[key][identity]
            if not self._expired.get(key, True):
                del self._expired[key]
        return closed
