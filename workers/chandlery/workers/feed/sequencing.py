"""What one series accepts, and in which order: pure logic between the topics and the segment.

Closed candles come from one topic and forming updates from another; both may repeat (a writer that restarts
emits again), and the one may be ahead of the other. The rules that make that harmless:

* a newer session empties the series, an older one is dropped;
* a closed candle after the last one is appended; one at or before it is a repetition, or a revision when its
  revision is higher than the one held;
* a forming update at or before the last closed candle is stale; one whose predecessor isn't there yet is held
  (one a series) until it is.
"""

from __future__ import annotations

from collections import Counter
from enum import IntEnum
from typing import Final, Protocol

from chandlery.core.clocks import Stamps
from chandlery.core.wire import CandleUpdate

#: Revisions (≥ 1) remembered a series; late trades reach seconds back, so this is hours of revised candles.
REMEMBERED_REVISIONS: Final = 1_024


class Change(IntEnum):
    """What an update changed in its series."""

    NONE = 0
    FORMING = 1
    CLOSED = 2


class SeriesSink(Protocol):
    """Where accepted updates of one series go. Raises ValueError for values that are no numbers."""

    def reset(self, session: int) -> None: ...
    def append(self, update: CandleUpdate, stamps: Stamps) -> None: ...
    def revise(self, update: CandleUpdate) -> bool:
        """Returns: False when the row is no longer held."""
        ...

    def set_forming(self, update: CandleUpdate, stamps: Stamps) -> None: ...
    def clear_forming(self) -> None: ...


class SeriesSequence:
    """Order and identity of one series.

    Attributes:
        session: -1 before the first update. last_open_time_ms: of the newest closed candle, -1 if none.
        forming_open_time_ms: of the forming candle shown, -1 if none.
        counts: shared by all series; ``held = applied from held + held_dropped + held now``.
    """

    __slots__ = (
        "_held",
        "_revisions",
        "_sink",
        "counts",
        "forming_open_time_ms",
        "last_open_time_ms",
        "session",
    )

    def __init__(self, sink: SeriesSink, counts: Counter[str]) -> None:
        self._sink = sink
        self.counts = counts
        self.session = -1
        self.last_open_time_ms = -1
        self.forming_open_time_ms = -1
        self._held: tuple[CandleUpdate, Stamps] | None = None
        self._revisions: dict[int, int] = {}

    @property
    def holds(self) -> bool:
        """Whether a forming update waits for its predecessor."""
        return self._held is not None

    def begin(self, session: int) -> None:
        """Start a newer session with an empty series; nothing happens when it isn't newer."""
        if session <= self.session:
            return
        self._sink.reset(session)
        self.session = session
        self.last_open_time_ms = -1
        self.forming_open_time_ms = -1
        self._drop_held()
        self._revisions.clear()

    def apply(self, session: int, update: CandleUpdate, stamps: Stamps) -> Change:
        """Take one update in, or leave it out and count why.

        Raises:
            ValueError: its values are no numbers; the series is as it was.
        """
        if session < self.session:
            self.counts["session"] += 1
            return Change.NONE
        if session > self.session:
            self.begin(session)
        if update.state == "forming":
            return self._forming(update, stamps)
        return self._closed(update, stamps)

    def _closed(self, update: CandleUpdate, stamps: Stamps) -> Change:
        open_time_ms = update.open_time_ms
        if open_time_ms <= self.last_open_time_ms:
            return self._again(update)
        self._sink.append(update, stamps)
        if -1 < self.last_open_time_ms < update.prev_open_time_ms:
            self.counts["gaps"] += 1
        self.last_open_time_ms = open_time_ms
        self.counts["closed"] += 1
        if update.filled:
            self.counts["filled"] += 1
        if update.revision:
            self._remember(open_time_ms, update.revision)
        if -1 < self.forming_open_time_ms <= open_time_ms:
            self._sink.clear_forming()
            self.forming_open_time_ms = -1
        self._release()
        return Change.CLOSED

    def _again(self, update: CandleUpdate) -> Change:
        """A closed candle that isn't newer than the last: a repetition or a revision."""
        # Only revised candles are remembered; every other one is held at revision 0.
        if update.revision <= self._revisions.get(update.open_time_ms, 0):
            self.counts["final" if update.state == "final" else "duplicate"] += 1
            return Change.NONE
        if not self._sink.revise(update):
            self.counts["revision_too_old"] += 1
            return Change.NONE
        self._remember(update.open_time_ms, update.revision)
        self.counts["revised"] += 1
        return Change.CLOSED

    def _remember(self, open_time_ms: int, revision: int) -> None:
        self._revisions[open_time_ms] = revision
        if len(self._revisions) > REMEMBERED_REVISIONS:
            del self._revisions[min(self._revisions)]

    def _forming(self, update: CandleUpdate, stamps: Stamps) -> Change:
        open_time_ms = update.open_time_ms
        if open_time_ms <= self.last_open_time_ms or open_time_ms < self.forming_open_time_ms:
            self.counts["stale_forming"] += 1
            return Change.NONE
        held_open_time_ms = -1 if self._held is None else self._held[0].open_time_ms
        if update.prev_open_time_ms > self.last_open_time_ms:
            return self._hold(update, stamps, held_open_time_ms)
        self._sink.set_forming(update, stamps)
        self.forming_open_time_ms = open_time_ms
        self.counts["forming"] += 1
        if held_open_time_ms <= open_time_ms:
            self._drop_held()
        return Change.FORMING

    def _hold(self, update: CandleUpdate, stamps: Stamps, held_open_time_ms: int) -> Change:
        if update.open_time_ms < held_open_time_ms:
            self.counts["stale_forming"] += 1
            return Change.NONE
        self._drop_held()
        self._held = (update, stamps)
        self.counts["held"] += 1
        return Change.NONE

    def _release(self) -> None:
        """Show the held update if its predecessor is there now; drop it if it is stale."""
        if self._held is None:
            return
        update, stamps = self._held
        if update.open_time_ms <= self.last_open_time_ms:
            self._drop_held()
        elif update.prev_open_time_ms <= self.last_open_time_ms:
            self._held = None
            self._forming(update, stamps)

    def _drop_held(self) -> None:
        if self._held is not None:
            self._held = None
            self.counts["held_dropped"] += 1
