"""``control.sock``: the supervisor's line to the feed. One JSON object a line, each way.

The newest connection is the supervisor's; an older one is closed. A line that can't be used ends its
connection, counted: the supervisor reconnects by itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from chandlery.workers.control_messages import (
    MAX_LINE_BYTES,
    AssignmentMessage,
    ReplaceRing,
    StatusMessage,
    decode_status,
    line_of,
)
from chandlery.workers.feed.connections import Connections

log = logging.getLogger("chandlery.feed.control")

#: A supervisor that takes nothing for this long is stuck (it reads in an own task); it may connect again.
_WRITE_TIMEOUT_S: Final = 10.0


class ControlServer:
    """Serves the control socket.

    Args:
        received: called with each status. changed: called when the supervisor comes or goes.
    """

    def __init__(
        self,
        path: Path,
        counts: Counter[str],
        received: Callable[[StatusMessage], None],
        changed: Callable[[], None],
    ) -> None:
        self._path = path
        self._counts = counts
        self._received = received
        self._changed = changed
        self._server: asyncio.Server | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._current: bytes | None = None
        self._rings: dict[str, bytes] = {}
        self._wake = asyncio.Event()
        self._connections = Connections(self._serve)

    @property
    def connected(self) -> bool:
        """Whether a supervisor is connected."""
        return self._writer is not None

    async def start(self) -> None:
        """Listen."""
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._connections.accept, str(self._path), limit=MAX_LINE_BYTES)

    async def stop(self) -> None:
        """Close the socket and the connection."""
        if self._server is not None:
            self._server.close()
        if self._writer is not None:
            self._writer.close()
        await self._connections.stop()
        self._path.unlink(missing_ok=True)

    def assign(self, message: AssignmentMessage) -> None:
        """Tell the supervisor what to run, now and whenever it connects; only the newest is sent."""
        self._current = line_of(message)
        self._wake.set()

    def replace_ring(self, key: str) -> None:
        """Ask the supervisor for a fresh ring of an incarnation, when it is connected."""
        self._rings[key] = line_of(ReplaceRing(key))
        self._wake.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = writer
        self._changed()
        # Each connection has its own: one that is ending would take what wakes its successor, and the requests with it.
        wake = self._wake = asyncio.Event()
        sender = asyncio.create_task(self._send(writer, wake))
        try:
            await self._receive(reader, writer)
        except (OSError, ValueError, msgspec.DecodeError) as error:
            # ValueError: a line longer than the limit.
            self._counts["control_errors"] += 1
            log.warning("control connection ended", extra={"reason": str(error)})
        finally:
            sender.cancel()
            writer.close()
            if self._writer is writer:
                self._writer = None
                self._changed()

    async def _receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            if not line.endswith(b"\n") or self._writer is not writer:
                return
            self._received(decode_status(line))

    async def _send(self, writer: asyncio.StreamWriter, wake: asyncio.Event) -> None:
        sent: bytes | None = None
        try:
            while True:
                wake.clear()
                if self._current is not None and self._current is not sent:
                    sent = self._current
                    writer.write(sent)
                while self._rings and self._writer is writer:
                    writer.write(self._rings.pop(next(iter(self._rings))))
                async with asyncio.timeout(_WRITE_TIMEOUT_S):
                    await writer.drain()
                await wake.wait()
        except (OSError, TimeoutError) as error:
            log.warning("supervisor takes nothing", extra={"reason": repr(error)})
            writer.close()
