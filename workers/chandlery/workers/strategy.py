"""The strategy API: what a quant writes, and nothing of how it is run.

::

    class SmaCross(Strategy):
        \"\"\"Buys when the fast average crosses above the slow one, sells when it crosses below.\"\"\"

        name = "sma-cross"
        fast: int = parameter(10, ge=2, le=500, doc="candles of the fast average")
        slow: int = parameter(30, ge=3, le=800, doc="candles of the slow average")

        @property
        def warmup(self) -> int:
            return self.slow + 1

        def on_candle(self, ctx: Context, candles: Candles) -> None:
            ...
            ctx.buy(f"SMA{self.fast} above SMA{self.slow}", rule="cross-up")

The same class runs live, in replay and in a backtest. A strategy reads no wall clock and no unseeded
randomness; what it keeps between calls it keeps in attributes of ``self``.
"""

from __future__ import annotations

import copy
import inspect
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, NamedTuple, Self, TypeVar, cast

import msgspec

from chandlery.core.errors import StrategyError
from chandlery.core.parameters import ParameterSpec, Value, value_problem
from chandlery.core.signals import Action
from chandlery.workers.candles import Candles
from chandlery.workers.parameters import KINDS, resolve

__all__ = ["Candles", "Context", "Decision", "Strategy", "parameter"]

ValueT = TypeVar("ValueT", bool, int, float, str)

#: Longest name of a rule: its id and record must fit a ring's slot.
MAX_RULE_CHARS: Final = 32
_KEBAB: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_PLAIN: Final = (int, float, bool, str, bytes, type(None))


def parameter(
    default: ValueT,
    *,
    ge: float | None = None,
    le: float | None = None,
    choices: tuple[str, ...] | None = None,
    doc: str = "",
) -> ValueT:
    """Declare a parameter of a strategy; its type is the default's.

    Args:
        default: value where the Trader's manifest gives none.
        ge, le: least and greatest value allowed, both included.
        choices: the texts allowed (``str`` only).
        doc: one line for a person.
    """
    kind = KINDS.get(type(default))
    if kind is None:
        raise StrategyError(f"default {default!r}: a parameter is an int, float, bool or str", reason="BadSource")
    spec = ParameterSpec(kind, default, ge, le, tuple(choices) if choices else None, doc)
    return cast(ValueT, spec)


def _declared(cls: type) -> dict[str, ParameterSpec]:
    annotations = inspect.get_annotations(cls)
    declared: dict[str, ParameterSpec] = {}
    for name, spec in vars(cls).items():
        if isinstance(spec, ParameterSpec):
            # `x: float = parameter(2)` means a float, whatever its default looks like.
            meant_float = annotations.get(name) in (float, "float")
            declared[name] = msgspec.structs.replace(spec, type="float") if meant_float else spec
    return declared


class Decision(NamedTuple):
    """One signal as the strategy asked for it."""

    action: Action
    rule: str
    reason: str
    strength: float


#: Gives the candles of an informative series (symbol, interval) that the decision may see.
Informative = Callable[[str, str], Candles]


def _no_informative(symbol: str, interval: str) -> Candles:
    raise StrategyError(
        f"the strategy reads {interval} of {symbol}: list it under market.informative of the Trader",
        reason="UnknownInformative",
    )


class Context:
    """One call's surroundings: what is decided on, and where signals go.

    Attributes:
        symbol, interval: the series decided on.
        is_forming: whether the last candle is still open (``trigger: EveryUpdate``).
        parameters: the strategy's parameter values by name.
        decisions: the signals asked for so far in this call.
    """

    __slots__ = ("_informative", "decisions", "interval", "is_forming", "parameters", "symbol")

    def __init__(
        self,
        symbol: str,
        interval: str,
        parameters: Mapping[str, Value],
        *,
        is_forming: bool = False,
        informative: Informative = _no_informative,
    ) -> None:
        self.symbol = symbol
        self.interval = interval
        self.parameters = parameters
        self.is_forming = is_forming
        self.decisions: list[Decision] = []
        self._informative = informative

    def buy(self, reason: str, strength: float = 1.0, rule: str = "buy") -> None:
        """Signal a buy. ``reason``: one line for a person; ``strength``: 0 … 1; ``rule``: which rule fired."""
        self._decide("buy", rule, reason, strength)

    def sell(self, reason: str, strength: float = 1.0, rule: str = "sell") -> None:
        """Signal a sell; see :meth:`buy`."""
        self._decide("sell", rule, reason, strength)

    def close(self, reason: str, strength: float = 1.0, rule: str = "close") -> None:
        """Signal the end of a position, whatever its side; see :meth:`buy`."""
        self._decide("close", rule, reason, strength)

    def custom(self, reason: str, strength: float = 1.0, rule: str = "custom") -> None:
        """Signal something else than buy, sell or close; its ``rule`` says what. See :meth:`buy`."""
        self._decide("custom", rule, reason, strength)

    def informative(self, interval: str, *, symbol: str | None = None) -> Candles:
        """Candles of another series, none of them closed later than the candle decided on.

        Args:
            interval: such as ``5m``. symbol: unified symbol; the decision's own when None.

        Returns:
            At most as many candles as the decision's own window; fewer, or none, where history is short.

        Raises:
            StrategyError: the Trader doesn't list the series.
        """
        return self._informative(symbol or self.symbol, interval)

    def _decide(self, action: Action, rule: str, reason: str, strength: float) -> None:
        if not 1 <= len(rule) <= MAX_RULE_CHARS or not (rule.isascii() and rule.isprintable()):
            raise ValueError(f"rule {rule!r}: 1 to {MAX_RULE_CHARS} printable ASCII characters")
        if not (math.isfinite(strength) and 0.0 <= strength <= 1.0):
            raise ValueError(f"strength {strength!r} of rule {rule!r} is not within 0 … 1")
        self.decisions.append(Decision(action, rule, str(reason), round(float(strength), 6)))


class Strategy(ABC):
    """Base of every strategy. One instance per symbol.

    Attributes:
        name: name in catalogue and manifests; from the class name (``SmaCross`` → ``sma-cross``) if not given.
        memory: closed candles before the present one on which attributes of ``self`` may depend. After a
            restart the trader runs them again, in silence, so that the state is what it was. 0: no state.
        specs: the declared parameters by name.
    """

    name: ClassVar[str] = ""
    memory: ClassVar[int] = 0
    specs: ClassVar[Mapping[str, ParameterSpec]] = {}

    _values: Mapping[str, Value]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            cls.name = kebab(cls.__name__)
        declared = _declared(cls)
        for name, spec in declared.items():
            problem = value_problem(spec, spec.default)
            if problem is not None:
                raise StrategyError(f"{cls.name}: default of {name}: {problem}", reason="BadSource")
        cls.specs = {**cls.specs, **declared}

    def __init__(self, parameters: Mapping[str, object] | None = None) -> None:
        """Configure an instance.

        Args:
            parameters: values by name; defaults where absent.

        Raises:
            StrategyError: ``BadParameter``, one line with every problem.
        """
        values = resolve(self.name, self.specs, parameters or {})
        self._values = values
        self.__dict__.update(values)
        try:
            self.validate()
        except ValueError as error:
            raise StrategyError(f"{self.name}: {error}", reason="BadParameter") from error
        self.start()

    @property
    def parameters(self) -> Mapping[str, Value]:
        """Values of all parameters by name."""
        return self._values

    @property
    def warmup(self) -> int:
        """Closed candles needed for a call, the one decided on included. Each call sees exactly so many,
        unless the Trader asks for more, so that a decision depends on nothing but them (and the state).
        """
        return 1

    def validate(self) -> None:  # noqa: B027 -- a hook: most strategies have nothing to check
        """Check parameters against each other; raise ``ValueError`` with one clear line."""

    def start(self) -> None:  # noqa: B027 -- a hook: most strategies keep no state
        """Set up attributes that change between calls; called once, after the parameters are there."""

    @abstractmethod
    def on_candle(self, ctx: Context, candles: Candles) -> None:
        """Decide on the last of ``candles``; call ``ctx.buy`` and so on for signals."""

    def fork(self) -> Self:
        """A copy whose attributes can change without touching this one's.

        Objects with a ``copy`` method of their own (numpy arrays, TA-Lib streams) are copied by it, plain
        values are shared, everything else is copied deeply.
        """
        made = object.__new__(type(self))
        attributes = made.__dict__
        for name, value in self.__dict__.items():
            attributes[name] = value if isinstance(value, _PLAIN) else _copied(name, value)
        return made


def kebab(class_name: str) -> str:
    """The name of a strategy class that gives none: ``SmaCross`` → ``sma-cross``."""
    return _KEBAB.sub("-", class_name).lower()


def _copied(name: str, value: Any) -> Any:
    if name == "_values":
        return value
    if not isinstance(value, dict | list | set) and callable(getattr(value, "copy", None)):
        return value.copy()
    return copy.deepcopy(value)


def strategies_in(module: object) -> list[type[Strategy]]:
    """The concrete strategies that a module itself defines, in order of definition."""
    name = getattr(module, "__name__", "")
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Strategy)
        and value.__module__ == name
        and not inspect.isabstract(value)
    ]
