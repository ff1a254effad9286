"""How messages show values, paths and near misses."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Final

_SHOWN_CHARS: Final = 60
#: What a terminal may obey: C0 without tab and line feed, DEL, C1.
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def shown(value: object) -> str:
    """A value as a message shows it: quoted text, shortened; the size alone of a collection."""
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return f"an object with {', '.join(map(str, list(value)[:5]))}" if value else "an empty object"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = f'"{value}"' if isinstance(value, str) else repr(value)
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…"


def shortened(text: str) -> str:
    """Text as it was given, as Python spells it, with what is beyond 60 characters left out."""
    return repr(text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…")


def printable(text: str) -> str:
    """Words of somebody else for a terminal: control characters as ``\\x1b``, but for tab and line feed."""
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``; did you mean "sma-cross"?`` where a known word is close, else an empty string."""
    words = list(known)
    by_lower = {one.lower(): one for one in words}
    if word.lower() in by_lower:
        return f'; did you mean "{by_lower[word.lower()]}"?'
    close = difflib.get_close_matches(word.lower(), list(by_lower), n=1, cutoff=0.7)
    return f'; did you mean "{by_lower[close[0]]}"?' if close else ""


def path_text(path: tuple[str | int, ...]) -> str:
    """``("spec", "market", "symbols", 0)`` gives ``spec.market.symbols[0]``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
