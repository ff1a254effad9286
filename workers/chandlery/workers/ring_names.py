"""Names of signal ring files: one an incarnation, known to the feed and the supervisor alike."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_SUFFIX: Final = ".ring"
#: Every ring in a folder.
RING_FILES: Final = f"*{_SUFFIX}"
#: What a supervisor leaves that is killed while it makes one.
HALF_MADE_RING_FILES: Final = f"{RING_FILES}.new"


def ring_file_name(key: str) -> str:
    """File name of an incarnation's ring: ``namespace/name@3`` → ``namespace__name@3.ring``."""
    return key.replace("/", "__") + _SUFFIX


def key_in(path: Path) -> str:
    """The incarnation whose ring a file is by its name; without ``@`` where an earlier version named it."""
    return path.name.removesuffix(_SUFFIX).replace("__", "/", 1)
