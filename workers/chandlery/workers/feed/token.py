"""The token that callers of the pod's API must carry: given, or in a file that may change while the feed runs."""

from __future__ import annotations

import hmac
import logging
from pathlib import Path

log = logging.getLogger("chandlery.feed.api")


class Token:
    """Compares what callers carry with the token.

    Args:
        text: the token itself. file: a file that holds it (a mounted Secret), read again whenever it changes;
            it goes before ``text``. While it can't be read, or is empty, nobody is let in.
    """

    def __init__(self, text: str = "", file: str = "") -> None:
        self._text = text
        self._file = Path(file) if file else None
        self._seen: tuple[int, ...] = ()

    @property
    def required(self) -> bool:
        """Whether callers must carry one at all."""
        return bool(self._text) or self._file is not None

    def admits(self, authorization: str) -> bool:
        """Whether the value of an ``Authorization`` header carries the token."""
        if not self.required:
            return True
        token = self._current()
        given = authorization.encode(errors="surrogateescape")
        return bool(token) and hmac.compare_digest(given, f"Bearer {token}".encode())

    def _current(self) -> str:
        if self._file is None:
            return self._text
        try:
            state = self._file.stat()
            seen = (state.st_ino, state.st_mtime_ns, state.st_size)
            if seen != self._seen:
                self._text = self._file.read_text(encoding="utf-8").strip()
                self._seen = seen
        except (OSError, UnicodeDecodeError) as error:
            log.warning("token file unreadable: nobody is let in", extra={"path": str(self._file), "why": str(error)})
            self._seen = ()
            return ""
        return self._text
