"""MarketFeeds that did not start while the instance runs: why, and when each is tried again. Pure but for the clock."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Container
from dataclasses import dataclass, replace
from typing import Final

from chandlery.core.manifests import Key
from chandlery.core.resources import MarketFeed

#: A start costs about 3 s of a core (Faust's import): at worst a tenth of one core goes into trying.
FIRST_PAUSE_S: Final = 1.0
LAST_PAUSE_S: Final = 30.0


def pause_s(attempt: int, chance: float) -> float:
    """Pause after failed attempt number ``attempt`` (from 1), s: doubling, capped, with jitter of 50 to 100 %."""
    full: float = min(FIRST_PAUSE_S * 2.0 ** min(attempt - 1, 10), LAST_PAUSE_S)
    return full * (0.5 + chance / 2)


@dataclass(frozen=True)
class FailedStart:
    """The last failed start of one feed.

    Attributes:
        feed: as it was then: an edited one is tried at once. problem: what went wrong, one sentence.
        attempts: failed starts in a row. due_s: when to try again, by the clock of :class:`FeedStarts`; infinite while
            that is under way.
    """

    feed: MarketFeed
    problem: str
    attempts: int
    due_s: float


class FeedStarts:
    """Failed starts by feed."""

    def __init__(
        self, now_s: Callable[[], float] = time.monotonic, chance: Callable[[], float] = random.random
    ) -> None:
        self._now_s = now_s
        self._chance = chance
        self.failed: dict[Key, FailedStart] = {}

    def begin(self, key: Key) -> None:
        """An attempt begins: until it has ended, none is due."""
        if key in self.failed:
            self.failed[key] = replace(self.failed[key], due_s=math.inf)

    def fail(self, key: Key, feed: MarketFeed, problem: str) -> None:
        """A start failed."""
        before = self.failed.get(key)
        attempts = 1 if before is None or before.feed.spec != feed.spec else before.attempts + 1
        self.failed[key] = FailedStart(feed, problem, attempts, self._now_s() + pause_s(attempts, self._chance()))

    def succeed(self, key: Key) -> None:
        """A start succeeded."""
        self.failed.pop(key, None)

    def keep(self, wanted: Container[Key]) -> None:
        """Forget the feeds that nobody wants any more."""
        for key in [key for key in self.failed if key not in wanted]:
            del self.failed[key]

    def is_due(self, key: Key, feed: MarketFeed) -> bool:
        """Whether to try now: never failed, long enough ago, or it has been edited since."""
        failed = self.failed.get(key)
        return failed is None or failed.feed.spec != feed.spec or self._now_s() >= failed.due_s

    def next_s(self) -> float | None:
        """Seconds until the next one is due; None when none is."""
        next_s = min((each.due_s for each in self.failed.values()), default=math.inf)
        return max(0.0, next_s - self._now_s()) if next_s < math.inf else None

    def why(self, key: Key) -> str:
        """What a person should know of a feed that did not start; empty when it did."""
        failed = self.failed.get(key)
        if failed is None:
            return ""
        left_s = max(0.0, failed.due_s - self._now_s())
        when = f"in {left_s:.0f} s" if left_s < math.inf else "under way"
        return (
            f"MarketFeed {failed.feed.full_name} does not start (attempt {failed.attempts}, next {when}): "
            f"{failed.problem}"
        )
