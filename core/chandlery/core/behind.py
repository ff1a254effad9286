"""How far a reader of Kafka is behind: for how long the oldest record that it has not taken in has been waiting.

Records waiting say little (one may hold one trade or a thousand); what a Trader feels is their age.
"""

from __future__ import annotations


class Behind:
    """One partition. Pure: the caller says what time it is.

    Times are wall clock, ms; a record's is when the broker appended it.
    """

    def __init__(self) -> None:
        self._through_ms: int | None = None
        self._began_ms = 0
        self._age_ms = 0
        self._moved = False

    def took(self, appended_ms: int, now_ms: int) -> None:
        """A record was taken in."""
        # What is next was appended no sooner.
        self._through_ms = max(self._through_ms or 0, appended_ms)
        self._age_ms = max(0, now_ms - appended_ms)
        self._moved = True

    def look(self, now_ms: int, *, waits: bool) -> None:
        """Called about once a second. waits: whether a record is known to wait."""
        self._began_ms = self._began_ms or now_ms
        if not waits and not self._moved:
            # Where nothing came for a second, nothing older than this look can be waiting at the next one. Where
            # something came, that there is no more may be news of an old fetch.
            self._through_ms, self._age_ms = now_ms, 0
        self._moved = False

    def ms(self, now_ms: int, *, waits: bool) -> int:
        """How far behind now; of one that never took anything in, how long it has been looked at."""
        if not waits:
            return self._age_ms
        since_ms = self._through_ms if self._through_ms is not None else self._began_ms
        return max(0, now_ms - since_ms) if since_ms else 0
