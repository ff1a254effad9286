"""A strategy's parameters: what its class declares, checked by the same rules as manifests are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from chandlery.core.errors import StrategyError
from chandlery.core.parameters import Kind, ParameterSpec, Value, value_problem
from chandlery.core.wording import did_you_mean

KINDS: Final[Mapping[type, Kind]] = {int: "int", float: "float", bool: "bool", str: "str"}


def _problems(specs: Mapping[str, ParameterSpec], parameters: Mapping[str, object]) -> list[str]:
    """Everything that is wrong with ``parameters``, one line each, each naming its parameter."""
    found: list[str] = []
    for name, value in parameters.items():
        spec = specs.get(name)
        if spec is None:
            listed = ", ".join(specs) or "none"
            found.append(f"{name}: unknown parameter; there are: {listed}{did_you_mean(name, specs)}")
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
    wrong = _problems(specs, parameters)
    if wrong:
        raise StrategyError(f"{owner}: " + "; ".join(wrong), reason="BadParameter")
    return {name: _as_declared(spec, parameters.get(name, spec.default)) for name, spec in specs.items()}


def _as_declared(spec: ParameterSpec, value: Any) -> Value:
    result: Value = float(value) if spec.type == "float" else value
    return result
