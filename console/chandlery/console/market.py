"""Signals and candles as the API reads them: what a reader of the topics must offer (see ``console/reading``)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from chandlery.console.api.models import Candle, Candles, Latency, Signal, SignalDetail


@dataclass(frozen=True)
class SignalQuery:
    """Which signals; empty and None: all. ``before``: cursor of the page before (a position), newest first.

    ``state`` is the one that a signal is in now: for pages, not for those who follow.
    """

    trader: str = ""
    symbol: str = ""
    action: str = ""
    feed: str = ""
    state: str = ""
    since_ms: int | None = None
    until_ms: int | None = None
    before: str = ""
    limit: int = 100


@dataclass(frozen=True)
class SignalEvent:
    """Something new about signals.

    Attributes:
        position: of the stream after this event: an opaque text of at most 1 KiB in ``[A-Za-z0-9_.:,-]``, the same
            after a restart of this process, made from the offsets of the topics.
        signal: as it is known now: without stages first, with them once the broker's acknowledgement is known, and once
            more when the close of its candle says what it is.
        lost: records between the position asked for and this event that Kafka no longer has.
    """

    position: str
    signal: Signal
    lost: int = 0


@dataclass(frozen=True)
class CandleEvent:
    """A candle came, changed or closed.

    ``reset``: forget everything before. A new session began, or the series was read anew: its candles then follow.
    """

    feed: str
    symbol: str
    interval: str
    candle: Candle
    reset: bool = False


class Signals(Protocol):
    """The newest signals of all feeds, in memory, kept up to date."""

    def page(self, query: SignalQuery) -> tuple[Sequence[Signal], str]:
        """Newest first, and the cursor of what is older (empty: nothing is). Raises: InputError: no such cursor."""
        ...

    def get(self, signal_id: str) -> SignalDetail | None: ...

    def position(self) -> str:
        """The position of now: who follows from it is told what one would be who follows from now on."""
        ...

    def follow(self, after: str, query: SignalQuery) -> AsyncIterator[SignalEvent]:
        """What comes after a position, for ever; empty: from now on. Old positions are read from Kafka again.

        A follower that falls behind by more than is kept loses the oldest: the next event's ``lost`` says how many.

        Raises:
            InputError: no such position.
        """
        ...

    def latency(self, window_s: int, trader: str = "") -> Latency: ...

    def per_minute(self) -> float:
        """Signals of the last minute."""
        ...

    def recent_counts(self, trader: str, buckets: int, bucket_s: int) -> list[int]:
        """Signals of a Trader by time, oldest first: its sparkline."""
        ...


class Market(Protocol):
    """Candles of any series, read from the topics when first asked for, then kept up to date while somebody looks."""

    async def candles(self, feed: str, symbol: str, interval: str, limit: int, before_ms: int | None) -> Candles:
        """Raises: InputError: no such feed, or a text that is no symbol or interval; UnavailableError: no Kafka."""
        ...

    def follow(self, feed: str, symbol: str, interval: str) -> AsyncIterator[CandleEvent]:
        """Changes from now on. A follower that falls behind gets the newest state of each candle, not each change.

        Raises:
            InputError: as :meth:`candles`.
        """
        ...

    def newest_age_ms(self, feed: str) -> int | None:
        """How long ago the newest candle update of a feed was read here, ms; None: none yet."""
        ...
