"""The fork server: loads numpy, TA-Lib and the shipped strategies once, then forks a trader on demand.

``python -m chandlery.workers.trader.nursery FD``: FD is a SOCK_SEQPACKET socket of the supervisor.

===========  =======================  ============================================================
direction    message                  meaning
===========  =======================  ============================================================
to here      ``spawn`` + one fd       fork a trader; the fd is its line to the supervisor
to here      ``kill PID SIGNAL``      signal a child (ignored when it has been reaped: no pid race)
from here    ``started PID``          in the order of the ``spawn`` messages
from here    ``ended PID CODE``       CODE as in ``os.waitstatus_to_exitcode``
===========  =======================  ============================================================

Not ``multiprocessing``'s fork server: that one needs a writable temporary folder, a second process (its
resource tracker), and blocks its caller while a process starts.

It ends when the supervisor does, and every trader with it (``PR_SET_PDEATHSIG``).
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import selectors
import signal
import socket
import sys
from typing import Final, NoReturn

from chandlery.core.processes import PARENT_VARIABLE, die_with_parent

#: What every trader needs, loaded once and shared copy-on-write.
PRELOADED: Final = (
    "numpy",
    "chandlery.workers.indicators",
    "chandlery.workers.discovery",
    "chandlery.workers.trader.process",
)
_MESSAGE_BYTES: Final = 256


def preload() -> None:
    """Import what traders share, and take it out of the collector's sight so that it stays shared."""
    gc.disable()
    for name in PRELOADED:
        importlib.import_module(name)
    from chandlery.workers.discovery import SHIPPED, entry_points

    entry_points()
    for place in SHIPPED.values():
        importlib.import_module(place.partition(":")[0])
    gc.collect()
    gc.freeze()


class Nursery:
    """Forks traders, reaps them, and tells the supervisor."""

    def __init__(self, supervisor: socket.socket) -> None:
        self._supervisor = supervisor
        self._children: set[int] = set()
        self._woken, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        # A handler there must be, or the kernel's signal never reaches the wake-up descriptor.
        signal.signal(signal.SIGCHLD, lambda number, frame: None)

    def serve(self) -> None:
        """Serve until the supervisor closes its end."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._supervisor, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj == self._woken:
                        self._reap()
                    elif not self._take():
                        return

    def _take(self) -> bool:
        message, fds, _, _ = socket.recv_fds(self._supervisor, _MESSAGE_BYTES, 1)
        if not message:
            return False
        word, *arguments = message.decode("ascii").split()
        if word == "spawn" and len(fds) == 1:
            self._spawn(fds[0])
        elif word == "kill" and int(arguments[0]) in self._children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(arguments[0]), int(arguments[1]))
        return True

    def _spawn(self, fd: int) -> None:
        pid = os.fork()
        if pid == 0:
            self._be_trader(fd)
        os.close(fd)
        self._children.add(pid)
        self._tell(f"started {pid}")

    def _be_trader(self, fd: int) -> NoReturn:
        code = 70
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            die_with_parent(signal.SIGKILL)
            self._supervisor.close()
            os.close(self._woken)
            os.close(self._waker)
            gc.enable()
            from chandlery.workers.trader.process import run_trader

            code = run_trader(socket.socket(fileno=fd))
        except SystemExit as error:  # a strategy may call sys.exit
            code = error.code if isinstance(error.code, int) else 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._woken, 512):
                pass
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                self._children.discard(pid)
                self._tell(f"ended {pid} {os.waitstatus_to_exitcode(status)}")

    def _tell(self, text: str) -> None:
        # Blocks while the supervisor is behind; when it is gone, so are we at the next message.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._supervisor.send(text.encode("ascii"))


def main() -> None:
    """Serve forks on the socket whose descriptor is the only argument."""
    die_with_parent(signal.SIGKILL)
    # From here on "parent" means this process: traders end with it.
    os.environ[PARENT_VARIABLE] = str(os.getpid())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    preload()
    Nursery(socket.socket(fileno=int(sys.argv[1]))).serve()


if __name__ == "__main__":
    main()
