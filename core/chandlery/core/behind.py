"""How far a reader of Kafka is behind: for how long the oldest record that it has not taken in has been waiting.

Records waiting say little (one may hold one trade or a thousand); what a Trader feels is their age.
"""

from __future__ import annotations

from typing import Final

#: What comes and goes by itself takes less: a broker's restart 4 s, a growth's standstill 2 to 6 s, an aggregator that
#: was killed and begins again 5 s.
BEHIND_MS: Final = 10_000
#: Below it a part has caught up: the aggregator's checkpoint holds it for a second each time; doubled.
CAUGHT_UP_MS: Final = 2_000
#: For how long either must hold: forming candles of an earlier run, read again at a start, are through in a second, and
#: what tells of it is a second old; three times that.
HOLDS_S: Final = 3.0


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


class Lag:
    """Whether one part is too slow for its market, by looks at how far it is behind. Pure.

    Attributes:
        told_ms: the step to be told, which changes when it is twice as much, and no sooner; 0: it doesn't lag.
    """

    def __init__(self) -> None:
        self.told_ms = 0
        self._turned_s: float | None = None

    def note(self, behind_ms: int, now_s: float) -> bool:
        """Take in a look; returns whether ``told_ms`` is another. now_s: monotonic."""
        before = self.told_ms
        turns = behind_ms < CAUGHT_UP_MS if before else behind_ms > BEHIND_MS
        if not turns:
            self._turned_s = None
        elif self._turned_s is None:
            self._turned_s = now_s
        elif now_s - self._turned_s >= HOLDS_S:
            self._turned_s = None
            self.told_ms = 0 if before else BEHIND_MS
        while self.told_ms and self.told_ms * 2 < behind_ms:
            self.told_ms *= 2
        return self.told_ms != before

    def forget(self) -> None:
        """The part can't be asked, or nothing paces it: it doesn't count as lagging."""
        self.told_ms, self._turned_s = 0, None
