"""Trader: one strategy on one or more symbols at one interval; owned by a quant."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Final, Literal

from pydantic import ConfigDict, Field, PlainValidator, WithJsonSchema, model_validator

from chandlery.core.assignment import SeriesRef
from chandlery.core.assignment import Trigger as Trigger
from chandlery.core.intervals import parse_interval
from chandlery.core.quantities import format_quantity
from chandlery.core.resources.base import (
    Bytes,
    Count,
    DnsLabel,
    DurationMs,
    Flag,
    IntervalText,
    Reference,
    Resource,
    Spec,
    Symbol,
    sentence,
)
from chandlery.core.resources.rules import ANY_VALUE, NO_LIST, NO_OBJECT, at_least_bytes, rule, rules
from chandlery.core.signal_life import TTL_INTERVALS
from chandlery.core.transports import Transport

ParameterValue = bool | int | float | str
#: A ConfigMap's strategy source may be this long.
MAX_SOURCE_BYTES: Final = 64 * 1024
#: Annotation with which a change of a Trader with `rollout: Manual` is let through; its value is the generation.
APPROVE_ANNOTATION: Final = "chandlery.dev/approve-generation"
#: What is said of a source that is another under the same generation: no approval covers it.
CHANGED_IN_PLACE: Final = "was changed in place"
#: What is said of a Trader that its pool suspends: resuming the Trader alone has it decide nothing yet.
OF_ITS_POOL: Final = "of its TraderPool"
#: What is said, at the end, of a Trader that runs another version than its newest one and is suspended; then by whom.
MEANWHILE_NOTHING: Final = "; meanwhile it decides nothing: "
_MIN_MEMORY_BYTES: Final = 32 * 1024 * 1024


def _read_parameter(value: object) -> ParameterValue:
    if isinstance(value, float) and not math.isfinite(value):
        raise sentence(f"needs a finite number, got {value!r}")
    if isinstance(value, bool | int | float | str):
        return value
    kind = "a list" if isinstance(value, list) else "an object" if isinstance(value, dict) else "nothing"
    raise sentence(f"needs a number, true, false or text, got {kind}")


Parameter = Annotated[
    ParameterValue,
    PlainValidator(_read_parameter),
    WithJsonSchema({**ANY_VALUE, **NO_LIST, **NO_OBJECT}),
]


class ConfigMapKey(Spec):
    """One key of a ConfigMap in the Trader's namespace."""

    name: DnsLabel = Field(description="Name of the ConfigMap.")
    key: Annotated[str, Field(min_length=1, max_length=253)] = Field(
        default="strategy.py", description="Key that holds the Python text, at most 64 KiB."
    )


class StrategySource(Spec):
    """Where a strategy's code is, if not in the pool's image."""

    config_map_ref: ConfigMapKey = Field(description="A Python file in a ConfigMap of the Trader's namespace.")


class Strategy(Spec):
    """What decides."""

    name: Annotated[str, Field(min_length=1, max_length=128)] = Field(
        description="Name in the pool's catalogue, such as sma-cross; with `source`, the name of the class."
    )
    parameters: dict[str, Parameter] = Field(
        default={}, description="The strategy's parameters; those left out have its defaults."
    )
    source: StrategySource | None = Field(default=None, description="Code that is not in the pool's image.")


class Informative(Spec):
    """A series read beside the one decided on."""

    symbol: Symbol | None = Field(default=None, description="Symbol; absent: each of the Trader's own symbols.")
    interval: IntervalText = Field(description="Interval, such as 1h.")


class Market(Spec):
    """What is decided on."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            # Two spellings of one symbol are the same: BTC/USDT and btcusdt.
            rule(
                "self.symbols.map(symbol, symbol.upperAscii().replace('/', '')).all(one, "
                "self.symbols.exists_one(other, other.upperAscii().replace('/', '') == one))",
                "symbols has one of them twice",
                field="symbols",
            )
        )
    )

    # 64: a signal ring keeps that many positions.
    symbols: Annotated[list[Symbol], Field(min_length=1, max_length=64)] = Field(
        description="Symbols, such as [BTC/USDT]; each is decided on by itself."
    )
    interval: IntervalText = Field(description="Interval of the candles decided on, such as 1s, 5m or 1h.")
    warmup: Annotated[Count, Field(ge=1, le=100_000)] | None = Field(
        default=None, description="Closed candles needed before the first decision; absent: what the strategy says."
    )
    informative: Annotated[list[Informative], Field(max_length=64)] = Field(
        default=[], description="Series read beside the ones decided on, aligned without look-ahead."
    )

    @model_validator(mode="after")
    def _symbols_differ(self) -> Market:
        repeated = sorted({symbol for symbol in self.symbols if self.symbols.count(symbol) > 1})
        if repeated:
            raise sentence(f"symbols has {repeated[0]} twice")
        return self

    def own_series(self) -> list[SeriesRef]:
        """The series decided on."""
        return [SeriesRef(symbol, self.interval) for symbol in self.symbols]

    def informative_series(self) -> list[SeriesRef]:
        """The series beside them, without repetition."""
        return list(
            dict.fromkeys(
                SeriesRef(symbol, informative.interval)
                for informative in self.informative
                for symbol in ([informative.symbol] if informative.symbol else self.symbols)
            )
        )

    def series(self) -> list[SeriesRef]:
        """Every series read, own ones first, without repetition."""
        return list(dict.fromkeys([*self.own_series(), *self.informative_series()]))


class Signals(Spec):
    """Limits on signals."""

    ttl: DurationMs | None = Field(
        default=None,
        description="A closed candle that lies further than this behind the newest one of its series when its turn comes gets "
        "no decision (market time: how late both came doesn't count); a signal that nothing ended expires so long after it "
        "became active, by the clock; absent: ten intervals.",
    )
    cooldown: DurationMs = Field(
        default=0, description="Least market time between two signals of one rule and symbol, by default 0s."
    )


class TraderResources(Spec):
    """Limits on the trader's process."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                at_least_bytes("self.memory", _MIN_MEMORY_BYTES),
                f"memory is too little to start in; write {format_quantity(_MIN_MEMORY_BYTES)} or more",
                field="memory",
            )
        )
    )

    memory: Bytes = Field(
        default=256 * 1024 * 1024,
        description="The process is stopped above this resident size; by default 256Mi, at least 32Mi.",
    )

    @model_validator(mode="after")
    def _enough_to_start(self) -> TraderResources:
        if self.memory < _MIN_MEMORY_BYTES:
            raise sentence(
                f"memory {format_quantity(self.memory)} is too little to start in; "
                f"write {format_quantity(_MIN_MEMORY_BYTES)} or more"
            )
        return self


class TraderSpec(Spec):
    """What a Trader is to be."""

    pool: Reference = Field(description="The TraderPool that runs it.")
    strategy: Strategy = Field(description="What decides.")
    market: Market = Field(description="What is decided on.")
    trigger: Trigger = Field(
        default="CandleClose",
        description="When it decides: CandleClose, or EveryUpdate (also on the forming candle, provisionally).",
    )
    transport: Transport | None = Field(
        default=None,
        description="How candles reach it: SharedMemory, or Pipe (copies, slower); absent: as its pool says.",
    )
    tier: DnsLabel = Field(default="standard", description="One of the pool's tiers.")
    suspend: Flag = Field(default=False, description="true: keeps its place, decides nothing.")
    signals: Signals = Field(default=Signals(), description="Limits on signals.")
    resources: TraderResources = Field(default=TraderResources(), description="Limits on its process.")
    rollout: Literal["Auto", "Manual"] = Field(
        default="Auto",
        description="Manual: a change waits for the annotation chandlery.dev/approve-generation with its generation.",
    )


class Trader(Resource):
    """One strategy on one or more symbols at one interval."""

    KIND: ClassVar[str] = "Trader"

    kind: Literal["Trader"] = Field(default="Trader", description="Trader.")
    spec: TraderSpec = Field(description="What the trader is to be.")

    @property
    def signal_ttl_ms(self) -> int:
        """``signals.ttl``, or ten intervals (ms): how far behind its series' newest a candle may be to be decided on."""
        if self.spec.signals.ttl is not None:
            return self.spec.signals.ttl
        return TTL_INTERVALS * parse_interval(self.spec.market.interval).length_ms
