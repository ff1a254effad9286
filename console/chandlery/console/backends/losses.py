"""When a feed was last seen to lose something, by its kind, of counters that begin anew with the processes that keep them."""

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


class FeedLosses:
    """When each kind of a feed's losses last grew. One kind's counter that begins anew hides no other's."""

    def __init__(self) -> None:
        self._kinds = {name: LastLoss() for name in ("missing_ids", "dropped", "dead_letters")}
        self._missing_ids = 0

    def note(self, now_s: float, *, ingest: tuple[int, int] | None, dead_letters: int | None) -> None:
        """Take in the counts of now; None: whoever counts them has told nothing new.

        Args:
            ingest: missing ids, dropped. Ids that are missing at one look alone came a little late: of two connections.
        """
        if ingest is not None:
            missing_ids, dropped = ingest
            self._kinds["missing_ids"].note(min(missing_ids, self._missing_ids), now_s)
            self._missing_ids = missing_ids
            self._kinds["dropped"].note(dropped, now_s)
        if dead_letters is not None:
            self._kinds["dead_letters"].note(dead_letters, now_s)

    def ages_ms(self, now_s: float) -> dict[str, int]:
        """How long ago the newest loss of each kind was seen, ms; a kind of which nothing was lost isn't there."""
        ages = {name: kind.age_ms(now_s) for name, kind in self._kinds.items()}
        return {name: age for name, age in ages.items() if age is not None}
