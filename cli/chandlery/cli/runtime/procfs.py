"""What /proc tells about processes: who belongs to a run, whether one lives, what memory it takes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class Memory(msgspec.Struct):
    """Memory of one process, bytes: resident, and its proportional share of what is shared."""

    rss: int
    pss: int


def is_alive(pid: int) -> bool:
    """Whether a process with this pid runs (a zombie doesn't)."""
    return state_of(pid) not in ("", "Z", "X")


def state_of(pid: int) -> str:
    """The kernel's state letter of a process, empty when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[0]


def pids_with_variable(name: str, prefix: str) -> list[int]:
    """Processes of this user, this one left out, started with variable ``name`` beginning with ``prefix``."""
    wanted = f"{name}={prefix}".encode()
    own = os.getpid()
    found: list[int] = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == own:
            continue
        try:
            environment = Path(f"/proc/{entry}/environ").read_bytes()
        except OSError:
            continue  # gone meanwhile, or another user's
        if any(line.startswith(wanted) for line in environment.split(b"\0")) and is_alive(int(entry)):
            found.append(int(entry))
    return found


def resident_bytes(pid: int) -> int:
    """Resident memory of a process, 0 when it is gone: cheap, and without holding anything of the process."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return 0


def memory_of(pid: int) -> Memory | None:
    """Memory of a process by ``smaps_rollup``, None when it is gone or not readable.

    The kernel walks the whole address space and holds its lock meanwhile: not for every second.
    """
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    return parse_smaps_rollup(text)


def parse_smaps_rollup(text: str) -> Memory:
    """Read ``Rss`` and ``Pss`` (kB in the file) out of a smaps_rollup."""
    values = {"Rss:": 0, "Pss:": 0}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[0] in values:
            values[words[0]] = int(words[1]) * 1024
    return Memory(rss=values["Rss:"], pss=values["Pss:"])
