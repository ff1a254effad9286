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
import select
import signal
import socket
import sys
from typing import Final, NoReturn

from chandlery.core.logs import configure_logs
from chandlery.core.processes import PARENT_VARIABLE, die_with_parent, run_as_batch

#: What every trader needs, loaded once and shared copy-on-write.
PRELOADED: Final = (
    "numpy",
    "chandlery.workers.indicators",
    "chandlery.workers.discovery",
    "chandlery.workers.trader.process",
)
_MESSAGE_BYTES: Final = 256
_ONE_FD_BYTES: Final = socket.CMSG_SPACE(4)


def preload() -> None:
    """Import what traders share, and take it out of the collector's sight so that it stays shared.

    What a trader would do once, in the same way as any other, is done here: a page that it never touches stays shared, and
    those that it would touch for logging's set-up, a strategy's text and the names in the image are 1 MB.
    """
    gc.disable()
    configure_logs("nursery")
    for name in PRELOADED:
        importlib.import_module(name)
    from chandlery.workers.discovery import SHIPPED, entry_points, find_strategy

    entry_points()
    for name in SHIPPED:
        find_strategy(name)
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
        waiting = select.poll()
        line = self._supervisor.fileno()
        waiting.register(line, select.POLLIN)
        waiting.register(self._woken, select.POLLIN)
        while True:
            for fd, _ in waiting.poll():
                if fd == self._woken:
                    self._reap()
                elif not self._take():
                    return

    def _take(self) -> bool:
        message, ancillary, _, _ = self._supervisor.recvmsg(_MESSAGE_BYTES, _ONE_FD_BYTES)
        if not message:
            return False
        word, *arguments = message.decode("ascii").split()
        if word == "spawn" and ancillary:
            self._spawn(int.from_bytes(ancillary[0][2], sys.byteorder))
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
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # of SIGINT and SIGTERM the trader takes care
            die_with_parent(signal.SIGKILL)
            # Twenty are woken by one candle: feed and broker, which all of them wait for, keep their cores.
            run_as_batch()
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
