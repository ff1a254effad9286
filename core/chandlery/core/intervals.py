"""Candle intervals: ``1s`` … ``1M``, case-sensitive, aligned to UTC.

Fixed intervals are aligned to the epoch, weeks to Monday 00:00 UTC, months to the first of the month.
"""

from __future__ import annotations

import datetime as dt
import functools
import re
from dataclasses import dataclass
from typing import Final

from chandlery.core.errors import InputError

_UNIT_MS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
#: Also the pattern of the resources' schema.
PATTERN: Final = "^([1-9][0-9]{0,3})([smhdwM])$"
#: As the pattern has it.
_MOST_COUNT: Final = 9_999
_COMPILED: Final = re.compile(PATTERN)
# 1970-01-05 was the first Monday after the epoch.
_FIRST_MONDAY_MS: Final = 4 * 86_400_000
#: Intervals shorter than this go to the ``candles-fast`` topic.
FAST_BELOW_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A candle interval.

    Attributes:
        text: canonical spelling, such as ``5m``.
        length_ms: length in milliseconds; for months the nominal 30 days (use :meth:`next_ms`).
    """

    text: str
    length_ms: int

    def floor_ms(self, time_ms: int) -> int:
        """Open time (ms since the epoch, UTC) of the candle that contains ``time_ms``."""
        if self.text.endswith("M"):
            return _floor_month(time_ms, int(self.text[:-1]))
        shift = _FIRST_MONDAY_MS if self.text.endswith("w") else 0
        return (time_ms - shift) // self.length_ms * self.length_ms + shift

    def next_ms(self, open_time_ms: int) -> int:
        """Open time of the candle after the one that opens at ``open_time_ms`` (= its close time)."""
        if self.text.endswith("M"):
            months = int(self.text[:-1])
            moment = dt.datetime.fromtimestamp(open_time_ms / 1000, dt.UTC)
            index = moment.year * 12 + moment.month - 1 + months
            return _month_ms(index)
        return open_time_ms + self.length_ms

    @property
    def is_fast(self) -> bool:
        """Whether closed candles of this interval go to the short-lived ``candles-fast`` topic."""
        return self.length_ms < FAST_BELOW_MS

    def __str__(self) -> str:
        return self.text


def _month_ms(index: int) -> int:
    return int(dt.datetime(index // 12, index % 12 + 1, 1, tzinfo=dt.UTC).timestamp() * 1000)


def _floor_month(time_ms: int, months: int) -> int:
    moment = dt.datetime.fromtimestamp(time_ms / 1000, dt.UTC)
    index = moment.year * 12 + moment.month - 1
    return _month_ms(index // months * months)


@functools.cache
def parse_interval(text: str) -> Interval:
    """Parse an interval.

    Args:
        text: a number and a unit, ``s m h d w M``, such as ``1s``, ``15m``, ``1d``.

    Raises:
        InputError: the text is no interval; the message says what would be right.
    """
    match = _COMPILED.fullmatch(text)
    if match is None:
        raise InputError(
            f"{text!r} is no interval: write a number and a unit (s, m, h, d, w or M; "
            "case matters: 1m is a minute, 1M a month), such as 1s, 5m, 1h or 1d"
        )
    count, unit = int(match[1]), match[2]
    if unit == "M":
        if 12 % count:
            raise InputError(f"{text!r}: months must divide a year: 1M, 2M, 3M, 4M, 6M or 12M")
        return Interval(text, count * 30 * 86_400_000)
    length_ms = count * _UNIT_MS[unit]
    if unit in "smh" and 86_400_000 % length_ms:
        near = ", ".join(f"{fitting}{unit}" for fitting in _fitting(count, 86_400_000 // _UNIT_MS[unit]))
        raise InputError(
            f"{text!r} doesn't divide a day evenly, so its candles would not align to UTC; the nearest that do: {near}"
        )
    return Interval(text, length_ms)


def _fitting(count: int, day: int) -> list[int]:
    """The nearest numbers that divide a day of so many units: two below, two above, as far as there are."""
    most = min(day, _MOST_COUNT)
    below = [number for number in range(1, min(count, most + 1)) if day % number == 0]
    above = [number for number in range(count + 1, most + 1) if day % number == 0]
    return [*below[-2:], *above[:2]]
