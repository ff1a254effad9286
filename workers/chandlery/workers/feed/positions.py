"""Where the live consumer stands: the next offset of each partition that has not been taken in yet."""

from __future__ import annotations

from aiokafka import TopicPartition


class LivePositions:
    """Positions of the partitions that are consumed live.

    Attributes:
        revision: grows whenever a partition is added or removed (the consumer then assigns anew).
    """

    def __init__(self) -> None:
        self._next: dict[TopicPartition, int] = {}
        self.revision = 0

    def get(self, tp: TopicPartition) -> int | None:
        """Next offset to take in, or None if the partition isn't consumed."""
        return self._next.get(tp)

    def add(self, tp: TopicPartition, offset: int) -> None:
        """Consume a partition from ``offset`` on; nothing happens if it is consumed already."""
        if tp not in self._next:
            self._next[tp] = offset
            self.revision += 1

    def keep(self, wanted: set[TopicPartition]) -> None:
        """Stop consuming every partition that isn't among ``wanted``."""
        for tp in [tp for tp in self._next if tp not in wanted]:
            del self._next[tp]
            self.revision += 1

    def advance(self, tp: TopicPartition, offset: int) -> None:
        """Everything before ``offset`` is taken in."""
        if tp in self._next:
            self._next[tp] = offset

    def all(self) -> dict[TopicPartition, int]:
        """A copy of all positions."""
        return dict(self._next)
