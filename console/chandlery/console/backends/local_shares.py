"""Proportional memory (PSS) of the processes of an instance on this machine: what they share is divided among them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from chandlery.core.processes import pss_bytes

#: Known processes looked at again each time: the kernel walks a process's pages for it, 0.7 ms of a Trader and 6 ms of
#: Kafka. At one look a second that is 0.2 % of a core, and 28 processes have their turn every 14 s.
_AGAIN: Final = 2


class LocalShares:
    """Looks at processes that are new at once, and at the others in turn.

    Args:
        read: proportional memory of a pid, bytes; 0: it isn't known, as the process is gone or another user's.
    """

    def __init__(self, read: Callable[[int], int] = pss_bytes) -> None:
        self._read = read
        #: By pid, the one that was looked at longest ago first.
        self._known: dict[int, int] = {}

    def look(self, pids: Iterable[int]) -> Mapping[int, int]:
        """Proportional memory of these processes by pid, bytes; one of which it isn't known is left out."""
        wanted = set(pids)
        self._known = {pid: size for pid, size in self._known.items() if pid in wanted}
        due = [*sorted(wanted - self._known.keys()), *list(self._known)[:_AGAIN]]
        for pid in due:
            self._known.pop(pid, None)
            self._known[pid] = self._read(pid)
        return {pid: size for pid, size in self._known.items() if size}
