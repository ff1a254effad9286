"""The newest signals that the broker acknowledged, each with its completion and what the close of its candle said of it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from chandlery.core.signals import Completion, Life, Signal


@dataclass(slots=True)
class Acknowledged:
    """One signal; ``word`` None: nothing is told of it, or it was made on a closed candle."""

    signal: Signal
    completion: Completion
    word: Life | None = None


class NewestSignals:
    """Bounded: the oldest goes first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._signals: OrderedDict[str, Acknowledged] = OrderedDict()
        #: Words that were acknowledged before their signals: where those were sent again.
        self._early: OrderedDict[str, Life] = OrderedDict()

    def add(self, signal: Signal, completion: Completion) -> None:
        """A signal was acknowledged."""
        self._signals[signal.id] = Acknowledged(signal, completion, self._early.pop(signal.id, None))
        if len(self._signals) > self._most:
            self._signals.popitem(last=False)

    def hear(self, word: Life) -> None:
        """A word about a signal was acknowledged."""
        known = self._signals.get(word.id)
        if known is not None:
            known.word = known.word or word
            return
        self._early.setdefault(word.id, word)
        if len(self._early) > self._most:
            self._early.popitem(last=False)

    def newest(self, limit: int) -> list[Acknowledged]:
        """The newest first."""
        found: list[Acknowledged] = []
        for one in reversed(self._signals.values()):
            if len(found) >= limit:
                break
            found.append(one)
        return found
