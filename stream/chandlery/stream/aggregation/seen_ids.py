"""Which trade ids were counted already: disjoint ranges, not only a high-water mark (gap fills come late)."""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

import msgspec

#: Most ranges kept. Consecutive ids need one range however many there are; each gap costs one more.
MAX_RANGES: Final = 2_048


class SeenIds(msgspec.Struct, array_like=True):
    """Ids seen in one (symbol, session).

    **Horizon.** When gaps make more than :data:`MAX_RANGES` ranges, the older half is forgotten and ids up to
    the end of it (``floor``) count as seen: a trade that would fill a gap that old is a duplicate. With ids
    ascending by one that takes 2,048 open gaps.

    Attributes:
        floor: every id at or below is taken as seen (initially below any id).
        starts, ends: the ranges above, ascending, disjoint, not adjacent; both ends inclusive.
    """

    floor: int = -(1 << 63)
    starts: list[int] = []
    ends: list[int] = []

    def add_run(self, first: int, last: int) -> bool:
        """Add the ids ``first … last`` if none of them was seen.

        Returns:
            Whether they were added; False changes nothing (some were seen: add them one by one).
        """
        starts, ends = self.starts, self.ends
        if first <= self.floor:
            return False
        if not ends or first > ends[-1]:
            if ends and ends[-1] == first - 1:
                ends[-1] = last
            else:
                starts.append(first)
                ends.append(last)
                self._compact()
            return True
        at = bisect_right(starts, first)
        if (at and ends[at - 1] >= first) or (at < len(starts) and starts[at] <= last):
            return False
        joins_left = at > 0 and ends[at - 1] == first - 1
        joins_right = at < len(starts) and starts[at] == last + 1
        if joins_left and joins_right:
            ends[at - 1] = ends[at]
            del starts[at], ends[at]
        elif joins_left:
            ends[at - 1] = last
        elif joins_right:
            starts[at] = first
        else:
            starts.insert(at, first)
            ends.insert(at, last)
            self._compact()
        return True

    def add_all(self, ids: list[int]) -> list[int] | None:
        """Add ids in any order.

        Returns:
            None when all were new (the usual case), else the positions in ``ids`` of the new ones, ascending.
        """
        count = len(ids)
        first = ids[0]
        if ids[-1] - first == count - 1 and ids == list(range(first, first + count)) and self.add_run(first, ids[-1]):
            return None
        fresh = [at for at, each in enumerate(ids) if self.add_run(each, each)]
        return None if len(fresh) == count else fresh

    def __contains__(self, each: int) -> bool:
        at = bisect_right(self.starts, each)
        return each <= self.floor or (at > 0 and self.ends[at - 1] >= each)

    def _compact(self) -> None:
        if len(self.starts) > MAX_RANGES:
            half = MAX_RANGES // 2
            self.floor = self.ends[half - 1]
            del self.starts[:half], self.ends[:half]
