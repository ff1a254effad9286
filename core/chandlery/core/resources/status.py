"""What the operator writes into ``status``: conditions in kstatus' words, and the figures beside them.

The CRDs' status schemas come from these types, so what the operator can write and what the API server keeps is one
thing. A field that isn't known is left out (None); a known zero is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

ConditionType = Literal[
    "Ready",  # kstatus: all is as the spec asks
    "Reconciling",  # kstatus: under way, will get there by itself
    "Stalled",  # kstatus: will not get there without a change by somebody
    "AssignmentApplied",  # Trader: its own process said READY for this generation
    "Warm",  # Trader: as much history as its strategy needs; `status.warm` has the figures
]
ConditionStatus = Literal["True", "False", "Unknown"]

_Generation = Annotated[int, Meta(description="Generation of the spec that this was said of.")]
# A message that is longer helps nobody and would be written a thousand times.
MAX_MESSAGE_CHARS: Final = 1024


class Condition(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True):
    """One thing that is so, or isn't, or isn't known."""

    type: Annotated[
        ConditionType, Meta(description="What it is about: Ready, Reconciling, Stalled, AssignmentApplied or Warm.")
    ]
    status: Annotated[ConditionStatus, Meta(description="True, False or Unknown.")]
    reason: Annotated[
        str,
        Meta(
            description="A stable word for programs, such as Running, PoolFull, BadParameter or AwaitingApproval.",
            extra_json_schema={"maxLength": 64, "pattern": "^[A-Za-z]([A-Za-z0-9]*)$"},
        ),
    ]
    last_transition_time: Annotated[
        str,
        Meta(
            description="When `status` last changed: RFC 3339, UTC.",
            extra_json_schema={"format": "date-time"},
        ),
    ]
    message: Annotated[
        str,
        Meta(
            description="One sentence for a person: what is so, and what to do about it.",
            extra_json_schema={"maxLength": MAX_MESSAGE_CHARS},
        ),
    ] = ""
    observed_generation: Annotated[int | None, Meta(description="Generation of the spec that this was said of.")] = None


_Conditions = Annotated[
    list[Condition],
    Meta(
        description="Ready, Reconciling and Stalled as kstatus has them, and what is Chandlery's own.",
        extra_json_schema={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    ),
]
_Observed = Annotated[
    int | None, Meta(description="Newest generation of the spec that the operator has acted on; -1: none yet.")
]


class Warmth(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True):
    """How much history there is, in closed candles of the series with the least."""

    have: Annotated[int, Meta(description="Closed candles that are there, counted up to `need`.")]
    need: Annotated[int, Meta(description="Closed candles that the strategy wants before its first decision.")]


class Latency(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True):
    """From the exchange's frame received to the broker's acknowledgement of the signal."""

    p50: Annotated[str, Meta(description="Median, with its unit, such as 3.1ms.")]
    p99: Annotated[str, Meta(description="99th percentile, with its unit, such as 9.8ms.")]
    count: Annotated[int, Meta(description="Signals that were measured.")]


class TraderStatus(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True, kw_only=True):
    """What has become of a Trader.

    Conditions are written when they change. Counters and percentiles ride along, and are else at most ten minutes old:
    the pod's API, the metrics and the command line have them live.
    """

    observed_generation: _Observed = None
    conditions: _Conditions = []
    worker: Annotated[str | None, Meta(description="The worker that runs it; absent: none does.")] = None
    pod: Annotated[str | None, Meta(description="The worker's pod.")] = None
    running_generation: Annotated[
        int | None,
        Meta(description="Generation that runs: an older one while a change is refused or waits for approval."),
    ] = None
    incarnation: Annotated[
        int | None, Meta(description="Grows whenever what runs, or where, changes; signals carry it.")
    ] = None
    code: Annotated[
        str | None, Meta(description="Digest of the strategy's code as it was loaded; signals' ids depend on it.")
    ] = None
    warm: Annotated[Warmth | None, Meta(description="History that is there, and that is needed.")] = None
    signals: Annotated[int | None, Meta(description="Signals emitted since the Trader began.")] = None
    latency: Annotated[
        Latency | None, Meta(description="How long signals took, of all Traders of its worker together.")
    ] = None
    restarts: Annotated[int | None, Meta(description="Times its process had to be started again.")] = None
    last_error: Annotated[
        str | None,
        Meta(description="Last line of its last crash.", extra_json_schema={"maxLength": MAX_MESSAGE_CHARS}),
    ] = None


class PoolStatus(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True, kw_only=True):
    """What has become of a TraderPool."""

    observed_generation: _Observed = None
    conditions: _Conditions = []
    capacity: Annotated[int | None, Meta(description="Traders that fit into the most workers.")] = None
    used: Annotated[int | None, Meta(description="Traders that have a worker.")] = None
    pending: Annotated[int | None, Meta(description="Traders that wait for room, with reason PoolFull.")] = None
    rolling: Annotated[
        int | None, Meta(description="Traders whose change to a newer version or another worker is under way.")
    ] = None
    workers: Annotated[int | None, Meta(description="Workers that there are to be now.")] = None
    ready_workers: Annotated[int | None, Meta(description="Workers that are Ready.")] = None
    updated_workers: Annotated[
        int | None, Meta(description="Workers whose pod is of the newest generation of this pool.")
    ] = None


class FeedStatus(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True, kw_only=True):
    """What has become of a MarketFeed."""

    observed_generation: _Observed = None
    conditions: _Conditions = []
    source: Annotated[str | None, Meta(description="Which source it is: synthetic, replay or binance.")] = None
    symbol_count: Annotated[int | None, Meta(description="Symbols that are ingested.")] = None
    symbols: Annotated[
        list[str],
        Meta(description="Symbols that ingest asks of the source: listed, or asked for by Traders."),
    ] = []
    unknown_symbols: Annotated[list[str], Meta(description="Those of them that the source doesn't have.")] = []
    intervals: Annotated[list[str], Meta(description="Intervals that are built, from short to long.")] = []
    session: Annotated[
        int | None,
        Meta(
            description="The run of a synthetic or replayed market, in ms since the epoch; 0: an exchange, "
            "which has no runs."
        ),
    ] = None
    bootstrap_servers: Annotated[str | None, Meta(description="Kafka that the feed uses.")] = None
    topic_prefix: Annotated[
        str | None, Meta(description="What the names of the feed's topics begin with, the feed's name included.")
    ] = None
    pools: Annotated[int | None, Meta(description="TraderPools that use the feed.")] = None


#: The type of ``status`` by kind.
STATUS_TYPES: Final[dict[str, type[msgspec.Struct]]] = {
    "MarketFeed": FeedStatus,
    "TraderPool": PoolStatus,
    "Trader": TraderStatus,
}


def merge_conditions(before: Iterable[Condition], after: Sequence[Condition]) -> list[Condition]:
    """``after``, each with the transition time of the same type in ``before`` where its status is what it was.

    So conditions that say the same are equal to the letter, and an unchanged status is seen to be unchanged.
    """
    known = {condition.type: condition for condition in before}
    return [
        msgspec.structs.replace(condition, last_transition_time=known[condition.type].last_transition_time)
        if condition.type in known and known[condition.type].status == condition.status
        else condition
        for condition in after
    ]


def status_manifest(status: msgspec.Struct) -> dict[str, Any]:
    """A status as the API server gets it: JSON values, camelCase, what isn't known left out."""
    found: dict[str, Any] = msgspec.to_builtins(status)
    return found


def read_status(kind: str, value: object) -> Any:
    """A status as the API server has it, as its type; one that can't be read (an older form) as an empty one."""
    try:
        return msgspec.convert(value or {}, STATUS_TYPES[kind])
    except msgspec.ValidationError:
        return STATUS_TYPES[kind]()
