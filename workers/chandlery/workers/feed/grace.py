"""Series that nobody reads any more: kept warm for a while, for whoever comes back or moves here."""

from __future__ import annotations

from collections.abc import Callable

from chandlery.core.assignment import SeriesRef


class Grace:
    """The series in their grace, the one that was left first in front. Pure but for its clock.

    Args:
        grace_s: how long they stay. clock: seconds that never go back.
    """

    def __init__(self, grace_s: float, clock: Callable[[], float]) -> None:
        self._grace_s = grace_s
        self._clock = clock
        self._left_s: dict[SeriesRef, float] = {}

    def __len__(self) -> int:
        return len(self._left_s)

    def begin(self, ref: SeriesRef) -> None:
        """Nobody reads a series any more; nothing happens where that is known."""
        self._left_s.setdefault(ref, self._clock())

    def end(self, ref: SeriesRef) -> None:
        """It is read again, or gone."""
        self._left_s.pop(ref, None)

    def oldest(self, most: int) -> list[SeriesRef]:
        """At most so many of those that were left first."""
        return list(self._left_s)[: max(0, most)]

    def over(self) -> list[SeriesRef]:
        """Those whose time is over."""
        until_s = self._clock() - self._grace_s
        return [ref for ref, left_s in self._left_s.items() if left_s <= until_s]
