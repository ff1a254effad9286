"""The Traders of a worker that get their windows through pipes, beside those on shared memory.

The segment is there for both: windows are read from it. What serves them is made with the first Trader that needs
it, for it needs numpy, 12 MB that a feed over shared memory does without.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from chandlery.core.assignment import TraderAssignment
from chandlery.core.errors import MachineError
from chandlery.core.settings import FeedSettings
from chandlery.core.transports import transport_of
from chandlery.workers.feed.router import Router

if TYPE_CHECKING:
    from chandlery.workers.feed.window_sender import WindowSender

log = logging.getLogger("chandlery.feed.pipes")


class PipeTraders:
    """Serves ``windows.sock`` from the first one on that needs it.

    Args:
        segment_path: the feed's own segment, where the windows come from.
        counts: shared counters.

    Attributes:
        keys: of those on pipes now: no doorbell needs to ring for them.
    """

    def __init__(self, settings: FeedSettings, segment_path: str, router: Router, counts: Counter[str]) -> None:
        self._default, self._for_all = settings.transport, settings.transport_for_all
        self._path = Path(settings.rings_dir) / "windows.sock"
        self._segment_path = segment_path
        self._router = router
        self._counts = counts
        self._sender: WindowSender | None = None
        self._traders: list[TraderAssignment] = []
        self.keys: frozenset[str] = frozenset()
        self._wanted = asyncio.Event()
        if settings.transport == "Pipe":
            self._wanted.set()

    def follow(self, traders: Iterable[TraderAssignment]) -> None:
        """Follow an assignment."""
        self._traders = [
            one for one in traders if transport_of(one.transport, self._default, for_all=self._for_all) == "Pipe"
        ]
        self.keys = frozenset(one.key for one in self._traders)
        if self._traders:
            self._wanted.set()
        self._tell_sender()

    def follow_segment(self) -> None:
        """The segment has grown into another file."""
        if self._sender is not None:
            self._sender.follow_segment()

    def changed(self) -> None:
        """Pass on what changed in the segment since the last time."""
        if self._sender is not None and self._router.watch_changes:
            self._sender.changed(self._router.take_changed())

    async def run(self) -> None:
        """Wait until somebody needs windows, and serve them until cancelled.

        Raises:
            MachineError: the socket can't be made.
        """
        await self._wanted.wait()
        # In a thread: candles of the others go on meanwhile.
        module = await asyncio.to_thread(importlib.import_module, "chandlery.workers.feed.window_sender")
        sender: WindowSender = module.WindowSender(self._path, self._segment_path, self._counts)
        # Told of everything from here on, before anybody can connect.
        self._sender = sender
        self._tell_sender()
        try:
            await sender.start()
            log.info("windows served", extra={"socket": str(self._path)})
            await asyncio.get_running_loop().create_future()
        except OSError as error:
            raise MachineError(f"{self._path}: can't make the socket: {error.strerror or error}") from error
        finally:
            self._sender = None
            await sender.stop()

    def _tell_sender(self) -> None:
        # Noted for nobody, what changes would only pile up.
        self._router.watch_changes = self._sender is not None and bool(self._traders)
        if self._sender is not None:
            self._sender.assign(self._traders)
