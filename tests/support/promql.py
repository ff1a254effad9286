"""Names of series: those that a query asks for, and those that an endpoint's text knows of, with samples or without."""

from __future__ import annotations

import re
from typing import Final

_WORDS: Final = frozenset(
    {"and", "or", "unless", "by", "without", "on", "ignoring", "bool", "offset", "sum", "avg", "max"}
)
#: In this order: texts, what is in braces and in brackets, and the labels behind by (…) and its like.
_NO_NAMES: Final = (
    r'"(?:[^"\\]|\\.)*"',
    r"\{[^}]*\}",
    r"\[[^\]]*\]",
    r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)",
)
_NAME: Final = re.compile(r"(?<![\w:.$])[a-zA-Z_:][\w:]*(?!\s*\()(?![\w:])")
_FORMS: Final = {"histogram": ("", "_bucket", "_sum", "_count"), "summary": ("", "_sum", "_count")}


def names_in(query: str) -> set[str]:
    """Names of the series that a PromQL query asks for; those of labels and functions left out."""
    for pattern in _NO_NAMES:
        query = re.sub(pattern, " ", query)
    return {name for name in _NAME.findall(query) if name.lower() not in _WORDS}


def selectors_in(query: str) -> list[tuple[str, str]]:
    """Each name of a series in a query, and what stands in braces behind it."""
    return [
        (name, (re.match(r"\{([^}]*)\}", query[found.end() :]) or ["", ""])[1])
        for name in sorted(names_in(query))
        for found in re.finditer(rf"(?<![\w:]){name}(?![\w:])", query)
    ]


def names_exported(text: str) -> set[str]:
    """Names that an endpoint's text (0.0.4) has a ``HELP`` of, in each form that its type has."""
    kinds = dict(line.split(" ", 3)[2:] for line in text.splitlines() if line.startswith("# TYPE "))
    helped = {line.split(" ", 3)[2] for line in text.splitlines() if line.startswith("# HELP ")}
    return {name + form for name in helped for form in _FORMS.get(kinds[name], ("",))}
