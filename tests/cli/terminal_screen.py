"""A terminal of one's own: a pty, and what a person sees on it after all that was written to it."""

from __future__ import annotations

import codecs
import os
import pty
import re
import threading
import time
from collections.abc import Callable
from typing import IO, Final

#: Longest wait for anything to be drawn, on a busy machine.
PATIENCE_S: Final = 30.0
_CONTROL: Final = re.compile(r"\x1b\[(\??[\d;]*)([A-Za-z])")


class Screen:
    """Lines as they stand, where each was drawn over the one before. Knows what rich writes, and refuses the rest."""

    def __init__(self) -> None:
        self.lines = [""]
        self.cursor_shown = True
        #: Parameters of all styles set so far, such as ``1;33``.
        self.styles: set[str] = set()
        self._row = self._column = 0
        self._rest = ""

    def feed(self, text: str) -> None:
        """Take what was written; the beginning of a control sequence waits for its end."""
        text = self._rest + text
        self._rest = ""
        at = 0
        while at < len(text):
            if text[at] != "\x1b":
                self._put(text[at])
                at += 1
            elif found := _CONTROL.match(text, at):
                self._control(*found.groups())
                at = found.end()
            else:
                self._rest = text[at:]
                return

    def _put(self, character: str) -> None:
        if character == "\r":
            self._column = 0
        elif character == "\n":
            self._row, self._column = self._row + 1, 0
            self.lines += [""] * (self._row + 1 - len(self.lines))
        else:
            line = self.lines[self._row].ljust(self._column)
            self.lines[self._row] = line[: self._column] + character + line[self._column + 1 :]
            self._column += 1

    def _control(self, parameters: str, what: str) -> None:
        if what == "m":
            self.styles |= {parameters} - {"", "0"}
        elif what == "A":
            self._row = max(0, self._row - int(parameters or 1))
        elif (parameters, what) == ("2", "K"):
            self.lines[self._row] = ""
        elif parameters == "?25":
            self.cursor_shown = what == "h"
        else:
            raise AssertionError(f"this screen doesn't know ESC [ {parameters} {what}")

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.lines).strip("\n")


class Terminal:
    """A pty with a screen; ``file`` is its other end, for who writes to a terminal."""

    def __init__(self) -> None:
        self._master, slave = pty.openpty()
        self.file: IO[str] = os.fdopen(slave, "w", encoding="utf-8")
        self._screen = Screen()
        self._fault: BaseException | None = None
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, name="terminal", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        decode = codecs.getincrementaldecoder("utf-8")().decode
        while True:
            try:
                written = os.read(self._master, 65_536)
            except OSError:  # the last writer has closed it
                return
            with self._news:
                try:
                    self._screen.feed(decode(written))
                except AssertionError as error:
                    self._fault = error
                self._news.notify_all()

    def until(self, holds: Callable[[Screen], bool]) -> str:
        """Wait until something holds of the screen; its text then."""
        deadline_s = time.monotonic() + PATIENCE_S
        with self._news:
            while True:
                if self._fault is not None:
                    raise self._fault
                if holds(self._screen):
                    return self._screen.text
                left_s = deadline_s - time.monotonic()
                assert left_s > 0, f"not within {PATIENCE_S:g} s; the screen shows:\n{self._screen.text}"
                self._news.wait(left_s)

    def close(self) -> None:
        self.file.close()
        self._reader.join()
        os.close(self._master)
