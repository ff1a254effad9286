"""Strategy parameters as a catalogue specifies them, and the check of given values against it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from chandlery.core.wording import did_you_mean, shown

Kind = Literal["int", "float", "bool", "str"]
Value = int | float | bool | str

_NOUNS: Final[Mapping[Kind, str]] = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
}


class ParameterSpec(msgspec.Struct, frozen=True):
    """One parameter of a strategy.

    Attributes:
        type: kind of value; whole numbers will do for ``float``, ``true`` and ``false`` for no number.
        default: value where a manifest gives none.
        ge, le: least and greatest value, both allowed; None: no bound.
        choices: the values allowed; None: any.
        doc: one line for a person.
    """

    type: Kind
    default: Value
    ge: float | None = None
    le: float | None = None
    choices: tuple[str, ...] | None = None
    doc: str = ""


def value_problem(spec: ParameterSpec, value: object) -> str | None:
    """What is wrong with ``value``, and what would be right; None: nothing."""
    if not _fits(spec.type, value):
        return f"needs {_NOUNS[spec.type]}, got {shown(value)}"
    if spec.choices is not None and value not in spec.choices:
        return f"must be one of {', '.join(spec.choices)}, got {shown(value)}{did_you_mean(str(value), spec.choices)}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        if spec.ge is not None and value < spec.ge:
            return f"must be at least {spec.ge:g}, got {value!r}"
        if spec.le is not None and value > spec.le:
            return f"must be at most {spec.le:g}, got {value!r}"
    return None


def _fits(kind: Kind, value: object) -> bool:
    if kind == "bool" or isinstance(value, bool):
        return kind == "bool" and isinstance(value, bool)
    if kind == "str":
        return isinstance(value, str)
    if kind == "int":
        return isinstance(value, int)
    return isinstance(value, int | float) and math.isfinite(value)
