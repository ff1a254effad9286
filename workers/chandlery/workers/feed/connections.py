"""Tasks that serve the connections of a Unix socket, one each, and end with it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Connections:
    """What a server of asyncio's calls for each connection.

    The tasks are ours: asyncio (3.11) says of one of its own that is cancelled, as at every end of a feed, that a
    callback failed.
    """

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._tasks: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection from now on."""
        task = asyncio.create_task(self._serving(reader, writer))
        self._tasks[task] = writer
        task.add_done_callback(self._ended)

    async def _serving(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._serve(reader, writer)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task).close()  # one that was cut before its first step has not
        if not task.cancelled() and (error := task.exception()) is not None:
            message = "a connection was served badly"
            task.get_loop().call_exception_handler({"message": message, "exception": error, "task": task})

    async def stop(self) -> None:
        """Cut all of them short."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
