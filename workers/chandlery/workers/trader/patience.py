"""How soon a trader looks again for what is gone and comes back without a word: its segment, its feed's socket."""

from __future__ import annotations

import time
from typing import Final

#: Between a writer's marking its file and its renaming the next one lie a few calls; where it was killed between them, its
#: successor comes when it is started again, in a container after a second or more.
SOONEST_S: Final = 0.001
#: At most so long, however long it has been gone: 20 looks a second, each about 50 µs.
LATEST_S: Final = 0.05
#: In between, a look after each 16th of the time that it has been gone: so it is found at most that much late, and until
#: the looks come every LATEST_S there have been 80 of them (16, and 16 · ln 50), 4 ms of CPU time.
_PART: Final = 16


class Patience:
    """Looks often at first, then ever more seldom."""

    def __init__(self) -> None:
        self._gone_since_s: float | None = None

    def found(self) -> None:
        """It is there."""
        self._gone_since_s = None

    def missed(self) -> None:
        """It isn't there."""
        if self._gone_since_s is None:
            self._gone_since_s = time.monotonic()

    def wait_s(self) -> float:
        """Seconds to wait before the next look."""
        gone_s = 0.0 if self._gone_since_s is None else time.monotonic() - self._gone_since_s
        return min(LATEST_S, max(SOONEST_S, gone_s / _PART))
