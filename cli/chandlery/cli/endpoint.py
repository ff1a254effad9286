"""JSON over HTTP on a Unix socket: how the command talks to the processes of a local instance."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import aiohttp

from chandlery.core.errors import UnavailableError
from chandlery.operator.delivery import Reply


class Endpoint:
    """One process's API.

    Args:
        socket: path of its Unix socket.
        timeout_s: bound of a call that names none.
    """

    def __init__(self, socket: Path, *, timeout_s: float = 2.0) -> None:
        self.socket = socket
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Endpoint:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def call(self, method: str, path: str, body: bytes | None = None, *, timeout_s: float | None = None) -> Reply:
        """One request.

        Raises:
            UnavailableError: no answer (no socket, refused, cut, too slow).
        """
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.socket)))
        timeout = aiohttp.ClientTimeout(total=timeout_s or self._timeout_s)
        try:
            async with self._session.request(method, f"http://local{path}", data=body, timeout=timeout) as response:
                return Reply(response.status, await response.read())
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise UnavailableError(f"{self.socket.name}: no answer to {method} {path}: {error!r}") from error

    async def get(self, path: str, *, timeout_s: float | None = None) -> bytes:
        """Body of a GET answered with 200.

        Raises:
            UnavailableError: no answer, or another status.
        """
        reply = await self.call("GET", path, timeout_s=timeout_s)
        if reply.status != 200:
            text = reply.body[:200].decode(errors="replace")
            raise UnavailableError(f"{self.socket.name}: GET {path} gave {reply.status}: {text}")
        return reply.body

    async def close(self) -> None:
        """Let go of connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None
