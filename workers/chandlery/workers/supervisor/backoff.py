"""When to start a failed trader again. Pure."""

from __future__ import annotations

from typing import Final

FIRST_S: Final = 0.5
MOST_S: Final = 30.0
#: A trader that ran so long was healthy: its next failure is a first one.
HEALTHY_S: Final = 60.0
#: From this many failures in a row on it is a crash loop: still restarted, but someone should look.
CRASH_LOOP: Final = 5


class Backoff:
    """Failures in a row, and the pause after each: 0.5, 1, 2 … 30 s."""

    def __init__(self) -> None:
        self.failures = 0

    def failed(self, ran_s: float) -> float:
        """Note a failure after the process ran for ``ran_s`` seconds; returns the pause in seconds."""
        if ran_s >= HEALTHY_S:
            self.failures = 0
        self.failures += 1
        return float(min(MOST_S, FIRST_S * 2.0 ** min(self.failures - 1, 16)))

    @property
    def crash_loop(self) -> bool:
        return self.failures >= CRASH_LOOP

    def forget(self) -> None:
        """A changed specification deserves a fresh start."""
        self.failures = 0
