"""Memory over time: the sum of ten minutes, and how fast each process grows."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from chandlery.console.api.models import Memory, MemoryMeasure, ProcessMemory, SegmentUse

#: How long back is known.
WINDOW_MS: Final = 600_000
#: A point this often: 120 in ten minutes.
STEP_MS: Final = 5_000
#: A process that has just begun always grows: its first minute is left out.
SETTLING_MS: Final = 60_000
#: Less than this says nothing of growth.
LEAST_MS: Final = 180_000
#: Kinds that fill what they may have, and then grow no more: a heap of fixed size, stores of a fixed number of records.
BOUNDED: Final = frozenset({"kafka", "console"})
_HOUR_MS: Final = 3_600_000


@dataclass(frozen=True)
class Measured:
    """Memory of one process now.

    Attributes:
        instance: what is another process under the same name (its pid).
        rss_bytes, pss_bytes: resident (0: that isn't told), and its share where what is shared is divided; None: that isn't
            known.
    """

    name: str
    kind: str
    instance: int
    rss_bytes: int
    pss_bytes: int | None = None

    @property
    def counted_bytes(self) -> int:
        """What it adds to the sum: resident memory would count what it shares once more."""
        return self.rss_bytes if self.pss_bytes is None else self.pss_bytes


@dataclass
class _Course:
    """One process over time: (at_ms, bytes)."""

    instance: int
    begun_ms: int
    points: deque[tuple[int, int]] = field(default_factory=deque)
    growth: float | None = None


class MemoryHistory:
    """Takes what processes take, again and again; tells it with its past."""

    def __init__(self) -> None:
        self._courses: dict[str, _Course] = {}
        self._sums: deque[tuple[int, int]] = deque()
        self._now: list[Measured] = []
        self._at_ms = 0

    def note(self, processes: Iterable[Measured], at_ms: int) -> None:
        """Take in what every process takes now; those not named are gone.

        Args:
            at_ms: wall clock; a clock that was set back begins a new past.
        """
        self._now, self._at_ms = list(processes), at_ms
        names = {one.name for one in self._now}
        self._courses = {name: course for name, course in self._courses.items() if name in names}
        _add(self._sums, at_ms, sum(one.counted_bytes for one in self._now))
        for one in self._now:
            course = self._courses.get(one.name)
            if course is None or course.instance != one.instance or at_ms < course.begun_ms:
                course = self._courses[one.name] = _Course(one.instance, at_ms)
            # Of a share alone nothing is said: it grows when those go with whom it is shared.
            grown = one.rss_bytes and at_ms - course.begun_ms >= SETTLING_MS
            if grown and _add(course.points, at_ms, one.rss_bytes):
                course.growth = growth_bytes_per_h(course.points)

    def told(self, segments: Sequence[SegmentUse]) -> Memory:
        """Processes by what they take, most first, and the sum over time, which ends with now."""
        total = sum(one.counted_bytes for one in self._now)
        history = list(self._sums)
        if history and history[-1][0] < self._at_ms:
            history.append((self._at_ms, total))
        return Memory(
            processes=[
                ProcessMemory(
                    name=one.name,
                    kind=one.kind,
                    rss_bytes=one.rss_bytes,
                    pss_bytes=one.pss_bytes,
                    bounded=one.kind in BOUNDED,
                    growth_bytes_per_h=self._courses[one.name].growth,
                )
                for one in sorted(self._now, key=lambda one: (-one.counted_bytes, one.name))
            ],
            segments=list(segments),
            total_bytes=total,
            measure=_measure(self._now),
            total_rss_bytes=sum(one.rss_bytes for one in self._now),
            history=history,
        )


def _measure(processes: Sequence[Measured]) -> MemoryMeasure:
    known = {one.pss_bytes is not None for one in processes}
    return "mixed" if len(known) > 1 else "PSS" if known == {True} else "RSS"


def growth_bytes_per_h(points: Sequence[tuple[int, int]]) -> float | None:
    """Slope of the line through (at_ms, bytes) by least squares, bytes an hour; None: too little is known."""
    if len(points) < 2 or points[-1][0] - points[0][0] < LEAST_MS:
        return None
    first_ms, first_bytes = points[0]
    times = [at_ms - first_ms for at_ms, _ in points]
    sizes = [size - first_bytes for _, size in points]
    mean_time, mean_size = sum(times) / len(times), sum(sizes) / len(sizes)
    spread = sum((time - mean_time) ** 2 for time in times)
    slope = sum((time - mean_time) * (size - mean_size) for time, size in zip(times, sizes, strict=True)) / spread
    return round(slope * _HOUR_MS, 1)


def _add(points: deque[tuple[int, int]], at_ms: int, size: int) -> bool:
    """Add a point where the last one is old enough; returns whether."""
    if points and at_ms < points[-1][0]:
        points.clear()
    added = not points or at_ms - points[-1][0] >= STEP_MS
    if added:
        points.append((at_ms, size))
    while at_ms - points[0][0] > WINDOW_MS:
        points.popleft()
    return added
