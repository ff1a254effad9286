"""Strategies with a Trader's parameters, as they are asked of the process that imports strategies, and its answers.

A catalogue tells what each parameter may be by itself. Whether they fit each other, and how many candles they need, only
the strategy's own code knows (``validate`` and ``warmup``).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal

import msgspec

from chandlery.core.parameters import Value

if TYPE_CHECKING:
    from chandlery.core.resources import Trader


class Configuration(msgspec.Struct, frozen=True):
    """A strategy of the catalogue and the parameters given to it."""

    strategy: str
    parameters: Mapping[str, Value]

    @property
    def key(self) -> str:
        """Equal for equal ones."""
        return json.dumps([self.strategy, dict(self.parameters)], sort_keys=True)


class Configured(msgspec.Struct, frozen=True, omit_defaults=True):
    """What has become of a configuration.

    Attributes:
        warmup: closed candles that a call needs; 0 with a problem.
        problem: why it can't be used, in one line; empty: it can. reason: stable word for that.
    """

    warmup: int = 0
    problem: str = ""
    reason: Literal["BadParameter", "BadStrategy"] = "BadParameter"


class Answer(msgspec.Struct, frozen=True):
    """What has become of one of the configurations that were asked for: its place among them; None: that can't be said."""

    index: int
    configured: Configured | None


#: By :attr:`Configuration.key`; None: asked for, without an answer.
Answers = Mapping[str, Configured | None]


def configuration_of(trader: Trader) -> Configuration | None:
    """What a Trader asks for.

    None: its strategy comes with a source, which its own process alone runs; or a value is one that no parameter may have.
    """
    strategy = trader.spec.strategy
    if strategy.source is not None or not all(map(_is_possible, strategy.parameters.values())):
        return None
    return Configuration(strategy.name, strategy.parameters)


def _is_possible(value: Value) -> bool:
    """Whether JSON has the value: a number too long or not finite is refused by itself."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, str):
        return value.isascii() or not any("\ud800" <= one <= "\udfff" for one in value)
    return -(2**63) <= value < 2**63


def configurations_of(traders: Iterable[Trader]) -> dict[str, Configuration]:
    """What Traders ask for, each once, by key."""
    asked = filter(None, map(configuration_of, traders))
    return {configuration.key: configuration for configuration in asked}
