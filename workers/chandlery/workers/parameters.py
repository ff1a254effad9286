"""Strategy parameters: their specification, and the one check that planners and traders share.

A specification is plain data, so that a planner can check a manifest against a worker's catalogue without
importing any strategy.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

import msgspec

from chandlery.core.errors import StrategyError

Kind = Literal["int", "float", "bool", "str"]
Value = int | float | bool | str

KINDS: Final[Mapping[type, Kind]] = {int: "int", float: "float", bool: "bool", str: "str"}
_NOUNS: Final[Mapping[str, str]] = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
}


class ParameterSpec(msgspec.Struct, frozen=True):
    """One parameter of a strategy.

    Attributes:
        type: kind of value; whole numbers are taken for ``float`` too, never ``bool`` for a number.
        default: value where a manifest gives none.
        ge, le: least and greatest value, both included; None: no bound.
        choices: the values allowed; None: any.
        doc: one line for a person.
    """

    type: Kind
    default: Value
    ge: float | None = None
    le: float | None = None
    choices: tuple[str, ...] | None = None
    doc: str = ""


def suggestion(word: str, known: Iterable[str]) -> str:
    """``": did you mean 'x'?"`` where a known word is near, else an empty text."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f": did you mean {near[0]!r}?" if near else ""


def _type_problem(spec: ParameterSpec, value: object) -> str | None:
    if spec.type == "bool":
        fits = isinstance(value, bool)
    elif spec.type == "str":
        fits = isinstance(value, str)
    elif spec.type == "int":
        fits = isinstance(value, int) and not isinstance(value, bool)
    else:
        fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return None if fits else f"{value!r} is not {_NOUNS[spec.type]}"


def value_problem(spec: ParameterSpec, value: object) -> str | None:
    """What is wrong with ``value`` for ``spec``, in a few words; None when it is right."""
    problem = _type_problem(spec, value)
    if problem is not None:
        return problem
    if spec.choices is not None and value not in spec.choices:
        near = suggestion(str(value), spec.choices)
        return f"{value!r} is none of {', '.join(spec.choices)}{near}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        if spec.ge is not None and value < spec.ge:
            return f"{value!r} is below {spec.ge:g}"
        if spec.le is not None and value > spec.le:
            return f"{value!r} is above {spec.le:g}"
    return None


def problems(specs: Mapping[str, ParameterSpec], parameters: Mapping[str, object]) -> list[str]:
    """Everything that is wrong with ``parameters``, one line each, each naming its parameter."""
    found: list[str] = []
    for name, value in parameters.items():
        spec = specs.get(name)
        if spec is None:
            listed = ", ".join(specs) or "none"
            found.append(f"{name}: unknown parameter{suggestion(name, specs) or '.'} There are: {listed}")
            continue
        problem = value_problem(spec, value)
        if problem is not None:
            found.append(f"{name}: {problem}")
    return found


def resolve(owner: str, specs: Mapping[str, ParameterSpec], parameters: Mapping[str, object]) -> dict[str, Value]:
    """Values of all parameters, defaults included, in the order of declaration.

    Args:
        owner: the strategy's name, for messages.

    Raises:
        StrategyError: ``BadParameter``; the message holds every problem in one line.
    """
    wrong = problems(specs, parameters)
    if wrong:
        raise StrategyError(f"{owner}: " + "; ".join(wrong), reason="BadParameter")
    return {name: _as_declared(spec, parameters.get(name, spec.default)) for name, spec in specs.items()}


def _as_declared(spec: ParameterSpec, value: Any) -> Value:
    result: Value = float(value) if spec.type == "float" else value
    return result
