"""A TCP proxy between browser and server that a test cuts and mends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class CutProxy:
    """Passes bytes on; :meth:`cut` drops all connections and refuses new ones until :meth:`mend`."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def mend(self) -> None:
        """Listen, on the same port each time."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Let go of everything at once, as a network does."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._open):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target)
            self._open.add(up_writer)
            try:
                await asyncio.gather(_pass(reader, up_writer), _pass(up_reader, writer))
            finally:
                self._open.discard(up_writer)
                up_writer.transport.abort()
        except OSError:
            pass  # the server is gone, and so is this connection
        finally:
            self._open.discard(writer)
            writer.transport.abort()


async def _pass(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await source.read(65_536):
            target.write(chunk)
            await target.drain()
    target.transport.abort()


@asynccontextmanager
async def cut_proxy(address: str) -> AsyncIterator[tuple[CutProxy, str]]:
    """A proxy to a served address, and its own address."""
    proxy = CutProxy(int(address.rpartition(":")[2]))
    await proxy.mend()
    try:
        yield proxy, f"http://127.0.0.1:{proxy.port}"
    finally:
        await proxy.cut()
