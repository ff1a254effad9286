"""Memory over time: what processes had, for how long that is known, and how fast each grows. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from chandlery.console.api.models import Memory, ProcessMemory, SegmentUse

#: One point every 10 s for ten minutes.
_APART_MS: Final = 10_000
_POINTS: Final = 60
#: A shorter time says nothing of growth: a process that starts grows by all that it is.
_LEAST_MS: Final = 60_000
_HOUR_MS: Final = 3_600_000


class MemoryHistory:
    """Sizes of processes, the last ten minutes."""

    def __init__(self) -> None:
        self._totals: deque[tuple[int, int]] = deque(maxlen=_POINTS)
        self._sizes: dict[str, deque[tuple[int, int]]] = {}

    def memory(self, processes: Sequence[ProcessMemory], segments: Sequence[SegmentUse], at_ms: int) -> Memory:
        """These processes with their growth, and the history of their sum."""
        total = sum(process.rss_bytes for process in processes)
        if processes and (not self._totals or at_ms - self._totals[-1][0] >= _APART_MS):
            self._totals.append((at_ms, total))
            for process in processes:
                self._sizes.setdefault(process.name, deque(maxlen=_POINTS)).append((at_ms, process.rss_bytes))
            for gone in self._sizes.keys() - {process.name for process in processes}:
                del self._sizes[gone]
        grown = [
            process.model_copy(update={"growth_bytes_per_h": self._growth(process, at_ms)}) for process in processes
        ]
        return Memory(processes=grown, segments=list(segments), total_rss_bytes=total, history=list(self._totals))

    def _growth(self, process: ProcessMemory, at_ms: int) -> float | None:
        known = self._sizes.get(process.name)
        if not known or at_ms - known[0][0] < _LEAST_MS:
            return None
        return (process.rss_bytes - known[0][1]) * _HOUR_MS / (at_ms - known[0][0])
