"""Notices an aggregator that lives and does nothing: a restart from the last checkpoint mends it."""

from __future__ import annotations

from typing import Final

# A takeover waits for a session's end (6 s) and a join; recovery reads some thousand states a second. A
# broker's restart adds 5 s.
UNREADY_S: Final = 60.0
# Records that are there are fetched within milliseconds, within 5 s over a broker's restart; a producer that
# can't deliver fails by itself after 40 s.
STALLED_S: Final = 60.0


class Watchdog:
    """Compares what is with what was."""

    def __init__(self, now_s: float) -> None:
        self._ready_s = now_s
        self._moved_s = now_s
        self._records = -1

    def look(self, now_s: float, *, ready: bool, records: int, lag: int) -> str:
        """Take note.

        Args:
            now_s: monotonic.
            ready: whether partitions are taken up.
            records: records applied so far.
            lag: records known to wait.

        Returns:
            What is wrong, or "".
        """
        if ready:
            self._ready_s = now_s
        else:
            self._moved_s = now_s
            if now_s - self._ready_s > UNREADY_S:
                return f"no partitions could be taken up for {UNREADY_S:g} s"
        if records != self._records or not lag:
            self._records, self._moved_s = records, now_s
        elif now_s - self._moved_s > STALLED_S:
            return f"{lag} records wait and none was applied for {STALLED_S:g} s"
        return ""
