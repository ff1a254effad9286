"""Which ring items may become signals: the ring is written by a strategy's process, so nothing is believed."""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import Final, NamedTuple

import msgspec

from chandlery.core.signals import MAX_REASON_CHARS, Decided, Life, Signal, decode_ring
from chandlery.core.wire import UNDECODABLE
from chandlery.workers.feed.assignments import Fence
from chandlery.workers.feed.forming_signals import FormingSignals, MissedCloses

#: Ids remembered to recognise what a restarted trader signals again.
REMEMBERED_IDS: Final = 10_000
#: Ids remembered beside them that a look at the topic has found: as many as the longest look reads records. An id is kept
#: as 16 bytes, about 155 bytes with its place in the order: 31 MB at most, and nothing where nothing was recalled.
RECALLED_IDS: Final = 200_000
_ID: Final = re.compile(r"[0-9a-f]{32}")
#: Times and numbers have 64 bits, wherever they go.
_MOST: Final = 2**63 - 1
_PRICE: Final = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,40})?")


class RecentIds:
    """The newest ids of a worker's signals, and beside them those recalled from the topic; oldest forgotten first.

    They are apart: many recalled ones don't make it forget what passed here, nor the other way round.

    Attributes:
        forgotten: recalled ids that had to make room for others.
    """

    def __init__(self, limit: int = REMEMBERED_IDS, recalled_limit: int = RECALLED_IDS) -> None:
        self._limit = limit
        self._recalled_limit = recalled_limit
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._recalled: OrderedDict[bytes, None] = OrderedDict()
        self.forgotten = 0

    def add(self, identity: str) -> bool:
        """Remember an id. Returns: False when it was there already."""
        if self._has(identity):
            return False
        self._ids[identity] = None
        if len(self._ids) > self._limit:
            self._ids.popitem(last=False)
        return True

    def recall(self, identity: str) -> bool:
        """Remember an id that is on the topic. Returns: False when it was there already, or is none."""
        if not _ID.fullmatch(identity):
            return False
        is_new = not self._has(identity)
        self._recalled[bytes.fromhex(identity)] = None
        if len(self._recalled) > self._recalled_limit:
            self._recalled.popitem(last=False)
            self.forgotten += 1
        return is_new

    def _has(self, identity: str) -> bool:
        if identity in self._ids:
            return True
        # Most workers have recalled nothing: then the look-up costs nothing.
        return bool(self._recalled and _ID.fullmatch(identity)) and bytes.fromhex(identity) in self._recalled


class Admission(NamedTuple):
    """What becomes of one ring item.

    Attributes:
        records: to be written to the topic, in order: a signal, or what is told of the lives of some.
        reason: why it was dropped: the counter's name (``bad_signal``, ``fenced``, ``duplicate_signal``, ``incomplete``); empty: it wasn't.
        message: of the drop, a line for a person.
        is_signal: whether it counts as a signal; what only tells of others doesn't.
        dropped: the signal that it would have been, as far as that can be told.
    """

    records: tuple[Signal | Life, ...] = ()
    reason: str = ""
    message: str = ""
    is_signal: bool = True
    dropped: Signal | None = None


def admit(
    payload: bytes,
    trader: str,
    fence: Fence,
    recent: RecentIds,
    forming: FormingSignals,
    missed: MissedCloses,
    *,
    until_ms: int | None = None,
) -> Admission:
    """Decide on one ring item.

    Args:
        payload: bytes of the ring's slot. trader: whose ring it is.
        forming: signals that wait for the close of their candle. missed: what was dropped of this ring's closes.
        until_ms: the fence's own where it holds for this slot, else None.
    """
    try:
        item = decode_ring(payload)
    except UNDECODABLE as error:
        missed.note(None, "bad_signal")
        return Admission(reason="bad_signal", message=f"undecodable: {error}")
    problem = _stranger(item, trader, fence) or (_problem(item) if isinstance(item, Signal) else _no_time(item))
    fenced = "" if problem else _fenced(item, fence, until_ms)
    if problem or fenced:
        reason = "bad_signal" if problem else "fenced"
        if isinstance(item, Signal):
            missed.note(item, reason)
            return Admission(reason=reason, message=problem or fenced, dropped=item)
        if fenced:
            missed.settle(item)
        return Admission(reason=reason, message=problem or fenced, is_signal=bool(problem))
    if isinstance(item, Decided):
        why = missed.settle(item)
        if why:
            message = f"something of the close of {item.open_time_ms} was dropped: {why}"
            return Admission(reason="incomplete", message=message, is_signal=False)
        return Admission(tuple(forming.withdrawn(item)), is_signal=False)
    # First: of an id that is forgotten here the forming signal may still be known.
    word = forming.confirmed(item)
    is_new = recent.add(item.id)
    if word is not None:
        return Admission((word,), is_signal=False)
    if is_new:
        if item.forming:
            forming.note(
                item.id,
                item.action,
                trader=item.trader,
                code=item.code,
                symbol=item.symbol,
                session=item.session,
                open_time_ms=item.open_time_ms,
            )
        return Admission((item,))
    return Admission(reason="duplicate_signal", message=f"{item.id} was taken before", dropped=item)


def _stranger(item: Signal | Decided, trader: str, fence: Fence) -> str:
    if item.trader != trader:
        return f"says it is of trader {item.trader[:100]!r}"
    if item.symbol not in fence.symbols or item.interval != fence.interval:
        return f"decides on {item.symbol[:50]!r} {item.interval[:10]!r}, which is no series of its own"
    return ""


def _fenced(item: Signal | Decided, fence: Fence, until_ms: int | None) -> str:
    if fence.mode != "active":
        return f"the trader is {fence.mode}"
    if item.incarnation != fence.incarnation:
        return f"of incarnation {item.incarnation}; {fence.incarnation} is active"
    if item.open_time_ms < fence.from_ms:
        return f"on a candle of {item.open_time_ms}: it decides from {fence.from_ms} on"
    if until_ms is not None and item.open_time_ms >= until_ms:
        return f"on a candle of {item.open_time_ms}: it decides until {until_ms}"
    return ""


def _no_time(decided: Decided) -> str:
    return "" if 0 <= decided.at_wall_ms <= _MOST else "a time of it doesn't fit into 64 bits"


def _problem(signal: Signal) -> str:
    if not _ID.fullmatch(signal.id):
        return f"id {signal.id[:40]!r} is not 32 hex digits"
    if not 0.0 <= signal.strength <= 1.0:
        return f"strength {signal.strength} is not within 0 … 1"
    if not _PRICE.fullmatch(signal.price):
        return f"price {signal.price[:40]!r} is no decimal"
    times = (
        signal.strategy_ns,
        signal.ttl_ms,
        signal.emitted_wall_ms,
        signal.open_time_ms,
        *msgspec.structs.astuple(signal.stamps),
    )
    numbers = (signal.session, signal.revision, signal.ordinal)
    if max(*times, *numbers) > _MOST or min(*times, *numbers) < -_MOST:
        return "a time or number of it doesn't fit into 64 bits"
    if len(signal.reason) > MAX_REASON_CHARS:
        return f"reason has {len(signal.reason)} characters; {MAX_REASON_CHARS} are allowed"
    return ""
