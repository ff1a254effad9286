"""Lines of a worker's log: whose each is, and how a person reads it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from rich.text import Text

from chandlery.core.wording import printable

_LEVEL_STYLE: Final = {"warning": "yellow", "error": "bold red", "critical": "bold red", "debug": "dim"}
#: Facts that every line has, shown in their own way or (``trader``) known already.
_OWN_WAY: Final = frozenset({"time", "level", "component", "message", "exception", "trader", "logger", "printed"})

_INCARNATION: Final = re.compile(r"@\d+$")
_STAMP: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}(Z|[+-]\d\d:\d\d)")


@dataclass(frozen=True)
class LogLine:
    """One line.

    Attributes:
        stamp: when the node took it, as the kubelet writes it, with nine digits after the second: a node's compare as
            text. Empty: it isn't a line of the log.
        raw: as it was written. facts: what it says, where it is JSON of ours; else empty.
        is_wanted: whether it is of the Trader that is asked for.
    """

    stamp: str
    raw: str
    is_wanted: bool
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def whose(self) -> str:
        """The Trader that wrote it, or that it is about; else the part of the worker that wrote it."""
        component = str(self.facts.get("component", ""))
        return str(self.facts.get("trader") or component.removeprefix("trader "))

    def text(self, *, whose: bool = False) -> Text:
        """``11-25 12:00:00.123 error: trader ended  reason=Crashed``; a line that isn't ours as it is.

        A strategy may print what it likes: what a terminal would obey is shown instead (``\\x1b``).

        Args:
            whose: begin with whose it is, for lines of several Traders.
        """
        if not self.facts:
            return Text(printable(self.raw))
        level, facts = str(self.facts.get("level", "info")), self.facts
        more = " ".join(
            f"{name}={_shown(value)}" for name, value in facts.items() if name not in _OWN_WAY and value != ""
        )
        text = Text.assemble((printable(_moment(str(facts.get("time", "")))), "dim"), " ")
        if whose:
            text.append(f"{printable(self.whose)}  ", style="cyan")
        if level != "info":
            text.append(f"{printable(level)}: ", style=_LEVEL_STYLE.get(level, ""))
        text.append(printable(str(facts.get("message", ""))))
        if more:
            text.append(f"  {printable(more)}", style="dim")
        if facts.get("exception"):
            text.append(printable(f"\n{facts['exception']}"))
        return text


def read_line(line: str, wanted: str) -> LogLine:
    """One line of ``kubectl logs --timestamps``.

    Args:
        wanted: ``namespace/name`` of the Trader asked for; empty: all lines are wanted.
    """
    stamp, _, raw = line.partition(" ")
    if not _STAMP.fullmatch(stamp):
        return LogLine("", line, True)  # the kubelet's own word, such as why it can't go on
    facts = _facts(raw)
    return LogLine(stamp, raw, not wanted or is_of(facts, wanted), facts)


def is_of(facts: dict[str, Any], trader: str) -> bool:
    """Whether a line is a Trader's own (its process's component), or the supervisor's about it (its ``trader``).

    Either names the Trader or one incarnation of it (``namespace/name@3``).
    """
    own = str(facts.get("component", "")).removeprefix("trader ")
    return trader in (_INCARNATION.sub("", own), _INCARNATION.sub("", str(facts.get("trader", ""))))


def _facts(raw: str) -> dict[str, Any]:
    if not raw.startswith("{"):
        return {}
    try:
        found = msgspec.json.decode(raw, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return found if "message" in found else {}


def _moment(time: str) -> str:
    """``2026-11-25T12:00:00.123+00:00`` without the zone, which is always UTC: ``11-25 12:00:00.123``."""
    return time[5:23].replace("T", " ") if len(time) >= 23 else time


def _shown(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
