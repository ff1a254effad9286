"""``transport: Pipe``: windows sent to each trader over ``windows.sock`` instead of shared memory.

A trader's connection holds which of its series changed, not what to send: when there is room again, the newest
state is encoded. So a slow trader misses forming candles only; closed rows since the last message are always
part of the next one, and a reader that was lapped or sees a revision gets a whole window.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from chandlery.core.absence import Absence
from chandlery.core.assignment import SeriesRef, TraderAssignment
from chandlery.workers.feed.connections import Connections
from chandlery.workers.feed.sequencing import Change
from chandlery.workers.segment import SegmentReader, SeriesReader
from chandlery.workers.windows import encode_absence, encode_window

log = logging.getLogger("chandlery.feed.windows")

#: Most rows of a whole window: 2,048 × 56 bytes.
MOST_ROWS: Final = 2_048
#: Stamps are sent for this many of the newest rows: decisions are made on those.
_STAMPED_ROWS: Final = 8
#: Bytes that may wait in a connection before its trader counts as slow (about two whole windows).
_WAITING_BYTES: Final = 256 * 1024


class _Sent:
    """What a connection has been sent of one series, since it was looked up for the ``life``-th time."""

    __slots__ = ("count", "life", "reader", "revision", "session")

    def __init__(self, reader: SeriesReader, life: int) -> None:
        self.reader = reader
        self.life = life
        self.session = -1
        self.revision = -1
        self.count = 0


class _Connection:
    def __init__(self, trader: TraderAssignment) -> None:
        self.series: frozenset[SeriesRef] = frozenset()
        self.own: frozenset[SeriesRef] = frozenset()
        self.sent: dict[SeriesRef, _Sent] = {}
        #: How often a series was begun with: each beginning has a number of its own.
        self.lives = 0
        self.absent: dict[SeriesRef, Absence] = {}
        self.assign(trader)
        self.changed: dict[SeriesRef, None] = dict.fromkeys(trader.series())
        self.wake = asyncio.Event()
        self.wake.set()

    def assign(self, trader: TraderAssignment) -> None:
        self.series = frozenset(trader.series())
        own = frozenset(SeriesRef(symbol, trader.interval) for symbol in trader.symbols)
        #: Series whose forming candle alone is worth a message.
        self.own = own if trader.trigger == "EveryUpdate" else frozenset()
        # Freed series too: they may come anew before the segment grows, after which no reader of before is alive.
        for ref in [ref for ref, sent in self.sent.items() if ref not in self.series or not sent.reader.alive]:
            del self.sent[ref]
        for ref in self.absent.keys() - self.series:
            del self.absent[ref]

    def begin(self, ref: SeriesRef, reader: SeriesReader) -> _Sent:
        """Begin with a series, or begin anew: nothing sent before goes on."""
        self.lives += 1
        self.absent.pop(ref, None)
        sent = self.sent[ref] = _Sent(reader, self.lives)
        return sent


class WindowSender:
    """Serves ``windows.sock``.

    Args:
        segment_path: the feed's own segment, where the windows come from.
        counts: gets ``windows_sent`` and ``windows_conflated``.
    """

    def __init__(self, path: Path, segment_path: str, counts: Counter[str]) -> None:
        self._path = path
        self._segment_path = segment_path
        self._reader = SegmentReader.open(segment_path)
        self._length = min(MOST_ROWS, self._reader.rows - self._reader.guard_rows)
        self._counts = counts
        self._names: list[tuple[str, str]] | None = None
        self._traders: dict[str, TraderAssignment] = {}
        self._connections: dict[str, _Connection] = {}
        self._server: asyncio.Server | None = None
        self._served = Connections(self._serve)

    async def start(self) -> None:
        """Listen."""
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._served.accept, str(self._path))

    async def stop(self) -> None:
        """Close the socket and every connection."""
        if self._server is not None:
            self._server.close()
        await self._served.stop()
        self._reader.close()
        self._path.unlink(missing_ok=True)

    def assign(self, traders: Iterable[TraderAssignment]) -> None:
        """Follow an assignment: who may connect, and what each one gets."""
        self._traders = {trader.key: trader for trader in traders}
        self._names = None
        for name, connection in self._connections.items():
            if name in self._traders:
                connection.assign(self._traders[name])
                connection.changed.update(dict.fromkeys(connection.series))
                connection.wake.set()

    def follow_segment(self) -> None:
        """The segment has grown into another file: read there, and let go of the one before.

        Rows, revisions and sessions are the same there, so nobody is sent anything for it but what comes only now.
        """
        self._reader.close()
        self._reader = SegmentReader.open(self._segment_path)
        self._names = None
        for connection in self._connections.values():
            for ref, sent in list(connection.sent.items()):
                reader = self._reader.series(ref.symbol, ref.interval)
                if reader is None:
                    del connection.sent[ref]
                else:
                    sent.reader = reader
            if missing := connection.series - connection.sent.keys():
                connection.changed.update(dict.fromkeys(missing))
                connection.wake.set()

    def changed(self, series: dict[SeriesRef, Change]) -> None:
        """Note what changed for everyone who reads it."""
        for connection in self._connections.values():
            for ref, change in series.items():
                if ref not in (connection.series if change is Change.CLOSED else connection.own):
                    continue
                if ref in connection.changed:
                    self._counts["windows_conflated"] += 1
                connection.changed[ref] = None
                connection.wake.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection: _Connection | None = None
        name = ""
        try:
            name = (await reader.readline()).decode(errors="replace").rstrip("\n")
            trader = self._traders.get(name)
            if trader is None:
                log.warning("windows refused", extra={"trader": name[:200]})
                return
            writer.transport.set_write_buffer_limits(high=_WAITING_BYTES)
            connection = self._connections[name] = _Connection(trader)
            await self._send(connection, reader, writer)
        except (OSError, ValueError) as error:
            log.debug("windows connection ended", extra={"trader": name, "reason": repr(error)})
        finally:
            if connection is not None and self._connections.get(name) is connection:
                del self._connections[name]
            writer.close()

    async def _send(self, connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A trader says nothing more: this ends with its connection. One that does is let go, not listened to.
        gone = asyncio.create_task(reader.read(1))
        try:
            while True:
                waiting = asyncio.create_task(connection.wake.wait())
                try:
                    await asyncio.wait({gone, waiting}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    waiting.cancel()
                if gone.done():
                    gone.result()
                    return
                connection.wake.clear()
                while connection.changed:
                    ref = next(iter(connection.changed))
                    del connection.changed[ref]
                    message = self._message(connection, ref)
                    if message:
                        writer.write(message)
                        self._counts["windows_sent"] += 1
                        await writer.drain()
        finally:
            gone.cancel()

    def _message(self, connection: _Connection, ref: SeriesRef) -> bytes:
        """What is new in a series for this connection, or that there is no such series; empty: nothing."""
        if ref not in connection.series:
            return b""
        sent = connection.sent.get(ref)
        if sent is None or not sent.reader.alive:
            found = self._reader.series(ref.symbol, ref.interval)
            if found is None:
                return self._absence(connection, ref)
            sent = connection.begin(ref, found)
        reader = sent.reader
        session, revision, count = reader.session, reader.revision, reader.count
        known = (session, revision) == (sent.session, sent.revision)
        length = min(self._length, count - sent.count if known else count)
        window = reader.window(count, length)
        stamps = [reader.stamps(ordinal) for ordinal in range(max(window.begin, count - _STAMPED_ROWS), count)]
        sent.session, sent.revision, sent.count = session, revision, count
        return encode_window(
            window,
            symbol=ref.symbol,
            interval=ref.interval,
            session=session,
            count=count,
            live_from_ms=reader.live_from_ms,
            traded_from_ms=reader.traded_from_ms,
            revision=revision,
            stamps=[row for row in stamps if row is not None],
            forming=reader.forming(),
            life=sent.life,
        )

    def _absence(self, connection: _Connection, ref: SeriesRef) -> bytes:
        """That a series isn't there, where that is news."""
        if self._names is None:
            self._names = list(self._reader.names())  # all who miss one tell of the same others
        absence = Absence.among(ref.symbol, ref.interval, self._names)
        connection.sent.pop(ref, None)
        if connection.absent.get(ref) == absence:
            return b""
        connection.absent[ref] = absence
        return encode_absence(absence)
