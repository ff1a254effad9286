"""Restarts of trader processes over a run, from what statuses say of those that are there."""

from __future__ import annotations

from collections import Counter
from itertools import chain

from chandlery.core.assignment import WorkerStatus


class TraderRestarts:
    """Restarts by Trader, also of those that went.

    A status counts from 0 with each incarnation, each supervisor, and each Trader that is made anew: what falls has begun
    anew, and what it stood at before counts on.
    """

    def __init__(self) -> None:
        self._total: Counter[str] = Counter()
        self._newest: dict[tuple[str, int], int] = {}

    @property
    def by_trader(self) -> dict[str, int]:
        """Restarts so far, zeros included."""
        return dict(self._total)

    def note(self, status: WorkerStatus) -> None:
        """Take in what a worker says now."""
        for trader, told in chain(status.traders.items(), status.successors.items()):
            if told.state == "Pending":
                continue  # nobody's word yet: the feed says so too of those that no supervisor has told it of
            which = trader, told.incarnation
            before = self._newest.get(which, 0)
            self._total[trader] += told.restarts - (before if told.restarts >= before else 0)
            self._newest[which] = told.restarts
