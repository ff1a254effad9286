"""The clocks and the sleep that a source sees, so that tests can run it on virtual time."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Monotonic and wall time, and waiting."""

    def monotonic_ns(self) -> int:
        """Now by the host's monotonic clock, ns."""

    def wall_ns(self) -> int:
        """Now by the host's wall clock, ns since the epoch."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class SystemClock:
    """The host's own clocks."""

    def monotonic_ns(self) -> int:
        """Now by the host's monotonic clock, ns."""
        return time.monotonic_ns()

    def wall_ns(self) -> int:
        """Now by the host's wall clock, ns since the epoch."""
        return time.time_ns()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)
