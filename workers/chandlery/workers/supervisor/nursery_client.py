"""The supervisor's side of the fork server: starts it, asks for traders, hears of their ends."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import subprocess
import sys
from collections import deque
from typing import Final

from chandlery.core.errors import UnavailableError
from chandlery.core.processes import child_environment

_log = logging.getLogger("chandlery")
#: Loading numpy and TA-Lib takes 0.5 s here, and several seconds on a machine under load.
_START_TIMEOUT_S: Final = 60.0


Started = tuple[int, asyncio.Future[int]]


class TraderProcess:
    """One trader process.

    Attributes:
        pid: its process id. line: our end of its line.
        ended: its exit code (negative: signal), when it has ended.
    """

    def __init__(self, pid: int, line: socket.socket, ended: asyncio.Future[int]) -> None:
        self.pid = pid
        self.line = line
        self.ended = ended


class NurseryClient:
    """Keeps one fork server; its death is that of all its traders, and the next spawn starts another."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._starting: deque[asyncio.Future[Started]] = deque()
        self._running: dict[int, asyncio.Future[int]] = {}
        #: Signals that the fork server has not been asked for yet, in order.
        self._kills: deque[bytes] = deque()

    @property
    def pid(self) -> int:
        """Process id of the fork server; 0 when there is none."""
        return 0 if self._server is None else self._server.pid

    def start(self) -> None:
        """Start the fork server unless it runs, so that the first trader needn't wait for it."""
        if self._socket is not None:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # One BLAS thread: strategies work on short columns, and each thread would cost stack and buffers.
        environment = child_environment(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
        self._server = subprocess.Popen(
            [sys.executable, "-m", "chandlery.workers.trader.nursery", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env=environment,
        )
        theirs.close()
        ours.setblocking(False)
        self._socket = ours
        asyncio.get_running_loop().add_reader(ours.fileno(), self._hear)

    async def spawn(self) -> TraderProcess:
        """Have a trader forked; it waits for its Launch line.

        Raises:
            UnavailableError: the fork server ended, or doesn't answer.
        """
        self.start()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            pid, ended = await self._ask(theirs)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return TraderProcess(pid, ours, ended)

    async def _ask(self, line: socket.socket) -> Started:
        loop = asyncio.get_running_loop()
        started: asyncio.Future[Started] = loop.create_future()
        assert self._socket is not None
        try:
            socket.send_fds(self._socket, [b"spawn"], [line.fileno()])
        except OSError as error:
            raise UnavailableError(f"the fork server takes no request: {error.strerror}") from error
        self._starting.append(started)
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                # Shielded: the answer comes in order, also to a caller that was cancelled meanwhile.
                return await asyncio.shield(started)
        except (TimeoutError, asyncio.CancelledError) as error:
            started.add_done_callback(self._kill_unwanted)
            if isinstance(error, asyncio.CancelledError):
                raise
            raise UnavailableError(f"the fork server doesn't answer within {_START_TIMEOUT_S:g} s") from error

    def _kill_unwanted(self, started: asyncio.Future[Started]) -> None:
        if not started.cancelled() and started.exception() is None:
            self.kill(started.result()[0], signal.SIGKILL)

    def kill(self, pid: int, number: signal.Signals) -> None:
        """Signal a trader, if it still runs. By the fork server, which knows whether the pid is still its child."""
        if self._socket is None:
            return
        self._kills.append(f"kill {pid} {int(number)}".encode())
        if len(self._kills) == 1:
            self._send_kills()

    def _send_kills(self) -> None:
        """Send what waits; the rest once there is room: while it forks, the fork server reads nothing."""
        assert self._socket is not None
        loop = asyncio.get_running_loop()
        try:
            while self._kills:
                self._socket.send(self._kills[0])
                self._kills.popleft()
        except BlockingIOError:
            loop.add_writer(self._socket.fileno(), self._send_kills)
            return
        except OSError as error:
            # It has ended, which is heard from its socket, and its children with it.
            _log.warning("fork server takes no request", extra={"kills": len(self._kills), "error": str(error)})
            self._kills.clear()
        loop.remove_writer(self._socket.fileno())

    def _hear(self) -> None:
        assert self._socket is not None
        while True:
            try:
                message = self._socket.recv(256)
            except BlockingIOError:
                return
            except OSError:
                message = b""
            if not message:
                self._lost()
                return
            self._note(message.decode("ascii").split())

    def _note(self, words: list[str]) -> None:
        pid = int(words[1])
        if words[0] == "started":
            self._running[pid] = asyncio.get_running_loop().create_future()
            started = self._starting.popleft()
            if not started.done():
                started.set_result((pid, self._running[pid]))
        elif words[0] == "ended":
            ended = self._running.pop(pid, None)
            if ended is not None and not ended.done():
                ended.set_result(int(words[2]))

    def _lost(self) -> None:
        """The fork server has ended, and the kernel has killed its children."""
        self._disconnect()
        code = self._server.wait() if self._server is not None else 0
        _log.error("fork server ended, and all traders with it", extra={"exit": code})
        self._settle(f"the fork server ended with {code}")

    def _settle(self, why: str) -> None:
        """Nothing more will be heard: whoever waits for a start or an end gets an answer."""
        for started in self._starting:
            if not started.done():
                started.set_exception(UnavailableError(why))
        self._starting.clear()
        for ended in self._running.values():
            if not ended.done():
                ended.set_result(-int(signal.SIGKILL))
        self._running.clear()

    def _disconnect(self) -> None:
        if self._socket is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._socket.fileno())
            loop.remove_writer(self._socket.fileno())
            self._kills.clear()
            self._socket.close()
            self._socket = None

    async def close(self) -> None:
        """End the fork server; traders that still run end with it."""
        self._disconnect()
        self._settle("the supervisor ends")
        if self._server is not None:
            server = self._server
            self._server = None
            await asyncio.get_running_loop().run_in_executor(None, server.wait)
