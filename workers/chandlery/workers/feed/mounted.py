"""The assignment in a mounted file: offered whenever the file has changed."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec

from chandlery.core.assignment import Assignment, decode_assignment

log = logging.getLogger("chandlery.feed")


class MountedAssignment:
    """Looks at a file that somebody else replaces.

    Args:
        path: the file; empty: there is none. offer: takes an assignment and where it comes from (``mount``).
    """

    def __init__(self, path: str, offer: Callable[[Assignment, str], object], counts: Counter[str]) -> None:
        self._path = path
        self._offer = offer
        self._counts = counts
        self._seen: tuple[int, ...] = ()

    def look(self) -> None:
        """Offer the assignment when its file changed. A half-written one comes again when it is whole."""
        if not self._path:
            return
        path = Path(self._path)
        try:
            state = path.stat()
            seen = (state.st_ino, state.st_mtime_ns, state.st_size)
            if seen == self._seen:
                return
            body = path.read_bytes()
        except OSError as error:
            log.debug("no mounted assignment", extra={"reason": str(error)})
            return
        self._seen = seen
        try:
            self._offer(decode_assignment(body), "mount")
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("mounted assignment undecodable", extra={"path": str(path), "reason": str(error)})
        except OSError as error:
            self._seen = ()  # the rings' folder took no file: once more at the next look
            self._counts["assignment_not_kept"] += 1
            log.warning("mounted assignment can't be kept", extra={"path": str(path), "reason": str(error)})
