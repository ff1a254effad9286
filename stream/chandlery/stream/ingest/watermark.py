"""Exchange time in silence: how far a watermark may go when no trade moves it.

``ExchangeTime`` estimates the exchange's clock from the newest frame of any kind plus the time elapsed since,
by our monotonic clock. It follows the *newest* frame and not the luckiest one: when the exchange's own
delivery falls behind, so must the watermark. Pure: every method takes the time.
"""

from __future__ import annotations

from collections import deque
from typing import Final

#: An exchange's streams are not in step: a trade arrives up to about 200 ms after frames stamped later (the
#: captures of August 2024: 150 ms would have been too little, 200 ms enough).
MARGIN_MS: Final = 250
#: A connection that brought nothing for this long may be stalled. Two seconds and the margin stay well below
#: the five seconds of lateness that the aggregator allows.
FLOWING_NS: Final = 2_000_000_000


class ExchangeTime:
    """The exchange's time as its newest frames tell it, on one connection after another."""

    def __init__(self) -> None:
        self._connected = False
        self._exchange_ms = 0
        self._at_ns = 0
        self._alive_ns = 0

    def connected(self, now_ns: int) -> None:
        """A connection is up. Nothing is known of the exchange's time until its first frame."""
        self._connected, self._exchange_ms, self._alive_ns = True, 0, now_ns

    def disconnected(self) -> None:
        """The connection is gone: nothing can be said until there is another one."""
        self._connected = False

    def heard(self, exchange_ms: int, now_ns: int) -> None:
        """A frame stamped ``exchange_ms`` came."""
        self._exchange_ms, self._at_ns, self._alive_ns = exchange_ms, now_ns, now_ns

    def alive(self, now_ns: int) -> None:
        """Something without a time came, such as a pong: nothing sent before it is still under way."""
        self._alive_ns = now_ns

    def estimate_ms(self, now_ns: int) -> int | None:
        """Exchange time up to which everything should have come, or None when that can't be said."""
        if not self._connected or not self._exchange_ms or now_ns - self._alive_ns > FLOWING_NS:
            return None
        return self._exchange_ms + (now_ns - self._at_ns) // 1_000_000 - MARGIN_MS


class ClockOffset:
    """Exchange clock minus local wall clock, by a minimum filter over about a minute.

    Every frame gives ``exchange - local``: the true offset less the frame's delay. The largest such value of
    recent times had the shortest delay and is the best estimate (never too large).
    """

    _BUCKET_NS: Final = 10_000_000_000
    _BUCKETS: Final = 6

    def __init__(self) -> None:
        self._buckets: deque[tuple[int, float]] = deque(maxlen=self._BUCKETS)

    def observe(self, exchange_ms: int, wall_ns: int) -> None:
        """Note a frame stamped ``exchange_ms`` that came at ``wall_ns`` by our wall clock."""
        offset = exchange_ms - wall_ns / 1e6
        bucket = wall_ns // self._BUCKET_NS
        if self._buckets and self._buckets[-1][0] == bucket:
            if offset > self._buckets[-1][1]:
                self._buckets[-1] = (bucket, offset)
        else:
            self._buckets.append((bucket, offset))

    @property
    def offset_ms(self) -> float | None:
        """Exchange clock minus ours, ms; None before the first frame."""
        return max((offset for _, offset in self._buckets), default=None)
