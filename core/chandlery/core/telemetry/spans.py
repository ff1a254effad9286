"""The spans of one signal, made after the fact from its latency account. Pure.

A signal's trace has its id: ``chandlery trace ID`` and a backend's search for the trace ``ID`` show the same thing.
Span ids derive from it and from the span's name, so that a signal told twice (at-least-once) is the same trace.

One root span lasts as long as the account; each stage is a child of it, named by the stamp that ends it
(``chandlery.stage``), belonging to the process it happened in. The children lie end to end: they sum to the root.
Times are the pod's monotonic clock plus one offset to the wall clock, the same for the whole trace: however that
clock is stepped meanwhile, no span has a negative length.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Final, Literal, NamedTuple

from chandlery.core.clocks import boot_id
from chandlery.core.intervals import parse_interval
from chandlery.core.latency import STAGES, Account
from chandlery.core.signals import Signal, SignalStamps
from chandlery.core.topics import AGGREGATOR_CLIENT, CANDLES_CLIENT, INGEST_CLIENT, SIGNALS_CLIENT, Topics

Kind = Literal["internal", "producer", "consumer", "client"]
#: The process a span happened in; ``chandlery-`` before it is its ``service.name``.
Service = Literal["ingest", "aggregator", "feed", "trader"]
Value = str | int | float | bool
Attributes = dict[str, Value]
#: Attributes that many spans share: made once, and by an encoder that remembers them encoded once.
Shared = tuple[tuple[str, Value], ...]

ROOT: Final = "frame to signal"
TICK_ROOT: Final = "frame to segment"
_STRATEGY: Final = "strategy"
#: A stage of no length is told as this long, and the next as so much shorter: Jaeger takes a span that ends where it
#: begins for a negative one, and warns of it.
_SHORTEST_NS: Final = 1
_TRACEPARENT: Final = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
#: Of a symbol: nine stages by two clocks of each host whose clock ended one.
_MOST_TOLD: Final = 128
#: Place of each span's id among those of its trace. Never to be reordered: ids must stay what they were.
_PLACES: Final = {name: place for place, name in enumerate((ROOT, TICK_ROOT, _STRATEGY, *STAGES))}


class Link(NamedTuple):
    """Another trace that has to do with a span, and why."""

    trace_id: bytes
    span_id: bytes
    attributes: Attributes


class Span(NamedTuple):
    """One span.

    Attributes:
        trace_id: 16 bytes. span_id: 8. parent_id: 8, empty for the root.
        start_ns, end_ns: wall clock, ns since 1970; end > start.
        shared: attributes that other traces' spans have too. own: those of this one.
    """

    name: str
    kind: Kind
    service: Service
    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    start_ns: int
    end_ns: int
    shared: Shared
    own: Attributes
    links: Sequence[Link] = ()

    @property
    def attributes(self) -> Attributes:
        """All of them."""
        return {**dict(self.shared), **self.own}


class Broker(NamedTuple):
    """Where a feed's topics are, as the semantic conventions ask for it; empty: it isn't told.

    Attributes:
        address, port: of a broker. group: the aggregators' consumer group.
    """

    address: str = ""
    port: int = 0
    group: str = ""


_NO_BROKER: Final = Broker()


class _Step(NamedTuple):
    """How a stage is told: in which process, by which span; ``client``: what Kafka knows the process by."""

    service: Service
    kind: Kind
    name: str
    operation: str = ""
    topic: str = ""
    client: str = ""


#: By stage. Names and attributes of what touches a topic follow the semantic conventions for messaging.
_STEPS: Final[dict[str, _Step]] = {
    "appended": _Step("ingest", "producer", "send", "send", "trades", INGEST_CLIENT),
    "aggregated": _Step("aggregator", "consumer", "process", "process", "trades", AGGREGATOR_CLIENT),
    "emitted": _Step("aggregator", "internal", "emit candle"),
    "fed": _Step("feed", "client", "receive", "receive", "candles", CANDLES_CLIENT),
    "published": _Step("feed", "internal", "publish to segment"),
    "woken": _Step("trader", "internal", "wake"),
    "decided": _Step("trader", "internal", "decide"),
    "signalled": _Step("trader", "internal", "signal"),
    "acknowledged": _Step("feed", "producer", "send", "send", "signals", SIGNALS_CLIENT),
}


class _Place:
    """Where a symbol's records are, and what spans say of it: made once for each stage.

    Args:
        topics: names by what they hold.
    """

    def __init__(self, topics: dict[str, str], partition: int, key: str, broker: Broker) -> None:
        self._topics = topics
        self._partition = partition
        self._key = key
        self._broker = broker
        self._known: dict[tuple[str, str, str], tuple[str, Shared]] = {}

    def told(self, stage: str, clock: str, host: str) -> tuple[str, Shared]:
        """A stage's span's name, and what every span of it says; host: by whose clock its end was read."""
        known = self._known.get((stage, clock, host))
        if known is None:
            if len(self._known) >= _MOST_TOLD:
                self._known.clear()
            known = self._known[stage, clock, host] = self._tell(stage, clock, host)
        return known

    def _tell(self, stage: str, clock: str, host: str) -> tuple[str, Shared]:
        step, broker = _STEPS[stage], self._broker
        about: Attributes = {
            "chandlery.stage": stage,
            "chandlery.stage.clock": clock,
            "chandlery.stage.clock.host": host,
        }
        if not step.topic:
            return step.name, tuple(about.items())
        topic = self._topics[step.topic]
        about |= {
            "messaging.system": "kafka",
            "messaging.operation.name": step.operation,
            "messaging.operation.type": step.operation,
            "messaging.destination.name": topic,
            "messaging.destination.partition.id": str(self._partition),
            "messaging.kafka.message.key": self._key,
            "messaging.client.id": step.client,
        }
        if broker.address:
            about |= {"server.address": broker.address, "server.port": broker.port}
        if broker.group and step.kind == "consumer":
            about["messaging.consumer.group.name"] = broker.group
        return f"{step.name} {topic}", tuple(about.items())


@lru_cache(maxsize=2_048)
def _place(topics: Topics, candles: str, partition: int, key: str, broker: Broker) -> _Place:
    names = {"trades": topics.trades, "candles": candles, "signals": topics.signals}
    return _Place(names, partition, key, broker)


def trace_id_of(signal_id: str) -> bytes:
    """A signal's trace id, 16 bytes: its own id (32 hex digits), or a digest of what is none."""
    try:
        trace_id = bytes.fromhex(signal_id)
    except ValueError:
        trace_id = b""
    if len(trace_id) != 16 or not any(trace_id):
        return blake2b(signal_id.encode(), digest_size=16).digest()
    return trace_id


def span_id_of(trace_id: bytes, name: str) -> bytes:
    """A span's id, 8 bytes, from its trace's and what it is: a stage's name, or the root's."""
    block, place = divmod(_PLACES[name], 8)
    return blake2b(bytes((block,)), key=trace_id).digest()[8 * place : 8 * place + 8]


def _span_ids(trace_id: bytes, last_stage: str) -> list[bytes]:
    """The ids of all spans up to a stage's, by place: a digest for eight each. Of a tick the first eight suffice."""
    digests = blake2b(b"\x00", key=trace_id).digest()
    if _PLACES[last_stage] >= 8:
        digests += blake2b(b"\x01", key=trace_id).digest()
    return [digests[at : at + 8] for at in range(0, len(digests), 8)]


def ids_of(signal_id: str) -> dict[str, str]:
    """The ids that a log's line about a signal carries: of its trace, and of the span that sends its record.

    They are the signal's whether or not its trace is exported.
    """
    trace_id = trace_id_of(signal_id)
    return {"trace_id": trace_id.hex(), "span_id": span_id_of(trace_id, "acknowledged").hex()}


def ids_in(traceparent: bytes | None) -> dict[str, str]:
    """The same of a record with W3C context; nothing where it is none. None: Kafka has headers without a value."""
    found = _TRACEPARENT.fullmatch(traceparent or b"")
    return {"trace_id": found[1].decode(), "span_id": found[2].decode()} if found else {}


def traceparent_of(signal_id: str, *, sampled: bool) -> bytes:
    """The W3C ``traceparent`` header of a signal's record: its consumers go on with its trace.

    The parent is the span that sent the record.
    """
    trace_id = trace_id_of(signal_id)
    return f"00-{trace_id.hex()}-{span_id_of(trace_id, 'acknowledged').hex()}-{sampled:02x}".encode()


def signal_spans(
    signal: Signal,
    stamps: SignalStamps,
    told: Account,
    topics: Topics,
    *,
    partition: int,
    hosts: tuple[str, str] = ("", ""),
    links: Sequence[Link] = (),
    broker: Broker = _NO_BROKER,
) -> list[Span]:
    """The whole trace of an acknowledged signal, root first; empty where it came without stamps.

    Args:
        stamps: the signal's, completed by the acknowledgement. told: their account.
        topics: of the feed. partition: of the signal's symbol in each of them.
        hosts: boot ids (hex) of the hosts that ingest and aggregator ran on; empty: this one.
        links: traces that came of the same record. broker: where the topics are.
    """
    trace_id = trace_id_of(signal.id)
    candles = topics.candles_live if signal.forming else _closed_topic(topics, signal.interval)
    place = _place(topics, candles, partition, signal.symbol, broker)
    spans = _stages(trace_id, ROOT, stamps, told, place, hosts)
    if not spans:
        return []
    if told.stages[-1].name == "acknowledged":
        # Kafka numbers its records and gives them no ids; a signal's own is in its record.
        spans[-1].own["messaging.message.id"] = signal.id
    root = spans[0]
    root.own.update(_about(signal))
    spans[0] = root._replace(shared=_whose(signal.trader, signal.strategy, signal.code, signal.interval), links=links)
    decided = next((at for at, stage in enumerate(told.stages) if stage.name == "decided"), -1)
    if decided >= 0 and 0 < signal.strategy_ns <= spans[decided + 1].end_ns - spans[decided + 1].start_ns:
        around = spans[decided + 1]
        spans.append(
            Span(
                "on candle",
                "internal",
                "trader",
                trace_id,
                span_id_of(trace_id, _STRATEGY),
                around.span_id,
                around.end_ns - signal.strategy_ns,
                around.end_ns,
                _of_strategy(signal.strategy),
                {},
            )
        )
    return spans


def tick_spans(
    trace_id: bytes, symbol: str, interval: str, forming: bool, stamps: SignalStamps, told: Account, topics: Topics,
    *, partition: int, hosts: tuple[str, str] = ("", ""), broker: Broker = _NO_BROKER,
) -> list[Span]:  # fmt: skip
    """The trace of a candle that was written into the segment and that nobody need have decided on.

    Args:
        hosts, broker: as for :func:`signal_spans`.
    """
    candles = topics.candles_live if forming else _closed_topic(topics, interval)
    place = _place(topics, candles, partition, symbol, broker)
    spans = _stages(trace_id, TICK_ROOT, stamps, told, place, hosts)
    if spans:
        spans[0] = spans[0]._replace(shared=_of_tick(symbol, interval, forming))
    return spans


def _stages(
    trace_id: bytes,
    root: str,
    stamps: SignalStamps,
    told: Account,
    place: _Place,
    hosts: tuple[str, str],
) -> list[Span]:
    if not told.stages:
        return []
    ids = _span_ids(trace_id, told.stages[-1].name)
    root_id = ids[_PLACES[root]]
    at_ns = begin_ns = due_ns = told.start_ns + stamps.wall_offset_ns
    made: list[Span] = []
    here = boot_id().hex()
    clocks = {"aggregator": hosts[1] or here, "feed": here, "trader": here}
    for stage in told.stages:
        step = _STEPS[stage.name]
        due_ns += round(stage.duration_us * 1_000)
        end_ns = max(due_ns, at_ns + _SHORTEST_NS)
        name, shared = place.told(stage.name, stage.clock, clocks.get(step.service, "broker"))
        made.append(
            Span(
                name,
                step.kind,
                step.service,
                trace_id,
                ids[_PLACES[stage.name]],
                root_id,
                at_ns,
                end_ns,
                shared,
                {"chandlery.stage.uncertainty_us": stage.uncertainty_us} if stage.uncertainty_us else {},
            )
        )
        at_ns = end_ns
    service = _STEPS[told.stages[0].name].service
    about = _clock_attributes(told)
    if hosts[0]:
        about["chandlery.received.clock.host"] = hosts[0]
        about["chandlery.received.clock.uncertainty_us"] = stamps.origin_uncertainty_ns / 1_000
    if hosts[1]:
        about["chandlery.aggregated.clock.host"] = hosts[1]
        about["chandlery.aggregated.clock.uncertainty_us"] = stamps.host_uncertainty_ns / 1_000
    return [Span(root, "internal", service, trace_id, root_id, b"", begin_ns, at_ns, (), about), *made]


@lru_cache(maxsize=4_096)
def _of_tick(symbol: str, interval: str, forming: bool) -> Shared:
    """What every traced candle of a series says."""
    return (
        ("chandlery.clock.host", boot_id().hex()),
        ("chandlery.symbol", symbol),
        ("chandlery.interval", interval),
        ("chandlery.forming", forming),
    )


@lru_cache(maxsize=512)
def _of_strategy(name: str) -> Shared:
    """What every call of a strategy says."""
    return (("chandlery.strategy", name), ("code.function.name", "on_candle"))


@lru_cache(maxsize=4_096)
def _whose(trader: str, strategy: str, code: str, interval: str) -> Shared:
    """What every signal of a Trader says."""
    return (
        ("chandlery.clock.host", boot_id().hex()),
        ("chandlery.trader", trader),
        ("chandlery.strategy", strategy),
        ("chandlery.code", code),
        ("chandlery.interval", interval),
    )


def _clock_attributes(told: Account) -> Attributes:
    known: Attributes = {}
    if told.frame_to_signal_us is not None:
        known["chandlery.frame_to_signal_us"] = told.frame_to_signal_us
    if told.visible_to_decided_us is not None:
        known["chandlery.visible_to_decided_us"] = told.visible_to_decided_us
    if told.skew_us is not None:
        known["chandlery.exchange.skew_us"] = told.skew_us
    if told.transit_us is not None:
        known["chandlery.exchange.transit_us"] = told.transit_us
        known["chandlery.exchange.offset_us"] = (told.skew_us or 0.0) - told.transit_us
        known["chandlery.exchange.uncertainty_us"] = told.transit_uncertainty_us
    if told.recorded_skew_us is not None:
        known["chandlery.exchange.recorded_skew_us"] = told.recorded_skew_us
    if told.corrected:
        known["chandlery.corrected_stamps"] = told.corrected
    return known


def _about(signal: Signal) -> Attributes:
    return {
        "chandlery.signal.id": signal.id,
        "chandlery.rule": signal.rule,
        "chandlery.action": signal.action,
        "chandlery.symbol": signal.symbol,
        "chandlery.open_time_ms": signal.open_time_ms,
        "chandlery.session": signal.session,
        "chandlery.forming": signal.forming,
        "chandlery.incarnation": signal.incarnation,
        "chandlery.price": signal.price,
        "chandlery.strength": signal.strength,
        "chandlery.reason": signal.reason,
    }


def _closed_topic(topics: Topics, interval: str) -> str:
    return topics.candles_fast if parse_interval(interval).is_fast else topics.candles
