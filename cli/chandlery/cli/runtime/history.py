"""What markets made up or read as history, and has still to reach the segments before the market begins."""

from __future__ import annotations

from collections.abc import Iterable

from chandlery.cli.runtime.feedgroup import FeedGroup
from chandlery.cli.runtime.workergroup import WorkerGroup
from chandlery.core.errors import UnavailableError


async def history_left(feeds: Iterable[FeedGroup], workers: Iterable[WorkerGroup]) -> int | None:
    """How many records, and series in catch-up, are still on their way.

    Returns:
        0: all is through, and the first trade of the market isn't held up behind it. None: not known yet, since history
        is still being made, or somebody doesn't answer.
    """
    left = 0
    try:
        for feed in feeds:
            lag = await feed.history_left()
            if lag is None:
                return None
            left += lag
        for group in workers:
            # Asked, and behind the aggregators: what was told last may be of before their last candles.
            counts = (await group.watch.refresh()).feed
            left += int(counts.get("lag", 0)) + len(counts.get("catching_up", ()))
    except UnavailableError:
        return None
    return left


class HistoryShare:
    """Which share is through, by the most that was ever left."""

    def __init__(self) -> None:
        self._most = 0

    def of(self, left: int | None) -> float | None:
        """The share, 0 … 1; None where what is left isn't known."""
        if left is None:
            return None
        self._most = max(self._most, left)
        return 1 - left / self._most if self._most else 1.0
