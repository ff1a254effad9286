"""TraderPool: workers over one feed, and who may run traders on them."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import ConfigDict, Field, JsonValue, WithJsonSchema, model_validator

from chandlery.core.resources.base import Access, Count, DnsLabel, Flag, Metadata, Reference, Resource, Spec, sentence
from chandlery.core.resources.kafka import SecretName
from chandlery.core.resources.rules import rule, rules
from chandlery.core.transports import Transport as Transport

#: Rows at a ring's end that no window may touch; a series' longest window is `candles` less these.
GUARD_ROWS: Final = 64
# A worker's name {pool}-{n} names a StatefulSet, whose pods get a label of name + "-" + 10 characters: 63 at most.
MAX_POOL_NAME: Final = 48


def _without_default(schema: dict[str, Any]) -> None:
    """For a field whose default depends on another: a schema knows constants alone."""
    del schema["default"]


# What `max` is where it isn't given, see Workers._max_at_least_min.
_MOST: Final = "(has(self.max) ? self.max : self.min > 1 ? self.min : 1)"


class FeedReference(Reference):
    """Names the pool's MarketFeed, and what of the pool's namespace that feed may have."""

    secrets: Annotated[list[SecretName], Field(max_length=16)] = Field(
        default=[],
        description="Where the feed is in another namespace: Secrets of this one that it may have the workers mount, "
        "and show to its Kafka. It must name no others.",
    )


class Workers(Spec):
    """How many workers there are."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(f"{_MOST} >= self.min", "max is below min; raise max, or lower min", field="max"),
            rule(f"self.spare <= {_MOST}", "spare is above max; lower spare, or raise max", field="spare"),
        )
    )

    min: Annotated[Count, Field(ge=0, le=1000)] = Field(default=1, description="Workers that are always there.")
    max: Annotated[Count, Field(ge=1, le=1000)] = Field(
        default=1,
        description="Most workers, by default `min` and at least 1; with all full a Trader waits with reason PoolFull.",
        json_schema_extra=_without_default,
    )
    spare: Annotated[Count, Field(ge=0, le=100)] = Field(
        default=0, description="Empty workers kept warm for what comes, within `max`."
    )

    @model_validator(mode="before")
    @classmethod
    def _max_at_least_min(cls, value: object) -> object:
        # `min` alone raises the default of `max` with it.
        if isinstance(value, dict) and "max" not in value and isinstance(value.get("min"), int):
            return {**value, "max": max(1, value["min"])}
        return value

    @model_validator(mode="after")
    def _ordered(self) -> Workers:
        if self.max < self.min:
            raise sentence(f"max {self.max} is below min {self.min}")
        if self.spare > self.max:
            raise sentence(f"spare {self.spare} is above max {self.max}")
        return self


class Segment(Spec):
    """Size of each worker's shared memory: about 112 bytes a candle and series."""

    candles: Annotated[Count, Field(ge=128, le=100_000)] = Field(
        default=1_000, description="Closed candles kept a series; the newest 64 less can be seen in one window."
    )
    series: Annotated[Count, Field(ge=1, le=8192)] = Field(
        default=512,
        description="Most series (symbol and interval) that the traders of one worker may ask for together.",
    )


class Tier(Spec):
    """A class of traders within a pool."""

    name: DnsLabel = Field(description="What a Trader's `tier` says.")


class Telemetry(Spec):
    """Where workers send what they measure."""

    otlp_endpoint: Annotated[str, Field(pattern=r"^https?://\S+$")] | None = Field(
        default=None, description="OTLP receiver of signals' traces, http:// or https://; absent: none is exported."
    )
    otlp_protocol: Literal["http/protobuf", "grpc"] = Field(
        default="http/protobuf",
        description="How the receiver is spoken to: http/protobuf, or grpc (12 MB more a feed).",
    )
    tick_share: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0, description="Which part of ordinary ticks is traced too, 0 … 1; signals always are."
    )


class TraderPoolSpec(Spec):
    """What a TraderPool is to be."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.tiers.all(one, self.tiers.exists_one(other, other.name == one.name))",
                "two of the tiers have the same name",
                field="tiers",
            )
        )
    )

    feed: FeedReference = Field(description="The MarketFeed whose candles the workers get.")
    image: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="Container image with the strategies; absent: the operator's default."
    )
    workers: Workers = Field(default=Workers(), description="How many workers there are.")
    traders_per_worker: Annotated[Count, Field(ge=1, le=256)] = Field(
        default=20, description="Most traders in one worker."
    )
    segment: Segment = Field(default=Segment(), description="Size of each worker's shared memory.")
    tiers: Annotated[list[Tier], Field(min_length=1, max_length=16)] = Field(
        default=[Tier(name="standard")], description="Tiers that traders may name, most urgent first."
    )
    transport: Transport = Field(
        default="SharedMemory",
        description="How candles reach traders that don't say it themselves: SharedMemory, or Pipe (copies, slower).",
    )
    telemetry: Telemetry = Field(default=Telemetry(), description="Where workers send what they measure.")
    pod_template: Annotated[
        dict[str, JsonValue], WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True})
    ] = Field(default={}, description="Laid over the worker's pod template (metadata and spec), in a cluster.")
    suspend: Flag = Field(
        default=False, description="true: workers stay, and all its traders keep their places and decide nothing."
    )
    allowed_traders: Access = Field(default=Access(), description="Traders that may use this pool.")
    allow_config_map_strategies: Flag = Field(
        default=False, description="Whether traders may bring their strategy's source in a ConfigMap."
    )

    @model_validator(mode="after")
    def _tiers_differ(self) -> TraderPoolSpec:
        names = [tier.name for tier in self.tiers]
        if len(set(names)) != len(names):
            raise sentence("two of the tiers have the same name")
        return self


class PoolMetadata(Metadata):
    """Metadata of a TraderPool: workers are called {name}-{number}."""

    name: Annotated[DnsLabel, Field(max_length=MAX_POOL_NAME)] = Field(
        description="Name, unique among the pools of the namespace: lower-case letters, digits and '-', at most 48."
    )


class TraderPool(Resource):
    """Workers over one feed; owned by the platform team."""

    KIND: ClassVar[str] = "TraderPool"

    kind: Literal["TraderPool"] = Field(default="TraderPool", description="TraderPool.")
    metadata: PoolMetadata = Field(description="Name, namespace, labels and annotations.")
    spec: TraderPoolSpec = Field(description="What the pool is to be.")
