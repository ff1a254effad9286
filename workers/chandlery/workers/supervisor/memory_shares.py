"""What each process of the container really adds to its memory: PSS, read seldom, spread, and beside the loop.

Resident sizes count what traders share with the fork server, and the segment, once for each of them. The true share costs
the kernel a walk over all pages: about 1 ms for 100 MB, during which the process goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from chandlery.core.processes import pss_bytes

_log = logging.getLogger("chandlery")

#: Names of processes that are no Trader's; a Trader's is ``namespace/name@INCARNATION``.
SUPERVISOR: Final = "supervisor"
FORK_SERVER: Final = "fork_server"
#: A process is looked at this often at most: of 20 traders that is 2 ms in every 3 s.
PERIOD_S: Final = 30.0
#: One that has just been forked has nothing of its own yet.
SETTLED_S: Final = 2.0
#: Between two looks, so that 256 traders are looked at one by one: each every 64 s then.
GAP_S: Final = 0.25


@dataclass(slots=True)
class _Look:
    pid: int
    due_s: float
    share_bytes: int = 0


class MemoryShares:
    """Shares of all processes, as of the newest look at each.

    Args:
        processes: pids by name, asked before each look.
        read: PSS of a pid, bytes; 0 where it is gone.
    """

    def __init__(self, processes: Callable[[], Mapping[str, int]], read: Callable[[int], int] = pss_bytes) -> None:
        self._processes = processes
        self._read = read
        self._looks: dict[str, _Look] = {}

    def of(self, name: str, pid: int) -> int:
        """Share of a process, bytes; 0: nobody has looked at this one yet."""
        look = self._looks.get(name)
        return look.share_bytes if look is not None and look.pid == pid else 0

    def own(self) -> dict[str, int]:
        """Shares of supervisor and fork server, those that are known."""
        looks = ((name, self._looks.get(name)) for name in (SUPERVISOR, FORK_SERVER))
        return {name: look.share_bytes for name, look in looks if look is not None and look.share_bytes}

    async def run(self) -> None:
        """Look at one after the other until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            look = self.due(loop.time())
            if look is not None:
                try:
                    # In a thread: the walk is the kernel's, which needs no interpreter.
                    look.share_bytes = await asyncio.to_thread(self._read, look.pid)
                except RuntimeError as error:
                    # No thread can be started, as at a limit of pids: a figure is nothing to end all traders for.
                    _log.warning("memory of a process not looked at", extra={"pid": look.pid, "error": str(error)})
                look.due_s = loop.time() + PERIOD_S
            await asyncio.sleep(GAP_S)

    def due(self, now_s: float) -> _Look | None:
        """Whose turn it is: of those whose time has come, who waits longest; None: nobody's."""
        pids = self._processes()
        self._looks = {name: look for name, look in self._looks.items() if pids.get(name) == look.pid}
        for name, pid in pids.items():
            if name not in self._looks:
                self._looks[name] = _Look(pid, now_s + SETTLED_S)
        first = min(self._looks.values(), key=lambda look: look.due_s, default=None)
        return first if first is not None and first.due_s <= now_s else None
