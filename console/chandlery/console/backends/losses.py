"""When a feed was last seen to lose something, of counters that begin anew with the processes that keep them."""

from __future__ import annotations


class LastLoss:
    """When a count of what was lost last grew, by this process's monotonic clock.

    What is found at the first look may be old; nobody tells, and a person should see it once.
    """

    def __init__(self) -> None:
        self._lost = 0
        self._at_s: float | None = None

    def note(self, lost: int, now_s: float) -> None:
        """Take in the count of now; a smaller one is of a process that began anew, or of trades that came after all."""
        if lost > self._lost:
            self._at_s = now_s
        self._lost = lost

    def age_ms(self, now_s: float) -> int | None:
        """How long ago the newest loss was seen, ms; None: there was none."""
        return None if self._at_s is None else max(0, int((now_s - self._at_s) * 1000))
