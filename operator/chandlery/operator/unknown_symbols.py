"""Which symbols a feed's source doesn't have, kept over restarts of its ingest and of the operator."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

#: A new process knows of none until the source has refused them once more, which it is asked for as soon as there is a
#: connection: three times the 5 s between two questions of ingest's status.
FORGET_S: Final = 15.0


class UnknownSymbols:
    """What ingest's answers say of symbols that the source doesn't have.

    One that was said stays so until ingest has been connected to the source for ``FORGET_S`` without saying it: else
    each restart of ingest would have a version without a market begin in the place of the one before.

    Args:
        before: what an earlier process wrote down: a restart of whoever asks makes no symbol known either.
    """

    def __init__(self, before: Collection[str] = ()) -> None:
        # By symbol, since when (s) answers with a connection lack it; None: the last one had it, or had no connection.
        self._lacked_since_s: dict[str, float | None] = dict.fromkeys(before)

    @property
    def symbols(self) -> list[str]:
        """Symbols that the source doesn't have, sorted."""
        return sorted(self._lacked_since_s)

    def note(self, told: Collection[str], connected: bool, now_s: float) -> bool:
        """Take an answer of ingest; returns whether the symbols are others than before.

        Args:
            told: symbols that it says the source doesn't have. connected: whether the source delivers.
            now_s: a clock that never goes back.
        """
        before = self.symbols
        for symbol, since_s in list(self._lacked_since_s.items()):
            if symbol in told or not connected:
                self._lacked_since_s[symbol] = None
            elif since_s is None:
                self._lacked_since_s[symbol] = now_s
            elif now_s - since_s >= FORGET_S:
                del self._lacked_since_s[symbol]
        for symbol in told:
            self._lacked_since_s[symbol] = None
        return self.symbols != before
