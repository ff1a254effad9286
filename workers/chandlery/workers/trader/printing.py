"""What a strategy prints, as lines of the log that name their Trader: all Traders of a worker share one log."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from typing import Final

#: A line longer than this is told in pieces: what never ends a line may not fill the memory.
_MOST_CHARS: Final = 8_192


class PrintedLines(io.TextIOBase):
    """A text stream whose lines become log records, whatever the level: what somebody prints shall be seen.

    Args:
        logger: gets the records; its handlers must write elsewhere than here. stream: what this stands for.
    """

    encoding = "utf-8"

    def __init__(self, logger: logging.Logger, stream: str) -> None:
        super().__init__()
        self._logger = logger
        self._stream = stream
        self._begun = ""

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, text: str, /) -> int:
        """Take text in; each whole line is told at once."""
        *whole, self._begun = (self._begun + text).split("\n")
        while len(self._begun) > _MOST_CHARS:
            whole.append(self._begun[:_MOST_CHARS])
            self._begun = self._begun[_MOST_CHARS:]
        for line in whole:
            self._tell(line)
        return len(text)

    def flush(self) -> None:
        """Tell a line that was begun and may never be ended."""
        begun, self._begun = self._begun, ""
        if begun:
            self._tell(begun)

    def _tell(self, line: str) -> None:
        record = self._logger.makeRecord(
            self._logger.name, logging.INFO, "", 0, line, (), None, extra={"printed": self._stream}
        )
        self._logger.handle(record)


@contextlib.contextmanager
def printing_to(logger: logging.Logger) -> Iterator[None]:
    """While this lasts, what is printed goes to the logger."""
    out, err = PrintedLines(logger, "stdout"), PrintedLines(logger, "stderr")
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            yield
    finally:
        out.flush()
        err.flush()
