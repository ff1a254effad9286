"""A removed incarnation's last steps: its process stops, the feed drains its ring, the ring's file goes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable
from typing import Final

from chandlery.core.errors import SegmentError
from chandlery.workers.segment import SignalRing

_log = logging.getLogger("chandlery")
#: The feed publishes what is in a ring within milliseconds; a broker that restarts needs 4 s.
DRAIN_S: Final = 10.0
_LOOK_S: Final = 0.05


class Leaving:
    """One incarnation that is no longer assigned.

    Args:
        inherited: whether nobody is left who shall go on from what its ring tells: only then the file may go.

    Attributes:
        uid: of the Trader that leaves, empty where nobody knows it. keep_ring: set when the same one came back meanwhile.
    """

    def __init__(
        self,
        trader: str,
        uid: str,
        ring_path: str,
        kept: asyncio.Future[None],
        inherited: Callable[[], bool] = lambda: True,
    ) -> None:
        self.uid = uid
        self.keep_ring = asyncio.Event()
        self._trader = trader
        self._ring_path = ring_path
        self._kept = kept
        self._inherited = inherited

    @property
    def process_ended(self) -> bool:
        return self._kept.done()

    async def process_end(self) -> None:
        """Wait for the process to stop."""
        # Not `await self._kept`: our own cancellation would cut its orderly stop short.
        await asyncio.wait([self._kept])

    async def run(self) -> None:
        """Wait for the process to stop and the ring to empty, remove it."""
        await self.process_end()
        left = await self._drain()
        while not self._inherited() and not self.keep_ring.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self.keep_ring.wait()
        if self.keep_ring.is_set():
            return
        if left:
            _log.warning("ring removed with signals in it", extra={"trader": self._trader, "signals": left})
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._ring_path)

    async def _drain(self) -> int:
        """Wait until the ring is empty; returns how many signals it still holds at the end of patience."""
        deadline_s = time.monotonic() + DRAIN_S
        try:
            with SignalRing.attach(self._ring_path) as ring:
                while ring.depth and time.monotonic() < deadline_s and not self.keep_ring.is_set():
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_LOOK_S):
                            await self.keep_ring.wait()
                return ring.depth
        except SegmentError:
            return 0  # never made, or unsound: the feed has said so in its own counters
