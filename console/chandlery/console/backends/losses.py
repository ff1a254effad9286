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

    def note(self, missing_ids: int, dropped: int, dead_letters: int, now_s: float) -> None:
        """Take in the counts of now. Ids that are missing at one look alone came a little late: of two connections."""
        lasting = min(missing_ids, self._missing_ids)
        self._missing_ids = missing_ids
        counts = {"missing_ids": lasting, "dropped": dropped, "dead_letters": dead_letters}
        for name, lost in counts.items():
            self._kinds[name].note(lost, now_s)

    def ages_ms(self, now_s: float) -> dict[str, int]:
        """How long ago the newest loss of each kind was seen, ms; a kind of which nothing was lost isn't there."""
        ages = {name: kind.age_ms(now_s) for name, kind in self._kinds.items()}
        return {name: age for name, age in ages.items() if age is not None}
