"""Which ring items may become signals: the ring is written by a strategy's process, so nothing is believed."""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import Final

import msgspec

from chandlery.core.signals import MAX_REASON_CHARS, Signal, decode_signal
from chandlery.core.wire import UNDECODABLE
from chandlery.workers.feed.assignments import Fence

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


def admit(
    payload: bytes, trader: str, fence: Fence, recent: RecentIds, *, until_ms: int | None = None
) -> tuple[Signal | None, str, str]:
    """Decide on one ring item.

    Args:
        payload: bytes of the ring's slot. trader: whose ring it is.
        until_ms: the fence's own where it holds for this slot, else None.

    Returns:
        The signal, or None with the counter's name (``bad_signal``, ``fenced``, ``duplicate_signal``) and a
        line for a person.
    """
    try:
        signal = decode_signal(payload)
    except UNDECODABLE as error:
        return None, "bad_signal", f"undecodable: {error}"
    problem = _problem(signal, trader, fence)
    if problem:
        return None, "bad_signal", problem
    if fence.mode != "active":
        return None, "fenced", f"the trader is {fence.mode}"
    if signal.incarnation != fence.incarnation:
        return None, "fenced", f"of incarnation {signal.incarnation}; {fence.incarnation} is active"
    if signal.open_time_ms < fence.from_ms:
        return None, "fenced", f"on a candle of {signal.open_time_ms}: it decides from {fence.from_ms} on"
    if until_ms is not None and signal.open_time_ms >= until_ms:
        return None, "fenced", f"on a candle of {signal.open_time_ms}: it decides until {until_ms}"
    if not recent.add(signal.id):
        return None, "duplicate_signal", f"{signal.id} was taken before"
    return signal, "", ""


def _problem(signal: Signal, trader: str, fence: Fence) -> str:
    if signal.trader != trader:
        return f"says it is of trader {signal.trader[:100]!r}"
    if not _ID.fullmatch(signal.id):
        return f"id {signal.id[:40]!r} is not 32 hex digits"
    if signal.symbol not in fence.symbols or signal.interval != fence.interval:
        return f"decides on {signal.symbol[:50]!r} {signal.interval[:10]!r}, which is no series of its own"
    if not 0.0 <= signal.strength <= 1.0:
        return f"strength {signal.strength} is not within 0 … 1"
    if not _PRICE.fullmatch(signal.price):
        return f"price {signal.price[:40]!r} is no decimal"
    times = (signal.strategy_ns, signal.emitted_wall_ms, signal.open_time_ms, *msgspec.structs.astuple(signal.stamps))
    numbers = (signal.session, signal.revision, signal.ordinal)
    if max(*times, *numbers) > _MOST or min(*times, *numbers) < -_MOST:
        return "a time or number of it doesn't fit into 64 bits"
    if len(signal.reason) > MAX_REASON_CHARS:
        return f"reason has {len(signal.reason)} characters; {MAX_REASON_CHARS} are allowed"
    return ""
