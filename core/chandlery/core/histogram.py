"""Bounded latency histograms: log-linear buckets in µs, 3 % wide, one fixed array each."""

from __future__ import annotations

import math
import time
from array import array
from bisect import bisect_right
from itertools import accumulate
from typing import Final, NamedTuple

#: Values below 2^_LINEAR_BITS µs have a bucket each; above, every doubling has 2^(_LINEAR_BITS - 1) buckets.
_LINEAR_BITS: Final = 6
#: Values from 2^_TOP_BITS µs (about 36 minutes) on share the last bucket.
_TOP_BITS: Final = 31
_HALF: Final = 1 << (_LINEAR_BITS - 1)
_BUCKETS: Final = (1 << _LINEAR_BITS) + (_TOP_BITS - _LINEAR_BITS) * _HALF


def bucket_of(value_us: float) -> int:
    """Bucket of a duration; negative ones count as 0."""
    value = max(0, int(value_us))
    if value >= 1 << _TOP_BITS:
        return _BUCKETS - 1
    shift = value.bit_length() - _LINEAR_BITS
    if shift <= 0:
        return value
    return shift * _HALF + (value >> shift)


def upper_us(bucket: int) -> int:
    """Highest whole µs that falls into a bucket."""
    if bucket < 1 << _LINEAR_BITS:
        return bucket
    shift = bucket // _HALF - 1
    return ((bucket - shift * _HALF + 1) << shift) - 1


#: Bounds under which Prometheus gets its buckets, µs: two a doubling, from 1 µs to 67 s. Each is a bucket's edge here.
BOUNDS_US: Final = (1, 2, *(bound for power in range(2, 26) for bound in (1 << power, 3 << (power - 1))), 1 << 26)


class Exemplar(NamedTuple):
    """One duration of many, by the trace that shows it. value_us in µs; at_s: wall clock, s."""

    trace_id: str
    value_us: float
    at_s: float


class Histogram:
    """Counts of durations.

    Attributes:
        count: how many. sum_us: their sum, µs. exemplars: the newest traced one by index of :data:`BOUNDS_US`.
    """

    def __init__(self) -> None:
        self._counts = array("q", bytes(8 * _BUCKETS))
        self.count = 0
        self.sum_us = 0.0
        self.exemplars: dict[int, Exemplar] = {}

    def record(self, value_us: float, trace_id: str = "") -> None:
        """Count one duration, µs; ``trace_id`` (hex) where there is a trace of it."""
        self._counts[bucket_of(value_us)] += 1
        self.count += 1
        self.sum_us += max(0.0, value_us)
        if trace_id:
            bound = bisect_right(BOUNDS_US, max(0, int(value_us)))
            self.exemplars[bound] = Exemplar(trace_id, value_us, time.time())

    def below(self) -> list[int]:
        """How many durations lie below each of :data:`BOUNDS_US` (whole µs, as they are counted)."""
        upto = list(accumulate(self._counts, initial=0))
        return [upto[bucket_of(bound)] for bound in BOUNDS_US]

    def quantile(self, share: float) -> float:
        """The duration (µs, upper end of its bucket) that ``share`` (0 … 1] of all don't exceed; 0 if empty."""
        if not self.count:
            return 0.0
        rank = max(1, math.ceil(share * self.count))
        return float(upper_us(next(bucket for bucket, upto in enumerate(accumulate(self._counts)) if upto >= rank)))

    def summary(self) -> dict[str, float]:
        """``{p50, p99, count}``; µs."""
        return {"p50": self.quantile(0.5), "p99": self.quantile(0.99), "count": self.count}
