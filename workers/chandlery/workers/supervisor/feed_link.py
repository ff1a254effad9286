"""The line to the feed: assignments come, statuses go; reconnects for ever."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import msgspec

from chandlery.workers.control_messages import (
    MAX_LINE_BYTES,
    AssignmentMessage,
    ReplaceRing,
    StatusMessage,
    decode_from_feed,
    line_of,
)

_log = logging.getLogger("chandlery")
#: A feed that doesn't read: what it would get next replaces what it hasn't got, so nothing more is queued.
MAX_QUEUED_BYTES: Final = 1024 * 1024
#: The feed serves its socket within a second of its start; looking ten times a second costs nothing.
_RECONNECT_S: Final = 0.1
#: A feed takes a status within a turn of its loop: ten times the 0.2 s of its worst stall. Behind the 2 s that traders have to
#: end (keeper.TERM_S) that makes 4 of the 10 s after which `chandlery up` kills a supervisor, and of the 40 s that a pod has.
FLUSH_S: Final = 2.0


class FeedLink:
    """Connects to the feed's control socket.

    Args:
        taken: called with each assignment. replace_ring: called with the incarnation whose ring can't be trusted.
        connected: called when a connection stands.
    """

    def __init__(
        self,
        path: str,
        taken: Callable[[AssignmentMessage], None],
        replace_ring: Callable[[str], None],
        connected: Callable[[], None],
    ) -> None:
        self._path = path
        self._taken = taken
        self._replace_ring = replace_ring
        self._connected = connected
        self._writer: asyncio.StreamWriter | None = None

    async def run(self) -> None:
        """Stay connected until cancelled."""
        reported = ""
        while True:
            try:
                reader, self._writer = await asyncio.open_unix_connection(self._path, limit=MAX_LINE_BYTES)
                reported = ""
                _log.info("feed connected", extra={"path": self._path})
                self._connected()
                await self._read(reader)
            except OSError as error:
                if str(error) != reported:
                    reported = str(error)
                    _log.info("waits for the feed", extra={"path": self._path, "error": reported})
            finally:
                self._hang_up()
            await asyncio.sleep(_RECONNECT_S)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await reader.readline()
            except ValueError as error:
                _log.error("the feed's line is too long", extra={"error": str(error)})
                return
            if not line:
                _log.warning("feed disconnected")
                return
            try:
                message = decode_from_feed(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                _log.error("the feed's line can't be decoded", extra={"error": str(error)})
                continue
            if isinstance(message, ReplaceRing):
                self._replace_ring(message.key)
            else:
                self._taken(message)

    def send(self, message: StatusMessage) -> bool:
        """Send a status; False when there is no feed to take it."""
        writer = self._writer
        if writer is None or writer.transport.get_write_buffer_size() > MAX_QUEUED_BYTES:
            return False
        writer.write(line_of(message))
        return True

    async def flush(self) -> None:
        """Wait until what was sent is out, for :data:`FLUSH_S` at most; the log says what isn't."""
        writer = self._writer
        if writer is None:
            return
        # Else it would be enough if what is queued were below asyncio's own limit of 64 KiB.
        writer.transport.set_write_buffer_limits(0)
        try:
            async with asyncio.timeout(FLUSH_S):
                await writer.drain()
        except TimeoutError:
            left = writer.transport.get_write_buffer_size()
            _log.warning(
                "the feed was not told all: it doesn't read, and how its traders stood last is lost to it",
                extra={"path": self._path, "untold_bytes": left, "waited_s": FLUSH_S},
            )
        except OSError:
            pass  # it is gone: there is nobody to tell

    def _hang_up(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
