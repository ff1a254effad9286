"""Structured logs: one line a fact. JSON when nobody watches, short and readable on a terminal.

``log.info("assignment applied", extra={"sequence": 7})`` gives
``{"time": …, "level": "info", "component": "feed", "message": "assignment applied", "sequence": 7}``.
"""

from __future__ import annotations

import datetime as dt
import logging
import re
import sys
from typing import Final

import msgspec

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
#: What ends a line or is obeyed by a terminal: C0, DEL, C1, and Unicode's own line and paragraph separators.
_CONTROLS: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_encode: Final = msgspec.json.Encoder(enc_hook=repr).encode


def _facts(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _on_one_line(text: str) -> str:
    """A line feed as ``\\n``, an escape as ``\\x1b``."""
    return _CONTROLS.sub(lambda found: repr(found[0])[1:-1], text)


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def __init__(self, component: str) -> None:
        super().__init__()
        self.component = component

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "component": self.component,
            "message": record.getMessage(),
            **_facts(record),
        }
        if record.name not in ("root", "chandlery"):
            line["logger"] = record.name
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _encode(line).decode()


class TerminalFormatter(logging.Formatter):
    """``12:00:00.123 feed  assignment applied  sequence=7``."""

    def __init__(self, component: str) -> None:
        super().__init__()
        self.component = component

    def format(self, record: logging.LogRecord) -> str:
        time = dt.datetime.fromtimestamp(record.created).strftime("%H:%M:%S.%f")[:-3]
        facts = " ".join(f"{name}={value}" for name, value in _facts(record).items())
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        line = f"{time} {self.component}  {level}{_on_one_line(record.getMessage())}"
        if facts:
            line += f"  {_on_one_line(facts)}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def configure_logs(component: str, level: str = "info") -> logging.Logger:
    """Send the process's logs to stderr and return the ``chandlery`` logger.

    Once more, in the process or in a fork of it, it gives them another name and level. That costs a fork next to nothing:
    it need not make logging's parts anew.
    """
    kind = TerminalFormatter if sys.stderr.isatty() else JsonFormatter
    if (ours := _formatter_in_place(kind)) is not None:
        ours.component = component
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(kind(component))
        logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logger = logging.getLogger("chandlery")
    if logger.level != (wanted := logging.getLevelName(level.upper())):
        logger.setLevel(wanted)  # forgets what every logger has found out about levels
    return logger


def _formatter_in_place(
    kind: type[JsonFormatter | TerminalFormatter],
) -> JsonFormatter | TerminalFormatter | None:
    handlers = logging.getLogger().handlers
    only = handlers[0] if len(handlers) == 1 else None
    if not isinstance(only, logging.StreamHandler) or only.stream is not sys.stderr:
        return None
    return only.formatter if isinstance(only.formatter, kind) else None
