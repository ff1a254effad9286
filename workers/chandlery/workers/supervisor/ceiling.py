"""The memory that the traders' container may have, as its cgroup tells it: who must go before the kernel ends all of it.

On cgroup version 2 Kubernetes has the kernel end every process of a container that passes its limit, the supervisor and
all traders. Limits of Traders whose sum is above the container's can lead there; each is below its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from chandlery.workers.supervisor.exits import Verdict

#: With less than this left, at two looks in a row, somebody goes. Two, for one look may fall into a moment: what a trader
#: that has ended had is still being given back, a process that starts has both its own pages and those it will drop. Also
#: where nothing more was taken between them: traders take at candles' closes, all at once, and nothing in between. In time
#: for 64 MB/s, by looks 0.25 s apart: that takes 16 of the 32 MiB until the first, 16 until the second. Not more: of the
#: 256 MiB that a container has beside its traders' limits supervisor and fork server need most, and a container that
#: somebody has measured closely is to be left alone.
SPARE_BYTES: Final = 32 * 1024 * 1024
#: In a container whose limit was made small: this part of it, if that is less.
_SPARE_PART: Final = 16
#: Version 1 says "no limit" by the largest number of pages that it can count.
_NO_LIMIT_BYTES: Final = 1 << 60


@dataclass(frozen=True, slots=True)
class Ceiling:
    """A container's limit.

    Attributes:
        limit_bytes: what it may have. usage: file that tells what it has; stat: file that tells what of that the kernel
            takes back before it ends anybody, and the keys there (cached): its page cache of files, and where version 2
            tells them, the kernel's own of names and inodes.
    """

    limit_bytes: int
    usage: Path
    stat: Path
    cached: tuple[str, ...]

    @property
    def spare_bytes(self) -> int:
        """With less than this left, at two looks in a row, somebody goes."""
        return min(SPARE_BYTES, self.limit_bytes // _SPARE_PART)

    def left_bytes(self) -> int | None:
        """What is left; None: the kernel doesn't tell."""
        try:
            used = int(self.usage.read_text())
            figures = dict(line.split()[:2] for line in self.stat.read_text().splitlines() if " " in line)
            cached = sum(int(figures.get(name, 0)) for name in self.cached)
        except (OSError, ValueError):
            return None
        return self.limit_bytes - used + cached


def own_ceiling(root: Path = Path("/sys/fs/cgroup"), pid: int | None = None) -> Ceiling | None:
    """The limit of the container that this process is the first one of. To be asked at each look: it may be changed.

    Args:
        root: where cgroups are mounted. pid: of this process; absent: asked for.

    Returns:
        None where it has no limit, or where this is not a container of the traders alone: what somebody else in it
        takes (Kafka, on one machine) is not for a trader to pay.
    """
    if (os.getpid() if pid is None else pid) != 1:
        return None
    older = root / "memory"
    for limit, found in (
        (
            root / "memory.max",
            (root / "memory.current", root / "memory.stat", ("inactive_file", "active_file", "slab_reclaimable")),
        ),
        (
            older / "memory.limit_in_bytes",
            (older / "memory.usage_in_bytes", older / "memory.stat", ("total_inactive_file", "total_active_file")),
        ),
    ):
        try:
            limit_bytes = int(limit.read_text())
        except (OSError, ValueError):  # not this version; or "max"
            continue
        if limit_bytes < _NO_LIMIT_BYTES:
            return Ceiling(limit_bytes, *found)
    return None


class Found(NamedTuple):
    """Who must go.

    Attributes:
        verdict: for its status: the same words each time, for whatever moves there is news each time.
        left_bytes: what the container had left. own_bytes: what the trader has of its own. For the log.
    """

    name: str
    verdict: Verdict
    left_bytes: int
    own_bytes: int


class Looks:
    """Looks at a container, one each 0.25 s: says who must go once two in a row find too little left."""

    def __init__(self) -> None:
        self._was_low = False

    def begin_anew(self) -> None:
        """Somebody is ending, or the container has no limit: what the last look found says nothing of the next."""
        self._was_low = False

    def who_goes(self, ceiling: Ceiling, look: Callable[[], Mapping[str, int]]) -> Found | None:
        """The trader that ends so that the others stay: the one that has most; None: there is room, or there was at the
        last look, or nobody is there to end.

        Args:
            look: tells what each trader's process has of its own, bytes; asked only where somebody must go.
        """
        left_bytes = ceiling.left_bytes()
        was_low, self._was_low = self._was_low, left_bytes is not None and left_bytes < ceiling.spare_bytes
        if left_bytes is None or not (was_low and self._was_low):
            return None
        sizes = look()
        if not sizes:
            return None
        self._was_low = False  # whether that was enough the next two looks say
        greediest = max(sorted(sizes), key=lambda name: sizes[name])
        mebibyte = 1 << 20
        because = (
            f"the traders' container has less than {ceiling.spare_bytes / mebibyte:.4g} MB left of "
            f"{ceiling.limit_bytes // mebibyte} MB, and of all traders this one has most"
        )
        return Found(greediest, Verdict("MemoryLimit", because), left_bytes, sizes[greediest])
