"""Bounded latency histograms: log-linear buckets in µs, 3 % wide, one fixed array each."""

from __future__ import annotations

import math
from array import array
from itertools import accumulate
from typing import Final

from chandlery.core.latency import STAGES, Account

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


class Histogram:
    """Counts of durations."""

    def __init__(self) -> None:
        self._counts = array("q", bytes(8 * _BUCKETS))
        self.count = 0

    def record(self, value_us: float) -> None:
        """Count one duration, µs."""
        self._counts[bucket_of(value_us)] += 1
        self.count += 1

    def quantile(self, share: float) -> float:
        """The duration (µs, upper end of its bucket) that ``share`` (0 … 1] of all don't exceed; 0 if empty."""
        if not self.count:
            return 0.0
        rank = max(1, math.ceil(share * self.count))
        return float(upper_us(next(bucket for bucket, upto in enumerate(accumulate(self._counts)) if upto >= rank)))

    def summary(self) -> dict[str, float]:
        """``{p50, p99, count}``; µs."""
        return {"p50": self.quantile(0.5), "p99": self.quantile(0.99), "count": self.count}


class LatencyBook:
    """Histograms of every stage and of the two spans that people ask about."""

    def __init__(self) -> None:
        self.stages = {name: Histogram() for name in STAGES}
        self.frame_to_signal = Histogram()
        self.visible_to_decided = Histogram()
        self.corrected = 0

    def record(self, account: Account) -> None:
        """Count one signal's account."""
        for stage in account.stages:
            histogram = self.stages.get(stage.name)
            if histogram is not None:
                histogram.record(stage.duration_us)
        if account.frame_to_signal_us is not None:
            self.frame_to_signal.record(account.frame_to_signal_us)
        if account.visible_to_decided_us is not None:
            self.visible_to_decided.record(account.visible_to_decided_us)
        self.corrected += account.corrected

    def summary(self) -> dict[str, object]:
        """As in the status (docs/status.md); µs."""
        return {
            "frame_to_signal": self.frame_to_signal.summary(),
            "visible_to_decided": self.visible_to_decided.summary(),
            "stages": {name: histogram.summary() for name, histogram in self.stages.items()},
            "corrected_stamps": self.corrected,
        }
