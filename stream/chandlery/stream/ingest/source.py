"""The interface of the market sources: what they push, and how a run of theirs looks.

A source pushes into an :class:`Outlet`: trades by symbol, the exchange's time in silence, its connection's
state. It waits at :meth:`Outlet.room` when it can be paused (replay, synthetic) and never waits when it can't
(an exchange doesn't stop trading).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import msgspec

from chandlery.core.wire import BackfillRecord


@dataclass(slots=True)
class Trades:
    """Trades of one symbol that arrived together, as parallel lists of equal length n ≥ 1.

    Attributes:
        symbol: unified symbol.
        id: trade ids. time_ms: exchange's trade times.
        price, quantity: integers at ``price_scale`` and ``quantity_scale`` decimals.
        buyer_maker: 1 where the buyer was the maker; empty when unknown.
        received_ns: monotonic; when the newest of them was had.
        exchange_ns: wall clock of the exchange at the newest of them, 0 for replays.
        recorded_skew_ns: replays: receive clock minus exchange clock as captured; else 0.
        frame: ordinal of the newest one's frame within the session.
    """

    symbol: str
    id: list[int]
    time_ms: list[int]
    price: list[int]
    quantity: list[int]
    buyer_maker: list[int]
    price_scale: int
    quantity_scale: int
    received_ns: int
    exchange_ns: int = 0
    recorded_skew_ns: int = 0
    frame: int = 0


class Position(msgspec.Struct):
    """How far one symbol has been acknowledged by the broker, within a session.

    Attributes:
        count: trades appended since the session's begin: the next one to send is the ``count``-th from 0.
        last_id: highest trade id appended, -1 for none.
        watermark_ms: last watermark appended, -1 for none.
    """

    count: int = 0
    last_id: int = -1
    watermark_ms: int = -1


class Outlet(Protocol):
    """Where a source pushes what it has."""

    def trades(self, batch: Trades) -> None:
        """Take trades; they are appended in this order, per symbol."""

    def heartbeat(self, symbol: str, exchange_ms: int, *, last: bool = False) -> None:
        """Say that everything of ``symbol`` up to the exchange's time ``exchange_ms`` has been pushed.

        Args:
            symbol: unified symbol.
            exchange_ms: exchange's time; one behind an earlier watermark is ignored.
            last: the market is over: the configured watermark delay no longer applies.
        """

    def silent_ns(self, symbol: str) -> int:
        """Monotonic ns since this symbol last had a record queued (trades or heartbeat)."""

    async def room(self) -> None:
        """Return when there is room to push more."""


class Source(Protocol):
    """One market."""

    def first_trade_ms(self, symbol: str) -> int | None:
        """Exchange time at which this symbol's trades begin, or None when there are none."""

    def backfill(self, symbol: str) -> Iterator[BackfillRecord]:
        """The source's own history of a symbol, ascending for each interval; may be empty."""

    async def run(self, outlet: Outlet, resume: Mapping[str, Position]) -> None:
        """Push until the market ends (replays); exchanges and synthetic markets never return.

        Args:
            outlet: where to push.
            resume: positions already acknowledged in this session, by symbol (absent: from the begin).

        Raises:
            InputError: the source's options, files or symbols can't be used.
        """
