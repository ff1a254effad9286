"""Signals: what a trader emits, its reproducible id, its latency account's raw stamps, and what is told of its life."""

from __future__ import annotations

import hashlib
from typing import Final, Literal

import msgspec

Action = Literal["buy", "sell", "close", "custom"]
#: What the close of its candle says of a signal that was made while the candle was forming.
Word = Literal["confirmed", "invalidated"]

#: Most bytes of an encoded signal: one slot of a signal ring less its header (see workers/segment).
MAX_SIGNAL_BYTES: Final = 1008
MAX_REASON_CHARS: Final = 200
#: W3C's header of a signal's record: whoever acts on it goes on with its trace.
TRACE_HEADER: Final = "traceparent"


class SignalStamps(msgspec.Struct, omit_defaults=True):
    """Stage stamps of one signal, ns. All monotonic of the pod's host except exchange and appended (wall).

    The last four come with the completion: what the feed knows of clocks that aren't the pod's host's (clocks.py).

    Attributes:
        origin_uncertainty_ns, host_uncertainty_ns: how far ``received``, and how far all stamps up to ``emitted``, may
            be off for having been made on another host.
        exchange_offset_ns, exchange_uncertainty_ns: the exchange's clock with the least time on the network.
    """

    exchange_ns: int = 0
    received_ns: int = 0
    appended_ns: int = 0
    aggregated_ns: int = 0
    emitted_ns: int = 0
    fed_ns: int = 0
    published_ns: int = 0
    woken_ns: int = 0
    decided_ns: int = 0
    signalled_ns: int = 0
    acknowledged_ns: int = 0
    recorded_skew_ns: int = 0
    wall_offset_ns: int = 0
    origin_uncertainty_ns: int = 0
    host_uncertainty_ns: int = 0
    exchange_offset_ns: int = 0
    exchange_uncertainty_ns: int = 0


class Signal(msgspec.Struct, tag="signal", tag_field="kind", omit_defaults=True):
    """A signal as it stands in a ring and on the ``signals`` topic.

    Attributes:
        id: 32 hex digits, see :func:`signal_id`.
        trader: ``namespace/name``.
        strategy: strategy name; ``code`` its code-and-parameter digest.
        rule: name of the strategy's rule that fired; ``ordinal`` counts its signals on one candle.
        symbol, interval, open_time_ms, session: the candle decided on; ``forming`` whether it was open.
        price: close of that candle, decimal string.
        strength: 0 … 1.
        reason: one line for a person, at most 200 characters.
        emitted_wall_ms: wall clock of the trader's host when it signalled.
        strategy_ns: time the strategy itself took, ns.
        ttl_ms: the Trader's ``signals.ttl``: for so long, at most, it is one to act on; 0: see signal_life.py.
    """

    id: str
    trader: str
    strategy: str
    code: str
    rule: str
    ordinal: int
    action: Action
    symbol: str
    interval: str
    open_time_ms: int
    session: int
    price: str
    strength: float
    reason: str
    forming: bool = False
    incarnation: int = 0
    revision: int = 0
    emitted_wall_ms: int = 0
    strategy_ns: int = 0
    ttl_ms: int = 0
    stamps: SignalStamps = msgspec.field(default_factory=SignalStamps)


class Completion(msgspec.Struct, tag="completion", tag_field="kind", omit_defaults=True):
    """What only became known after the broker took a signal (topic ``signals``, same key).

    Attributes:
        origin, host: boot ids (hex) of the hosts whose clocks stamped ``received``, and ``aggregated`` and
            ``emitted``; empty: the pod's own. The uncertainties and the offset: see :class:`SignalStamps`.
    """

    id: str
    trader: str
    acknowledged_ns: int
    wall_offset_ns: int
    origin: str = ""
    host: str = ""
    origin_uncertainty_ns: int = 0
    host_uncertainty_ns: int = 0
    exchange_offset_ns: int = 0
    exchange_uncertainty_ns: int = 0


class Life(msgspec.Struct, tag="life", tag_field="kind", omit_defaults=True):
    """What the close of its candle says of a signal made on it while it was forming (topic ``signals``, same key).

    It may be there more than once; a second one of the same id and state says nothing new.

    Attributes:
        id: of the signal. trader, symbol, open_time_ms: the signal's.
        state: ``confirmed``: the close says the same by the same rule; ``invalidated``: it doesn't, the signal is withdrawn.
        at_wall_ms: wall clock of the trader's host when it had decided on the closed candle.
    """

    id: str
    trader: str
    symbol: str
    state: Word
    open_time_ms: int
    at_wall_ms: int


class Decided(msgspec.Struct, tag="decided", tag_field="kind", omit_defaults=True):
    """In a ring, never on a topic: the trader has decided on a closed candle, and all that it signals on it stands before.

    Only where there were signals on the forming candle, or may have been some of an earlier process: of those that the
    close didn't repeat the feed then tells that they are withdrawn.
    """

    trader: str
    code: str
    symbol: str
    interval: str
    open_time_ms: int
    session: int
    incarnation: int = 0
    at_wall_ms: int = 0


def completed(stamps: SignalStamps, completion: Completion) -> SignalStamps:
    """A signal's stamps with what its completion adds: those that its account is made from."""
    return msgspec.structs.replace(
        stamps,
        acknowledged_ns=completion.acknowledged_ns,
        wall_offset_ns=stamps.wall_offset_ns or completion.wall_offset_ns,
        origin_uncertainty_ns=completion.origin_uncertainty_ns,
        host_uncertainty_ns=completion.host_uncertainty_ns,
        exchange_offset_ns=completion.exchange_offset_ns,
        exchange_uncertainty_ns=completion.exchange_uncertainty_ns,
    )


SignalsRecord = Signal | Completion | Life
RingRecord = Signal | Decided

encode: Final = msgspec.json.Encoder().encode
decode_signal: Final = msgspec.json.Decoder(Signal).decode
decode_record: Final = msgspec.json.Decoder(SignalsRecord).decode
decode_ring: Final = msgspec.json.Decoder(RingRecord).decode


def signal_id(
    *, trader: str, uid: str, code: str, symbol: str, interval: str, open_time_ms: int, rule: str, ordinal: int
) -> str:
    """Reproducible id of a signal: a restart, a move or a replay gives the same, other code another.

    Args:
        trader: ``namespace/name``; ``uid`` its uid, or the manifest identity where there is no cluster.
        code: digest of strategy code and parameters.

    Returns:
        32 hex digits: blake2b-128 over the fields, each preceded by its length (so no two lists collide).
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in (trader, uid, code, symbol, interval, str(open_time_ms), rule, str(ordinal)):
        data = part.encode()
        digest.update(len(data).to_bytes(4, "little"))
        digest.update(data)
    return digest.hexdigest()
