"""The process of the REST API and the console: its backend, its readers, and the server in our own loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from chandlery.console.api.app import create_app
from chandlery.console.api.guard import check_listen
from chandlery.console.api.metrics import ApiMetrics
from chandlery.console.api.sse import ABORT_KEY, Streams
from chandlery.console.backend import Backend
from chandlery.console.market import Market, Signals
from chandlery.console.settings import ConsoleSettings
from chandlery.core.errors import InputError, MachineError
from chandlery.core.settings import parse_listen
from chandlery.stream.metrics_server import MetricsServer

if TYPE_CHECKING:
    from prometheus_client import Metric

log = logging.getLogger("chandlery.console")

#: What the kernel may hold for one client that doesn't read (it takes twice this): 100 streams hold 50 MB at most.
_SEND_BUFFER_BYTES: Final = 256 * 1024
_BACKLOG: Final = 128
#: Answers in the making get this long at the end, s: a pod has 10 s, and what they wait for answers in 1 s or not.
_GRACE_S: Final = 3
_KEEP_ALIVE_S: Final = 30


class Readers(Protocol):
    """What :mod:`chandlery.console.reading` opens."""

    @property
    def signals(self) -> Signals: ...

    @property
    def market(self) -> Market: ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def away(self) -> Sequence[str]: ...

    def families(self) -> Iterable[Metric]: ...


async def serve(settings: ConsoleSettings, stop: asyncio.Event) -> None:
    """Serve until ``stop``: the API answers from the first moment, and says what can't be asked yet.

    Raises:
        InputError: the settings contradict themselves. MachineError: an address is taken.
    """
    check_listen(settings)
    backend = backend_of(settings)
    readers = readers_of(settings, backend)
    metrics = ApiMetrics()
    streams = Streams(settings.streams, metrics)
    app = create_app(
        settings, backend, readers.signals, readers.market, metrics=metrics, streams=streams, away=readers.away
    )
    figures = MetricsServer(settings.metrics_listen, lambda: [*metrics.families(), *readers.families()])
    async with contextlib.AsyncExitStack() as ends:
        server = ApiServer(app, settings.listen, streams, settings.listening)
        await server.start()
        ends.push_async_callback(server.stop)
        await figures.start()
        ends.push_async_callback(figures.stop)
        await backend.start()
        ends.push_async_callback(backend.stop)
        await readers.start()
        ends.push_async_callback(readers.stop)
        log.info("API and console are served", extra={"address": server.address, "backend": backend.mode})
        await stop.wait()
        # First of all: a stream is the one thing that would never end by itself.
        streams.end()
        await server.stop()


def backend_of(settings: ConsoleSettings) -> Backend:
    """The system that the settings name.

    Raises:
        InputError: they don't say where it is.
    """
    made: Backend
    if settings.backend == "local":
        if settings.local is None:
            raise InputError("local: is missing; backend: local needs the instance's socket")
        from chandlery.console.backends.local import LocalBackend

        made = LocalBackend(settings.local)
    else:
        from chandlery.console.backends.cluster import ClusterBackend
        from chandlery.console.settings import ClusterSettings

        made = ClusterBackend(settings.cluster or ClusterSettings())
    return made


def readers_of(settings: ConsoleSettings, backend: Backend) -> Readers:
    """Readers of the topics of a backend's feeds."""
    from chandlery.console import reading

    opened: Readers = reading.open_readers(backend.kafkas, _transport_of(backend), settings)
    return opened


def _transport_of(backend: Backend) -> Callable[[str], str]:
    def transport(trader: str) -> str:
        return backend.snapshot().transports.get(trader, "")

    return transport


class ApiServer:
    """Serves an app on ``host:port`` or ``unix:/path`` from a task of this loop; signals are left to others.

    Args:
        listening: an inherited descriptor of a socket that listens on that ``host:port`` already.
    """

    def __init__(self, app: Any, listen: str, streams: Streams, listening: int | None = None) -> None:
        self._listen = listen
        self._listening = listening
        self._streams = streams
        self._socket: socket.socket | None = None
        self._path_identity = 0
        self._serving: asyncio.Task[None] | None = None
        self._server = _Server(
            uvicorn.Config(
                app,
                http=AbortableProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                # Nobody before us is believed: no route or check reads these.
                proxy_headers=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=_GRACE_S,
            )
        )
        #: ``http://host:port`` or ``unix:/path``, port 0 resolved.
        self.address = ""

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._server.server_state.connections)

    async def start(self) -> None:
        """Listen.

        Raises:
            InputError: the address is none. MachineError: it is taken, or may not be used.
        """
        self._socket, self.address = _bound(self._listen, self._listening)
        if self._listen.startswith("unix:"):
            self._path_identity = os.stat(self._listen.removeprefix("unix:")).st_ino
        self._serving = asyncio.create_task(self._server.serve([self._socket]))
        up = asyncio.create_task(self._server.up.wait())
        await asyncio.wait((self._serving, up), return_when=asyncio.FIRST_COMPLETED)
        up.cancel()
        if self._serving.done():
            await self._serving

    async def stop(self) -> None:
        """End all streams at once, let answers in the making be made, and close."""
        if self._serving is None:
            return
        self._streams.end()
        self._server.should_exit = True
        serving, self._serving = self._serving, None
        await serving
        if self._socket is not None:
            self._socket.close()
        if self._listen.startswith("unix:"):
            path = self._listen.removeprefix("unix:")
            with contextlib.suppress(FileNotFoundError):
                # Not that of one that took its place meanwhile.
                if os.stat(path).st_ino == self._path_identity:
                    os.unlink(path)


class _Server(uvicorn.Server):
    """Uvicorn's, without its hands on signals, and telling when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are run_service's."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self.up.set()


class AbortableProtocol(H11Protocol):
    """Gives the app a way to drop a connection whose client takes nothing: closing would wait for it for ever."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client came."""
        super().connection_made(transport)
        app = self.app

        async def with_abort(scope: Any, receive: Any, send: Any) -> None:
            scope[ABORT_KEY] = transport.abort
            await app(scope, receive, send)

        self.app = with_abort


def _bound(listen: str, listening: int | None = None) -> tuple[socket.socket, str]:
    where = parse_listen(listen)
    try:
        if isinstance(where, str):
            made = _bound_path(where)
            address = f"unix:{where}"
        else:
            host, port = where[0].strip("[]"), where[1]
            if listening is not None:
                made = socket.socket(fileno=listening)
            else:
                family, _, _, _, found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]  # fmt: skip
                made = socket.create_server(found[:2], family=family, backlog=_BACKLOG)
            # Connections inherit it. Else the end of an answer waits 40 ms for the client's acknowledgement of its head.
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            shown = f"[{host}]" if ":" in host else host
            address = f"http://{shown}:{made.getsockname()[1]}"
    except OSError as error:
        raise MachineError(f"can't listen on {listen}: {error.strerror or error}") from error
    made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
    return made, address


def _bound_path(path: str) -> socket.socket:
    """A socket that only this user may open; one that a process left behind is replaced."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(path).st_mode) and not _answers(path):
            os.unlink(path)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        before = os.umask(0o177)
        try:
            made.bind(path)
        finally:
            os.umask(before)
        made.listen(_BACKLOG)
    except OSError:
        made.close()
        raise
    return made


def _answers(path: str) -> bool:
    """Whether a process listens at a Unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except OSError:
            return True  # full, or not ours to ask
    return True
