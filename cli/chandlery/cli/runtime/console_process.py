"""REST API and console of a local instance: a process like the others, but one that nothing waits for.

It begins when the market runs, gives way to the market (a lower priority), and where it can't be had the run goes on
without it and says so.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import logging
import os
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from chandlery.cli.runtime.children import Child
from chandlery.cli.runtime.polling import plain_words
from chandlery.cli.runtime.statedir import StateDir, write_atomically
from chandlery.console.model import ConsoleRow
from chandlery.console.settings import ConsoleSettings, LocalSettings
from chandlery.core.errors import ChandleryError, InputError, MachineError
from chandlery.core.settings import is_loopback, parse_listen
from chandlery.stream.broker_ports import holder_of

if TYPE_CHECKING:
    from chandlery.cli.runtime.options import UpOptions

log = logging.getLogger("chandlery.up")

HOST: Final = "127.0.0.1"
#: Ports tried in turn where none was named.
PORTS: Final = range(8420, 8440)
#: Connections that wait while the process starts or is started again.
_BACKLOG: Final = 128
# Streams are cut at once; uvicorn's own wait for answers under way is 3 s, and 2 s to let go of Kafka.
STOP_S: Final = 5.0
# Its imports take 2 s on a busy machine, and then it ends at once or not at all.
_WELL_S: Final = 5.0
#: Niceness: whoever looks waits for the market, not the other way round.
_NICENESS: Final = 5
#: What must be there for it, of the extra ``console``.
_PACKAGES: Final = ("fastapi", "uvicorn", "aiokafka")
INSTALL: Final = "pip install 'chandlery[console]'"


@dataclass(frozen=True)
class ConsoleOptions:
    """What was asked for.

    Attributes:
        host, port: where it listens; port None: the first free one of :data:`PORTS`, 0: of the kernel's choice.
        token_file: holds the bearer token. trace_url: where a person sees a trace, with ``{trace_id}``.
    """

    host: str = HOST
    port: int | None = None
    token_file: Path | None = None
    trace_url: str = ""


def console_options(text: str | None, token_file: Path | None, trace_url: str) -> ConsoleOptions | None:
    """Read ``--console``; None: it was asked not to be there.

    Args:
        text: ``HOST:PORT``, ``off``, or None where nothing was said.

    Raises:
        InputError: no address, one that can be reached from elsewhere without a token, or no token in the file.
    """
    if text == "off":
        return None
    host, port = HOST, None
    if text is not None:
        try:
            address = parse_listen(text)
        except InputError:
            address = ""
        if isinstance(address, str) or not address[0]:
            raise InputError(f"--console {text!r}: write HOST:PORT, or off")
        host, port = address
    if token_file is not None:
        _check_token(token_file)
    elif not is_loopback(host):
        raise InputError(
            f"--console {text!r} can be reached from other machines: name a file with a token by --console-token-file, "
            f"or listen on {HOST}"
        )
    if trace_url and not trace_url.startswith(("http://", "https://")):
        raise InputError(f"--trace-url {trace_url!r}: write http://… or https://… with {{trace_id}} in it")
    return ConsoleOptions(host, port, token_file.absolute() if token_file is not None else None, trace_url)


def _check_token(path: Path) -> None:
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--console-token-file {path}: can't be read: {error}") from error
    if not token:
        raise InputError(f"--console-token-file {path}: there is no token in it")


def listening_at(host: str, port: int) -> socket.socket:
    """A socket that listens there: whoever has it has the port. Port 0: one of the kernel's choice.

    Raises:
        InputError: no address of this machine. MachineError: it is taken, or this user may not have it.
    """
    bare = host.strip("[]")
    try:
        family, _, _, _, address = socket.getaddrinfo(bare, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            raise InputError(f"--console {host}:{port}: {host} is no address of this machine") from error
        if error.errno == errno.EADDRINUSE:
            raise MachineError(
                f"port {port}, that --console names, is held by {holder_of(port)}: end that process, or name another "
                "port"
            ) from error
        raise MachineError(f"--console {host}:{port}: can't listen there: {error.strerror}") from error


def missing_packages() -> list[str]:
    """What the console needs and isn't installed."""
    return [name for name in _PACKAGES if importlib.util.find_spec(name) is None]


class ConsoleProcess:
    """The console's process and where it is.

    Attributes:
        child: the process.
    """

    def __init__(self, options: UpOptions, asked: ConsoleOptions, state: StateDir) -> None:
        command = [sys.executable, "-m", "chandlery.console", "--config", str(state.settings("console"))]
        self.child = Child("console", command, state.log("console"), on_change=self._changed)
        self._options = options
        self._asked = asked
        self._state = state
        self._port = 0
        self._held: socket.socket | None = None
        self._moved = ""
        self._why_not = ""
        self._trouble = ""
        self._began_s = 0.0

    @property
    def started(self) -> bool:
        """Whether there is a process to be looked at and ended."""
        return self.child.state != "new"

    @property
    def address(self) -> str:
        """``http://127.0.0.1:8420``; empty where there is none."""
        if self._why_not or not self._port:
            return ""
        host = {"0.0.0.0": HOST, "[::]": "[::1]"}.get(self._asked.host, self._asked.host)
        return f"http://{host}:{self._port}"

    def row(self) -> ConsoleRow:
        """Where it is, and what a person should know of it."""
        reach = "" if is_loopback(self._asked.host) else "also from other machines, with the token"
        return ConsoleRow(self.address, self._why_not or self._why_ended() or self._moved or reach)

    @property
    def notices(self) -> list[str]:
        """Why it isn't there, if it isn't."""
        why = self._why_not or self._why_ended()
        return [f"console: {why}"] if why else []

    def choose(self) -> None:
        """Take the port, before anything is started, and hold it: the process inherits it whenever it is started.

        Raises:
            InputError: the address that was named is none of this machine. MachineError: it is taken.
        """
        missing = missing_packages()
        if missing:
            self._why_not = f"it needs {', '.join(missing)}: {INSTALL}"
        elif self._asked.port is None:
            self._take_free()
        else:
            self._hold(listening_at(self._asked.host, self._asked.port))

    async def start(self) -> None:
        """Start it; what keeps it from starting is a notice, never an error."""
        if self._why_not:
            return
        self._write()
        try:
            await self.child.start()
        except (ChandleryError, OSError) as error:
            self._why_not = str(error)
            log.warning("console does not start", extra={"problem": str(error)})

    async def stop(self) -> None:
        """End it."""
        if self.started:
            await self.child.stop(STOP_S)
        self.let_go()

    def let_go(self) -> None:
        """Give the ports back."""
        if self._held is not None:
            self._held.close()
            self._held = None
        if self._options.metrics is not None:
            self._options.metrics.forget("console")

    def _hold(self, held: socket.socket) -> None:
        self._held, self._port = held, held.getsockname()[1]
        self.child.inherits = (held.fileno(),)

    def _take_free(self) -> None:
        first_holder = ""
        for port in PORTS:
            try:
                self._hold(listening_at(self._asked.host, port))
            except MachineError:
                first_holder = first_holder or holder_of(port)
                continue
            self._moved = f"port {PORTS[0]} is held by {first_holder}" if first_holder else ""
            return
        self._why_not = f"ports {PORTS[0]} to {PORTS[-1]} are all taken: name one by --console HOST:PORT"

    def _write(self) -> None:
        options, asked = self._options, self._asked
        settings = ConsoleSettings(
            listen=f"{asked.host}:{self._port}",
            listening=self._held.fileno() if self._held is not None else None,
            backend="local",
            local=LocalSettings(
                str(self._state.socket("up")),
                [path if path == "-" else os.path.abspath(path) for path in options.manifests],
            ),
            token_file=str(asked.token_file or ""),
            trace_url=asked.trace_url,
            metrics_listen=options.metrics.listen("console", "console") if options.metrics is not None else "",
            log_level=options.log_level,
        )
        write_atomically(self._state.settings("console"), msgspec.json.encode(settings))

    def _changed(self, child: Child) -> None:
        if child.state == "running":
            self._began_s = time.monotonic()
            with contextlib.suppress(OSError):
                own = os.getpriority(os.PRIO_PROCESS, 0)
                os.setpriority(os.PRIO_PROCESS, child.pid, min(own + _NICENESS, 19))
        elif child.state == "backoff":
            words = " | ".join(plain_words(line) for line in child.last_lines(1)) or "it said nothing"
            self._trouble = (
                f"it ended (exit code {child.last_exit}) and is started again: {words}; see {child.log_path}"
            )

    def _why_ended(self) -> str:
        """Why it ended last; empty once it has been running again for a while."""
        if self.child.state == "running" and time.monotonic() - self._began_s > _WELL_S:
            self._trouble = ""
        return self._trouble
